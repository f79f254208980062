"""Multiple choice: which answers stand beside the right one, and which of them a policy chooses."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.checkers import ReferenceRecord
from alignment.ml.choices import means_of, questions_lay, questions_right
from alignment.ml.shared_prefix import Group, attach
from annotation.splits import SHARES, group_hash, split_of
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import PromptRecord, records_write
from tests.alignment.ml.programs import messages
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def texts_of(side, count):
    """The first prompts whose words put them on a side."""
    every = (f"How many are {number}?" for number in range(1000))
    found = [one for one in every if (split_of(group_hash(messages(one))) == "train") == side]
    return found[:count]


def written(folder, texts, answers):
    folder.mkdir(parents=True)
    ids = [f"q{number:02}" for number in range(len(texts))]
    records_write(
        folder / "prompts.jsonl",
        # Not in the order of their ids.
        [
            PromptRecord(prompt_id=one, messages=messages(text))
            for one, text in reversed(list(zip(ids, texts, strict=True)))
        ],
    )
    records_write(
        folder / "references.jsonl",
        [
            ReferenceRecord(prompt_id=one, answer=answer)
            for one, answer in zip(ids, answers, strict=True)
        ],
    )
    return folder


def laid(folder, base, **more):
    asked = {"options": 3, "max_tokens": 200, "at_most": 100, "shares": SHARES, **more}
    return questions_lay(folder, folder, tokenizer_load(base), **asked)


def test_the_wrong_answers_are_the_next_questions_right_ones(tmp_path, base):
    tokenizer = tokenizer_load(base)
    texts = texts_of(False, 4)
    folder = written(tmp_path / "rows", texts, ["He has 3.\n#### 3", "#### 5", "#### 3", "#### 8"])
    found = laid(folder, base)
    # The first question's 3 is also the third's: no wrong answer to either.
    offered = [
        ["#### 3", "#### 5", "#### 8"],
        ["#### 5", "#### 3", "#### 8"],
        ["#### 3", "#### 8", "#### 5"],
        ["#### 8", "#### 3", "#### 5"],
    ]
    for text, own, group in zip(texts, offered, found.groups, strict=True):
        assert group.prompt_T == prompt_render(tokenizer, messages(text))
        assert group.answers == [answer_encode(tokenizer, one, "stop") for one in own]
    assert (found.learnt_from, found.too_long) == (0, 0)
    assert laid(folder, base, at_most=2).groups == found.groups[:2]


def test_questions_that_training_may_have_seen_are_left_out(tmp_path, base):
    texts = [*texts_of(True, 2), *texts_of(False, 3)]
    found = laid(written(tmp_path / "rows", texts, ["1", "2", "3", "4", "5"]), base)
    assert len(found.groups) == 3 and found.learnt_from == 2
    learnt = [answer_encode(tokenizer_load(base), one, "stop") for one in ("1", "2")]
    assert not any(answer in learnt for group in found.groups for answer in group.answers)


def test_what_gives_no_choice_is_refused(tmp_path, base):
    folder = written(tmp_path / "few", texts_of(False, 3), ["7", "7", "9"])
    with pytest.raises(RefusedError, match=r"3 of 3 questions .* with 2 different answers: .* 3"):
        laid(folder, base)
    folder = written(tmp_path / "learnt", texts_of(True, 3), ["7", "8", "9"])
    with pytest.raises(RefusedError, match="0 of 3 questions are of an unseen split"):
        laid(folder, base)
    folder = written(tmp_path / "long", texts_of(False, 3), ["7", "8", "9"])
    with pytest.raises(RefusedError, match="0 of 3 unseen questions fit into 4 tokens"):
        laid(folder, base, max_tokens=4)


def test_the_likeliest_answer_a_token_is_chosen_as_alone(base):
    """Each answer by transformers' own logits, one at a time, in a batch of none but itself."""
    model, alone = (model_load(base, dtype="float32") for _ in range(2))
    attach(model)
    draw = torch.Generator().manual_seed(3)

    def tokens(count):
        return torch.randint(5, 90, (count,), generator=draw).tolist()

    questions = [
        Group(tokens(4 + n), [tokens(1 + (n + k) % 3) for k in range(3)]) for n in range(9)
    ]
    expected = []
    for group in questions:
        means = []
        for answer in group.answers:
            with torch.no_grad():
                logits_TV = alone(torch.tensor([group.prompt_T + answer])).logits[0]
            logs_TV = logits_TV[len(group.prompt_T) - 1 : -1].log_softmax(-1)
            means.append(float(logs_TV.gather(-1, torch.tensor(answer)[:, None]).mean()))
        expected.append(means)
    found = means_of(model, questions, 64)
    for own, means in zip(found, expected, strict=True):
        assert own == pytest.approx(means, abs=1e-5)
    right = questions_right(model, questions, 64)
    assert right == [float(means[0] == max(means)) for means in expected]
    assert 0 < sum(right) < 9


def test_answers_that_are_equally_likely_share_a_choice(base):
    model = model_load(base, dtype="float32")
    attach(model)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()  # every token is as likely as any other
    questions = [Group([5, 6], [[7], [8], [9, 10], [11]])]
    assert questions_right(model, questions, 64) == [pytest.approx(1 / 4)]
