"""What a recipe decides by itself, on figures written by hand."""

from typing import Any

import pytest

from alignment.gates import judgement_lost, snapshot_problem, verdict_of
from alignment.recipe import Recipe
from annotation.records import RankingRecord

GOOD = {"pairs": 40, "accuracy": 0.7, "accuracy_low": 0.55, "accuracy_high": 0.82}


def ranking(split: str, *tiers: list[str]) -> RankingRecord:
    return RankingRecord(
        id="1",
        prompt_id="p",
        messages=[],
        split=split,
        tags=[],
        batch=None,
        candidates=[],
        tiers=list(tiers),
        unacceptable=[],
        annotator="a",
        is_simulated=False,
        shown_order=[],
        active_s=0,
        rationale="",
        guideline=None,
    )


@pytest.mark.parametrize(
    ("held_out", "recipe", "lost"),
    [
        (GOOD, Recipe(), ""),
        (GOOD, Recipe(reward_accuracy_floor=0.7), ""),
        (GOOD, Recipe(reward_accuracy_floor=0.71), "70.0% of 40 held-out pairs"),
        (GOOD, Recipe(reward_above_chance=True), ""),
        ({**GOOD, "accuracy_low": 0.5}, Recipe(reward_above_chance=True), "reaches chance"),
        ({**GOOD, "accuracy_low": None}, Recipe(reward_above_chance=True), "reaches chance"),
        ({**GOOD, "accuracy": 0.4}, Recipe(), "the floor is 50.0%"),
        ({**GOOD, "accuracy": 0.4}, Recipe(reward_accuracy_floor=0), ""),
        ({}, Recipe(), "no held-out pair"),
        ({"pairs": 0, "accuracy": None}, Recipe(), "no held-out pair"),
        ({}, Recipe(reward_accuracy_floor=0), ""),
    ],
)
def test_when_a_reward_model_has_lost_its_judgement(
    held_out: dict[str, Any], recipe: Recipe, lost: str
) -> None:
    said = judgement_lost(held_out, recipe)
    assert bool(said) == bool(lost) and lost in said


@pytest.mark.parametrize(
    ("low", "kl", "limit", "promote"),
    [
        (0.01, 5.0, 30.0, True),
        (0.0, 5.0, 30.0, False),
        (-0.2, 5.0, 30.0, False),
        (0.3, 30.0, 30.0, True),
        (0.3, 30.1, 30.0, False),
        (0.3, 300.0, 0.0, True),
        (float("nan"), 5.0, 30.0, False),
        (0.3, float("nan"), 30.0, False),
    ],
)
def test_when_a_new_policy_is_promoted(low: float, kl: float, limit: float, promote: bool) -> None:
    metrics = {"reward_difference": {"low": low}, "kl_per_answer_nats": kl}
    verdict = verdict_of(metrics, Recipe(kl_limit=limit))
    assert verdict.promote is promote and verdict.reason


def test_when_a_snapshot_can_train_a_reward_model() -> None:
    told, tied = ranking("train", ["a"], ["b"]), ranking("train", ["a", "b"])
    held = ranking("held_out", ["a"], ["b"])
    assert snapshot_problem([told, held], Recipe()) == ""
    assert "of a train prompt" in snapshot_problem([tied, held], Recipe())
    assert "of a train prompt" in snapshot_problem([], Recipe())
    assert "of a held-out prompt" in snapshot_problem([told], Recipe())
    assert snapshot_problem([told], Recipe(reward_accuracy_floor=0)) == ""
