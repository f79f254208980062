"""Answers that are good or bad by themselves: how they are placed, and laid out in steps."""

import dataclasses

import pytest

pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.configs import KtoConfig
from alignment.ml.data import RatedAnswer, RatedData, rankings_load, ratings_load
from alignment.ml.shared_prefix import Group
from alignment.ml.unpaired import (
    UnpairedGroup,
    classes_of,
    mismatched,
    unpaired_make,
    unpaired_steps,
    weights_balance,
)
from annotation.records import RatingRecord
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import RecordError, records_write
from tests.alignment.ml.test_data import ranking
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml

THRESHOLDS = {"desirable_from": 5.0, "undesirable_to": 3.0}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tokenizer_load(tiny_model_write(tmp_path_factory.mktemp("tiny")))


def rating(number=1, *, prompt="p1", split="train", text="yes", overall=6, weight=1.0):
    return RatingRecord(
        id=f"s{number}:a",
        rating_id=f"s{number}",
        prompt_id=prompt,
        messages=[{"role": "user", "content": f"question {prompt}"}],
        split=split,
        tags=[],
        batch=None,
        candidate={
            "id": "a",
            "text": text,
            "finish_reason": "stop",
            "token_count": None,
            "model_version": None,
        },
        overall=overall,
        flags=[],
        annotator="one",
        is_simulated=True,
        source="simulated",
        weight=weight,
        shown_order=[],
        active_s=1.0,
        rationale="",
        guideline=None,
    )


def rated(*answers):
    """(prompt, token that is the answer, overall, weight)."""
    return RatedData(
        answers=[
            RatedAnswer(
                prompt_id=prompt,
                split="train",
                prompt_T=[1],
                answer_T=[token],
                overall=overall,
                weight=weight,
            )
            for prompt, token, overall, weight in answers
        ],
        ratings=len(answers),
        too_long=0,
        longest_tokens=2,
    )


def placed(data):
    return {
        (group.prompt_id, answer_T[0]): is_desirable
        for group in data.groups
        for answer_T, is_desirable in zip(group.group.answers, group.desirable_K, strict=True)
    }


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def test_a_rating_is_read_with_its_prompt_and_what_is_too_long_is_counted(tmp_path, tokenizer):
    path = tmp_path / "ratings.jsonl"
    records_write(path, [rating(1), rating(2, text="y" * 200), rating(3, overall=2)])
    data = ratings_load(path, tokenizer, max_tokens=100)
    assert (data.ratings, data.too_long, len(data.answers)) == (3, 1, 2)
    assert [one.overall for one in data.answers] == [6, 2]
    assert data.longest_tokens > 200


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"overall": 8}, "overall"),
        ({"weight": -1.0}, "weight"),
        ({"split": "held_out"}, "both sides"),
    ],
)
def test_a_rating_that_does_not_fit_is_named_by_line_and_field(
    tmp_path, tokenizer, changed, reason
):
    path = tmp_path / "ratings.jsonl"
    records_write(path, [rating(1), dataclasses.replace(rating(2), **changed)])
    with pytest.raises(RecordError, match=reason) as failed:
        ratings_load(path, tokenizer, max_tokens=100)
    assert "2" in str(failed.value)


# ── placing ──────────────────────────────────────────────────────────────────────────────────────


def test_ratings_are_placed_by_their_mean_and_the_thresholds():
    data = unpaired_make(
        rated(("p", 1, 7, 1.0), ("p", 1, 3, 1.0), ("p", 2, 3, 1.0), ("q", 3, 4, 1.0)),
        None,
        weighted=False,
        **THRESHOLDS,
    )
    assert placed(data) == {("p", 1): True, ("p", 2): False}  # means 5, 3 and 4
    assert (data.answers, data.undecided) == (3, 1)


def test_a_rating_counts_by_its_weight_where_that_is_asked_for():
    answers = rated(("p", 1, 7, 0.2), ("p", 1, 1, 1.0), ("p", 2, 6, 0.0))  # mean 2
    data = unpaired_make(answers, None, weighted=True, **THRESHOLDS)
    assert placed(data) == {("p", 1): False}
    assert unpaired_make(answers, None, weighted=False, **THRESHOLDS).notes
    with pytest.raises(RefusedError, match="no row carries a weight"):
        unpaired_make(rated(("p", 1, 7, 1.0)), None, weighted=True, **THRESHOLDS)


def test_of_a_pair_the_chosen_is_desirable_and_a_middle_answer_goes_by_its_comparisons(
    tmp_path, tokenizer
):
    path = tmp_path / "rankings.jsonl"
    records_write(
        path,
        [
            ranking(1, prompt="pair", texts=("yes", "no"), tiers="b>a"),
            ranking(2, prompt="many", texts=("1", "2", "3", "4"), tiers="c>a=d>b"),
        ],
    )
    ranked = rankings_load(path, tokenizer, max_tokens=200)
    data = unpaired_make(None, ranked, weighted=False, **THRESHOLDS)
    assert [one.desirable_K for one in data.groups] == [(False, True), (False, True)]
    assert data.undecided == 2  # a and d: below c, above b


