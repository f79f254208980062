"""What PPO-ptx mixes in: every kind of text there is, and of a conversation the answers alone."""

import json

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.configs import PpoConfig
from alignment.ml.data import DemonstrationRecord
from alignment.ml.ppo import pretraining
from alignment.ml.ppo.pretraining import Pretraining, pretraining_load
from alignment.ml.ppo.updates import pretraining_gradients
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.corpora.documents import CorpusWriter, Document
from modelhub.ml.records import records_write
from tests.alignment.ml.programs import demonstration_written, messages
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml

CONFIG = PpoConfig(ptx_coef=1.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer(base):
    return tokenizer_load(base)


def corpus_write(folder, texts):
    folder.mkdir()
    with CorpusWriter(folder) as writer:
        for number, text in enumerate(texts):
            writer.add(Document(id=str(number), text=text))
    return folder


def taught_texts(tokenizer, examples):
    """What is learnt of each example, as text."""
    return [
        tokenizer.decode(
            [
                token
                for token, is_taught in zip(one.group.answers[0], one.taught[0], strict=True)
                if is_taught
            ],
            skip_special_tokens=True,
        )
        for one in examples
    ]


def test_of_peoples_demonstrations_the_answers_to_train_on_are_learnt(tmp_path, tokenizer):
    records = [
        demonstration_written(1, "first", turns=[{"user": "and then?", "text": "second"}]),
        demonstration_written(2, "kept for the test", split="held_out"),
        demonstration_written(3, "x" * 300),
    ]
    records_write(tmp_path / "demonstrations.jsonl", records)
    found = pretraining_load(tmp_path, tokenizer, CONFIG, max_tokens=100)
    assert taught_texts(tokenizer, found) == ["firstsecond"]
    assert "and then?" in tokenizer.decode(found[0].group.answers[0])


def test_of_chats_those_count_that_the_sites_shares_train_on(tmp_path, tokenizer):
    rows = [
        {"messages": [*messages(f"Say {n}"), {"role": "assistant", "content": "Yes"}]}
        for n in range(4)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "demonstrations.jsonl").write_text(text)
    every = PpoConfig(ptx_coef=1.0, split_shares=(1.0, 0.0, 0.0))
    assert len(pretraining_load(tmp_path, tokenizer, every, max_tokens=100)) == 4
    none = PpoConfig(ptx_coef=1.0, split_shares=(0.0, 0.0, 1.0))
    with pytest.raises(RefusedError, match="no example"):
        pretraining_load(tmp_path, tokenizer, none, max_tokens=100)


def test_what_rejection_sampling_kept_is_learnt_an_answer_at_a_time(tmp_path, tokenizer):
    kept = [
        DemonstrationRecord(
            prompt_id="d",
            messages=messages("Say d"),
            text=text,
            finish_reason="stop",
            score=0.0,
            batch="",
        )
        for text in ("one", "two")
    ]
    records_write(tmp_path / "demonstrations.jsonl", kept)
    found = pretraining_load(tmp_path, tokenizer, CONFIG, max_tokens=100)
    assert taught_texts(tokenizer, found) == ["one", "two"]


def test_a_corpus_is_cut_into_pieces_in_an_order_of_the_seed(tmp_path, tokenizer):
    texts = ["abcdefghij", "", "k", *(f"document {number}" for number in range(30))]
    folder = corpus_write(tmp_path / "corpus", texts)
    found = pretraining_load(folder, tokenizer, CONFIG, max_tokens=4)
    whole = [
        tokenizer.decode(one.group.prompt_T + one.group.answers[0], skip_special_tokens=True)
        for one in found
    ]
    # A token a byte: what does not fill two tokens has nothing to learn.
    pieces = [text[at : at + 4] for text in texts for at in range(0, len(text), 4)]
    assert sorted(whole) == sorted(piece for piece in pieces if len(piece) > 1)
    assert whole != sorted(whole)
    again = pretraining_load(folder, tokenizer, CONFIG, max_tokens=4)
    other = pretraining_load(folder, tokenizer, PpoConfig(ptx_coef=1.0, seed=1), max_tokens=4)
    assert again == found != other


def test_of_a_large_corpus_no_more_is_held_than_memory_allows(tmp_path, tokenizer, monkeypatch):
    texts = [f"document {number}" for number in range(10, 40)]  # of eleven tokens each
    folder = corpus_write(tmp_path / "corpus", texts)
    whole = pretraining_load(folder, tokenizer, CONFIG, max_tokens=50)
    monkeypatch.setattr(pretraining, "TOKENS_AT_MOST", 25)
    assert pretraining_load(folder, tokenizer, CONFIG, max_tokens=50) == whole[:3]
    # Pieces may be long: it is tokens that take memory.
    assert len(pretraining_load(folder, tokenizer, CONFIG, max_tokens=4)) == 7


def test_a_corpus_is_passed_over_few_times_and_each_document_read_once(
    tmp_path, tokenizer, monkeypatch
):
    texts = [f"document {number:04}" for number in range(1000)]
    folder = corpus_write(tmp_path / "corpus", texts)
    read, readings = pretraining.documents_at, []

    def documents_at(folder, places):
        readings.append(places)
        return read(folder, places)

    monkeypatch.setattr(pretraining, "documents_at", documents_at)
    assert len(pretraining_load(folder, tokenizer, CONFIG, max_tokens=50)) == 1000
    assert [len(places) for places in readings] == [100, 100, 200, 400, 200]
    assert sorted(place for places in readings for place in places) == list(range(1000))


@pytest.mark.parametrize(
    ("file", "row", "reason"),
    [
        ("other.jsonl", {}, "holds no documents"),
        ("texts.jsonl", {"text": "x"}, "no example of at most 50 tokens"),
        ("texts.jsonl", {"words": "x"}, "line 1, field text: wanted a string"),
    ],
)
def test_a_folder_without_a_text_is_refused(tmp_path, tokenizer, file, row, reason):
    (tmp_path / file).write_text(json.dumps(row) + "\n")
    with pytest.raises(RefusedError, match=reason):
        pretraining_load(tmp_path, tokenizer, CONFIG, max_tokens=50)


def test_the_loss_is_the_mean_over_what_is_taught(tmp_path, base, tokenizer):
    records = [
        demonstration_written(1, "first", turns=[{"user": "and then?", "text": "second"}]),
        demonstration_written(2, "another"),
    ]
    records_write(tmp_path / "demonstrations.jsonl", records)
    examples = pretraining_load(tmp_path, tokenizer, CONFIG, max_tokens=100)
    from alignment.ml.shared_prefix import attach

    model = model_load(base, dtype="float32")
    expected = []
    for one in examples:
        tokens_T = torch.tensor(one.group.prompt_T + one.group.answers[0])
        with torch.no_grad():
            logprobs_TV = model(tokens_T[None]).logits[0].log_softmax(-1)
        start = len(one.group.prompt_T)
        for place, is_taught in enumerate(one.taught[0], start=start):
            if is_taught:
                expected.append(-float(logprobs_TV[place - 1, tokens_T[place]]))
    attach(model)
    found = pretraining_gradients(model, examples, CONFIG)
    assert found == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_examples_are_all_taken_before_one_comes_again():
    source = Pretraining(["a", "b", "c"], seed=0, taken=0)
    first = source.take(3) + source.take(3)
    assert sorted(first[:3]) == sorted(first[3:]) == ["a", "b", "c"]
    assert Pretraining(["a", "b", "c"], seed=0, taken=4).take(2) == first[4:]
