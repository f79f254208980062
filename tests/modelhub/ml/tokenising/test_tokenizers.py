"""Tokenizers: whole on reading, sampled by shares, refused where they make no sense."""

import json
from pathlib import Path

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

import itertools

from modelhub.ml.chat import answer_encode, end_of_turn_id, prompt_text
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.corpora.documents import Document
from modelhub.ml.rundir import RunDir
from modelhub.ml.tokenising.backend import backend_open
from modelhub.ml.tokenising.configs import ALGORITHMS, TrainTokenizerConfig
from modelhub.ml.tokenising.tokenizers import tokenizer_open, tokenizer_train
from modelhub.ml.tokenising.train_tokenizer import main, pieces_spread, quotas_plan
from tests.modelhub.ml.corpora.corpus import corpus_write
from tests.modelhub.ml.runs import run_write

ENGLISH = [f"The quick brown fox number {i} jumps over the lazy dog, again." for i in range(60)]
CHINESE = [f"话说天下大势，分久必合，合久必分。第{i}回，天下三分。" for i in range(60)]


def trained(folder: Path, *corpora: list[str], reference: Path | None = None, **config):
    inputs = {
        f"corpus_{number}": corpus_write(folder / f"corpus{number}", texts, source=f"s{number}")
        for number, texts in enumerate(corpora, start=1)
    }
    if reference is not None:
        inputs["reference"] = reference
    run = run_write(folder / "run", "train_tokenizer", {"vocabulary": 400, **config}, **inputs)
    main(RunDir(run))
    return run / "outputs" / "tokenizer", json.loads((run / "result.json").read_text())["result"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_tokenizer_loads_with_its_ends_and_lays_turns(tmp_path, algorithm):
    folder, result = trained(tmp_path, ENGLISH, CHINESE, algorithm=algorithm, mask=True)
    tokenizer = tokenizer_open(folder)
    assert len(tokenizer) == result["vocabulary"] <= 400
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>", "<|pad|>")
    assert tokenizer.mask_token == "<|mask|>"
    assert tokenizer.eos_token_id == 0 != tokenizer.pad_token_id
    question = [{"role": "user", "content": "the fox"}]
    assert prompt_text(tokenizer, question) == (
        "<|im_start|>user\nthe fox<|im_end|>\n<|im_start|>assistant\n"
    )
    ending = end_of_turn_id(tokenizer)
    assert tokenizer.convert_ids_to_tokens(ending) == "<|im_end|>"
    assert answer_encode(tokenizer, "the dog", "stop")[-1] == ending
    text = "the lazy dog"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_tokenizer_is_the_same_without_transformers(tmp_path, algorithm, monkeypatch):
    folder, _ = trained(tmp_path, ENGLISH, CHINESE, algorithm=algorithm, special_tokens=("<a>",))
    loaded = tokenizer_open(folder)
    monkeypatch.setattr("modelhub.ml.tokenising.tokenizers.tokenizer_open", None)
    plain = backend_open(folder)
    assert (plain.size, plain.eos) == (len(loaded), loaded.eos_token_id)
    assert plain.tokenizer.to_str() == loaded.backend_tokenizer.to_str()


def test_what_transformers_reads_in_its_own_way_it_reads(tmp_path):
    folder, _ = trained(tmp_path, ENGLISH)
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(config | {"extra_special_tokens": ["<new>"]}))
    loaded = tokenizer_open(folder)
    opened = backend_open(folder)
    assert opened.size == len(loaded) == len(tokenizer_open(folder))
    assert opened.tokenizer.token_to_id("<new>") == loaded.convert_tokens_to_ids("<new>")
    assert opened.tokenizer.token_to_id("<new>") is not None


def test_bytes_give_back_every_text(tmp_path):
    folder, _ = trained(tmp_path, ENGLISH)
    tokenizer = tokenizer_open(folder)
    for text in ("  two  spaces\n\ttab", "春眠不觉晓", "🜁 never seen", "it's n't ."):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_fertility_is_told_by_source_beside_a_reference(tmp_path):
    small, _ = trained(tmp_path / "small", ENGLISH, vocabulary=300)
    _, result = trained(tmp_path / "both", ENGLISH, CHINESE, reference=small, vocabulary=600)
    english, chinese = result["fertility"]
    assert (english["source"], english["language"]) == ("s1", "en")
    assert english["tokens_per_word"] < english["reference_tokens_per_word"]
    # Never having seen Chinese, the reference writes a token for each of a character's 3 bytes.
    assert chinese["reference_tokens_per_word"] > 3 > chinese["tokens_per_word"]
    assert chinese["tokens_per_byte"] * 2 < chinese["tokens_per_character"]


def test_shares_are_what_is_sampled_and_nothing_is_read_twice():
    config = TrainTokenizerConfig(shares=(1.0, 3.0), max_characters=4000)
    assert quotas_plan([10_000, 10_000], config) == [1000, 3000]
    # The second has 1,500; what it lacks is taken of the first.
    assert quotas_plan([10_000, 1500], config) == [2500, 1500]
    assert quotas_plan([100, 200], config) == [100, 200]
    evened = TrainTokenizerConfig(temperature=2.0, max_characters=3000)
    assert quotas_plan([40_000, 10_000], evened) == [2000, 1000]
    with pytest.raises(RefusedError, match="3 corpora and 2 shares"):
        quotas_plan([1, 2, 3], config)
    with pytest.raises(RefusedError, match="needs a corpus with text"):
        quotas_plan([0, 0], config)


def test_pieces_are_spread_over_the_whole_corpus():
    documents = [Document(id=str(i), text=f"{i:02d}" * 50) for i in range(100)]
    kept = [piece[:2] for piece in pieces_spread(iter(documents), 10_000, 2_500)]
    assert len(kept) == 25
    assert max(int(b) - int(a) for a, b in itertools.pairwise(kept)) == 4
    assert len(list(pieces_spread(iter(documents), 10_000, 10_000))) == 100


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"vocabulary": 260}, "vocabulary: wanted 261"),
        ({"special_tokens": ("<a>", "<a>")}, "each of them once"),
        ({"special_tokens": ("<|endoftext|>",)}, "each of them once"),
        ({"special_tokens": ("x",)}, "more than one character"),
        ({"special_tokens": (" <a>",)}, "words"),
        ({"algorithm": "words"}, "bpe, wordpiece or unigram"),
        ({"shares": (0.0, 0.0)}, "not all 0"),
        ({"temperature": 0.5}, "1 or more"),
    ],
)
def test_nonsense_is_refused(config, what):
    with pytest.raises(ConfigError, match=what):
        TrainTokenizerConfig(**config)


def test_more_characters_than_the_vocabulary_holds_are_refused():
    config = TrainTokenizerConfig(algorithm="wordpiece", vocabulary=50)
    texts = ["".join(chr(0x4E00 + i) for i in range(200))]
    with pytest.raises(RefusedError, match="raise it, or take bpe"):
        tokenizer_train(iter(texts), config)