def test_what_ratings_and_rankings_say_of_one_answer_must_agree(tmp_path, tokenizer):
    path = tmp_path / "rankings.jsonl"
    records_write(path, [ranking(1, texts=("yes", "no"), tiers="a>b")])
    ranked = rankings_load(path, tokenizer, max_tokens=200)
    ratings = tmp_path / "ratings.jsonl"
    records_write(ratings, [rating(1, text="yes", overall=1), rating(2, text="no", overall=2)])
    of_ratings = ratings_load(ratings, tokenizer, max_tokens=200)
    data = unpaired_make(of_ratings, ranked, weighted=False, **THRESHOLDS)
    assert [one.desirable_K for one in data.groups] == [(False,)]
    assert data.undecided == 1
    records_write(ratings, [rating(1, split="held_out")])
    of_ratings = ratings_load(ratings, tokenizer, max_tokens=200)
    with pytest.raises(RefusedError, match="held_out by its ratings, in train by its rankings"):
        unpaired_make(of_ratings, ranked, weighted=False, **THRESHOLDS)


# ── weights ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("desirable", "undesirable", "config", "name"),
    [
        (10, 100, {}, "desirable_weight from 10 to 15"),
        (100, 10, {}, "undesirable_weight from 6.667 to 10"),
        (100, 10, {"undesirable_weight": 2.0}, "undesirable_weight from 6.667 to 10"),
    ],
)
def test_weights_out_of_proportion_are_said_with_those_that_would_do(
    desirable, undesirable, config, name
):
    given = KtoConfig(**config)
    same, note = weights_balance(desirable, undesirable, given)
    assert name in note
    assert same == given
    taken, note = weights_balance(desirable, undesirable, dataclasses.replace(given, balance=True))
    assert "is taken as" in note
    ratio = taken.desirable_weight * desirable / (taken.undesirable_weight * undesirable)
    assert 1 - 1e-9 <= ratio <= 1.5 + 1e-9


@pytest.mark.parametrize(("desirable", "undesirable"), [(10, 10), (15, 10)])
def test_weights_in_proportion_are_left_alone(desirable, undesirable):
    config = KtoConfig(balance=True)
    assert weights_balance(desirable, undesirable, config) == (config, None)


# ── steps ────────────────────────────────────────────────────────────────────────────────────────


def groups_of(*labels):
    """Groups from words such as "ddu": two desirable answers and an undesirable one."""
    return [
        UnpairedGroup(
            prompt_id=str(number),
            split="train",
            group=Group([number], [[one] for one in range(len(word))]),
            desirable_K=tuple(letter == "d" for letter in word),
        )
        for number, word in enumerate(labels)
    ]


@pytest.mark.parametrize(
    "labels",
    [
        ["d"] * 30 + ["u"] * 30,
        ["d"] * 50 + ["u"] * 3,
        ["du"] * 20,
        ["dduu"] * 3 + ["d"] * 40,
        ["du", "u"],
        ["d", "u", "du"],
        ["du"] * 7 + ["u"] * 2 + ["ddd"] * 5,
    ],
    ids=lambda labels: "+".join(sorted({f"{labels.count(one)}{one}" for one in labels})),
)
def test_every_step_has_both_classes_and_two_prompts_and_every_epoch_every_group(labels):
    groups = groups_of(*labels)
    plan = unpaired_steps(groups, epochs=3, per_step=4, seed=1)
    for step in plan:
        assert min(classes_of([groups[place] for place in step])) > 0
        assert len(step) > 1
    per_epoch = len(plan) // 3
    epochs = [plan[first : first + per_epoch] for first in range(0, len(plan), per_epoch)]
    for steps in epochs:
        assert sorted(place for step in steps for place in step) == list(range(len(groups)))
    if len(groups) > 3:
        assert epochs[0] != epochs[1]
    assert plan == unpaired_steps(groups, epochs=3, per_step=4, seed=1)


def test_steps_have_the_same_share_of_either_class():
    groups = groups_of(*["d"] * 60, *["u"] * 20)
    plan = unpaired_steps(groups, epochs=1, per_step=16, seed=0)
    assert [classes_of([groups[place] for place in step]) for step in plan] == [(12, 4)] * 5


@pytest.mark.parametrize("labels", [["d", "d"], ["du"], []])
def test_groups_that_cannot_fill_a_step_are_refused(labels):
    with pytest.raises(ValueError, match="two prompts"):
        unpaired_steps(groups_of(*labels), epochs=1, per_step=4, seed=0)


def test_mismatched_answers_are_all_of_the_step_behind_another_prompt():
    first, second = Group([1], [[5], [6]]), Group([2], [[7]])
    assert mismatched([first, second], context_tokens=9) == [
        Group([2], [[5], [6]]),
        Group([1], [[7]]),
    ]
    assert mismatched([first], context_tokens=9) == []


def test_a_mismatched_answer_that_does_not_fit_behind_the_other_prompt_is_left_out():
    long, short = Group([1] * 6, [[5], [6, 7]]), Group([2], [[8] * 5, [9]])
    found = mismatched([long, short], context_tokens=7)
    assert found == [Group([2], [[5], [6, 7]]), Group([1] * 6, [[9]])]
    assert mismatched([long, Group([2], [[8] * 5])], context_tokens=7) == found[:1]
