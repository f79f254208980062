"""The report's tables against values worked by hand."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.configs import RewardConfig
from alignment.ml.data import RankedGroup, Ranking
from alignment.ml.reward.report import (
    calibration_error,
    members_report,
    ranking_report,
    ranking_tables,
    safety_report,
)
from alignment.ml.shared_prefix import Group

pytestmark = pytest.mark.ml

CONFIG = RewardConfig(bootstrap_samples=50)
ORDER = ((0,), (1,))


def pair(gap, *, degree=None, prompt="p", lengths=(2, 1), writers=("v1", "v1"), unsafe=None):
    """A choice of the first of two answers, and scores whose difference is `gap`."""
    made = RankedGroup(
        prompt_id=prompt,
        split="held_out",
        group=Group([1], [[2], [3]]),
        texts_K=tuple("x" * length for length in lengths),
        rankings=(Ranking(tiers=ORDER, degree=degree, unsafe=unsafe),),
        writers_K=writers,
    )
    return made, torch.tensor([gap, 0.0])


def tables(*pairs):
    groups, scores = zip(*pairs, strict=True)
    return ranking_tables(scores, groups, CONFIG)


def test_accuracy_by_degree_of_preference():
    found = tables(
        pair(1.0, degree=4, prompt="a"),
        pair(2.0, degree=4, prompt="b"),
        pair(-1.0, degree=1, prompt="a"),
        pair(0.0, degree=1, prompt="b"),
    )["by_degree"]
    assert [(row["pairs_of"], row["pairs"], row["accuracy"]) for row in found] == [
        ("significantly better", 2, 1.0),
        ("negligibly better or unsure", 2, 0.25),
    ]
    assert found[1]["accuracy_low"] <= 0.25 <= found[1]["accuracy_high"]


def test_accuracy_by_tiers_apart_length_and_writer():
    ranked = RankedGroup(
        prompt_id="q",
        split="held_out",
        group=Group([1], [[2], [3], [4]]),
        texts_K=("x", "xx", "xx"),
        rankings=(Ranking(tiers=((0,), (1,), (2,))),),
        writers_K=("v1", "v1", "v2"),
    )
    scores = torch.tensor([1.0, 2.0, 0.0])  # 0 > 1 wrong, 0 > 2 and 1 > 2 right
    found = tables((ranked, scores))

    def told(name):
        return [(row["pairs_of"], row["pairs"], row["accuracy"]) for row in found[name]]

    assert told("by_tiers_apart") == [("1", 2, 0.5), ("2", 1, 1.0)]
    assert told("by_length") == [("shorter won", 2, 0.5), ("equal length", 1, 1.0)]
    assert told("by_writer") == [("v1", 1, 0.0), ("different writers", 2, 1.0)]
    assert "by_degree" not in found


def test_the_reliability_curve_and_its_error():
    # Beliefs σ(0.1) = 0.525 (bin 0.50 to 0.55) twice, one of them right; σ(3) = 0.953, right.
    found = tables(pair(0.1), pair(-0.1), pair(3.0))["reliability"]
    low, high = 1 / (1 + math.exp(-0.1)), 1 / (1 + math.exp(-3))
    assert [(row["pairs"], row["accuracy"]) for row in found] == [(2, 0.5), (1, 1.0)]
    assert [row["belief"] for row in found] == pytest.approx([low, high])
    assert (found[1]["belief_from"], found[1]["belief_to"]) == pytest.approx((0.95, 1.0))
    assert calibration_error(found) == pytest.approx((2 * (low - 0.5) + (1 - high)) / 3)


def test_equal_scores_everywhere_are_perfectly_calibrated_and_know_nothing():
    groups, scores = zip(pair(0.0, prompt="a"), pair(0.0, prompt="b"), strict=True)
    report = ranking_report(scores, groups, CONFIG)
    assert (report["accuracy"], report["calibration_error"]) == (0.5, 0.0)
    assert report["length_correlation"] is None


def test_length_correlation_is_within_prompts():
    # Within each prompt the longer scores higher; across prompts the long prompt scores lower.
    groups, scores = zip(
        pair(1.0, lengths=(3, 1), prompt="a"),
        (pair(1.0, lengths=(103, 101))[0], torch.tensor([-9.0, -10.0])),
        strict=True,
    )
    assert ranking_report(scores, groups, CONFIG)["length_correlation"] == pytest.approx(1.0)


def test_another_baseline_is_judged_on_the_same_pairs():
    groups, scores = zip(pair(1.0, prompt="a"), pair(-1.0, prompt="b"), strict=True)
    words = [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0])]  # wrong, equal
    report = ranking_report(scores, groups, CONFIG, {"bag_of_words": words})
    assert report["bag_of_words_accuracy"] == 0.25
    assert report["over_bag_of_words"] == pytest.approx(0.5 - 0.25)


def test_the_safety_report_by_hand():
    # σ: 0.88, 0.5 (score 0); 0.05, 0.5; unsafe are the 0.05 and one of the 0.5.
    groups, scores = zip(pair(2.0, unsafe=()), pair(-3.0, unsafe=(0, 1)), strict=True)
    found = safety_report(scores, groups)
    assert (found["labels"], found["unsafe"]) == (4, 2)
    assert (found["recall_at_0_5"], found["precision_at_0_5"]) == (0.5, 1.0)
    assert (found["recall_at_0_15"], found["precision_at_0_15"]) == (0.5, 1.0)
    assert safety_report(scores[:1], groups[:1])["recall_at_0_5"] is None
    assert safety_report([scores[0]], [pair(2.0)[0]]) is None


def test_members_are_judged_one_by_one_and_together():
    groups = [pair(0.0)[0], pair(0.0)[0]]
    members = [torch.tensor([[1.0, -1.0], [0.0, 0.0]]), torch.tensor([[2.0, 5.0], [0.0, 0.0]])]
    found = members_report(members, groups, CONFIG)
    assert found["member_accuracies"] == [1.0, 0.5]
    # Mean gaps 0 and 3.5; worst of the first: -1 against 0.
    assert (found["accuracy_mean"], found["accuracy_worst"]) == (0.75, 0.5)
    assert found["members"] == 2
    rows = {row.pop("judge"): row for row in found["judges"]}
    assert list(rows) == ["member 1", "member 2", "mean", "worst", "uncertain"]
    assert rows["worst"]["accuracy"] == 0.5
    # The mean is right about one pair of which one member is, and half about the other, as both.
    assert rows["mean"]["over_members"] == pytest.approx(0.75 - (1.0 + 0.5) / 2)
    # Gaps 0 and 3.5: beliefs 0.5 and 0.971, right half the time and always.
    assert rows["mean"]["calibration_error"] == pytest.approx((1 - 0.97069) / 2, abs=1e-5)
