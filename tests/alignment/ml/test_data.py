"""Reading rankings into groups: what is kept together, what is counted, what is refused."""

import dataclasses
import json

import pytest

pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.data import rankings_load
from annotation.pairs import ranking_pairs
from annotation.records import RankingRecord
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.records import RecordError, records_write
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tokenizer_load(tiny_model_write(tmp_path_factory.mktemp("tiny")))


def ranking(number=1, *, prompt="p1", split="train", texts=("yes", "no", "maybe"), tiers="a>b>c"):
    """A row whose candidates are a, b, c …; tiers as in "a>b=c"."""
    return RankingRecord(
        id=f"r{number}",
        prompt_id=prompt,
        messages=[{"role": "user", "content": f"question {prompt}"}],
        split=split,
        tags=[],
        batch=None,
        candidates=[
            {
                "id": "abcdefghi"[i],
                "text": text,
                "finish_reason": "stop",
                "token_count": None,
                "model_version": None,
            }
            for i, text in enumerate(texts)
        ],
        tiers=[tier.split("=") for tier in tiers.split(">")],
        unacceptable=[],
        annotator="one",
        is_simulated=True,
        shown_order=[],
        active_s=1.0,
        rationale="",
        guideline=None,
    )


def load(tmp_path, tokenizer, *rows, max_tokens=1024):
    path = tmp_path / "rankings.jsonl"
    records_write(path, rows)
    return rankings_load(path, tokenizer, max_tokens=max_tokens)


def test_training_learns_the_pairs_that_exports_write_whoever_is_unacceptable(tmp_path, tokenizer):
    row = dataclasses.replace(ranking(tiers="c>a>b"), unacceptable=["a", "b"])
    (found,) = load(tmp_path, tokenizer, row).groups
    names = [one["id"] for one in row.candidates]
    exported = ranking_pairs(row.tiers, unacceptable=row.unacceptable)
    assert [(names[high], names[low]) for high, low in found.pairs] == [
        (pair.better, pair.worse) for pair in exported
    ]
    assert len(found.pairs) == 3


def test_a_row_becomes_tokens_and_places(tmp_path, tokenizer):
    row = ranking(tiers="c>a=b")
    (found,) = load(tmp_path, tokenizer, row).groups
    assert found.group.prompt_T == prompt_render(tokenizer, row.messages)
    assert found.group.answers == [
        answer_encode(tokenizer, text, "stop") for text in ("yes", "no", "maybe")
    ]
    assert found.characters == (3, 2, 5)
    assert [one.tiers for one in found.rankings] == [((2,), (0, 1))]
    assert found.pairs == [(2, 0), (2, 1)]


def test_an_answer_cut_off_by_its_limit_gets_no_ending(tmp_path, tokenizer):
    row = ranking(texts=("yes", "no"), tiers="a>b")
    row.candidates[1]["finish_reason"] = "length"
    (found,) = load(tmp_path, tokenizer, row).groups
    finished, unfinished = found.group.answers
    assert finished[:-1] == answer_encode(tokenizer, "yes", "length")
    assert unfinished == answer_encode(tokenizer, "no", "length")


def test_two_annotators_of_the_same_answers_share_one_group(tmp_path, tokenizer):
    data = load(
        tmp_path,
        tokenizer,
        ranking(1, tiers="a>b>c"),
        ranking(2, prompt="p2"),
        ranking(3, tiers="c>b=a"),
    )
    first, second = data.groups
    assert (first.prompt_id, second.prompt_id) == ("p1", "p2")
    assert [one.tiers for one in first.rankings] == [((0,), (1,), (2,)), ((2,), (1, 0))]
    assert len(second.rankings) == 1
    assert data.rankings == 3


def test_other_answers_to_the_same_prompt_are_another_group(tmp_path, tokenizer):
    other = ranking(2, texts=("yes", "no"), tiers="a>b")
    assert len(load(tmp_path, tokenizer, ranking(1), other).groups) == 2


def test_long_and_tied_rankings_are_counted_not_cut(tmp_path, tokenizer):
    long = ranking(2, prompt="p2", texts=("yes", "no " * 200), tiers="a>b")
    data = load(
        tmp_path,
        tokenizer,
        ranking(1),
        long,
        ranking(3, prompt="p3", tiers="a=b=c"),
        max_tokens=60,
    )
    assert [one.prompt_id for one in data.groups] == ["p1"]
    assert (data.rankings, data.too_long, data.without_pairs) == (3, 1, 1)
    assert data.longest_tokens > 200


def test_groups_are_told_apart_by_split(tmp_path, tokenizer):
    data = load(tmp_path, tokenizer, ranking(1), ranking(2, prompt="p2", split="held_out"))
    assert [one.prompt_id for one in data.of_split("held_out")] == ["p2"]


@pytest.mark.parametrize(
    "change, field",
    [
        ({"tiers": [["a"], ["z"]]}, "tiers"),
        ({"tiers": [["a"], ["a"]]}, "tiers"),
        ({"candidates": [{"id": "a"}]}, "text"),
        ({"messages": "hello"}, "messages"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, tokenizer, change, field):
    path = tmp_path / "rankings.jsonl"
    rows = [dataclasses.asdict(ranking(1)), {**dataclasses.asdict(ranking(2)), **change}]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(RecordError, match=f"rankings.jsonl, line 2, field {field}:"):
        rankings_load(path, tokenizer, max_tokens=100)


def test_one_prompt_on_both_sides_is_refused(tmp_path, tokenizer):
    with pytest.raises(RecordError, match="both sides"):
        load(
            tmp_path,
            tokenizer,
            ranking(1),
            ranking(2, split="held_out", texts=("other", "answers"), tiers="a>b"),
        )
