"""A threshold held against judged documents, by hand."""

import random

import pytest

from modelhub.ml.corpora.calibration import (
    Calibration,
    calibrate,
    threshold_best,
    thresholds_between,
)
from modelhub.ml.corpora.rules import RULES, Rule

WORDS = RULES["gopher.words_min"]  # at least so many
HASHES = RULES["gopher.hashes"]  # at most so many
# Good from 60 words on, but for one of 40; bad below 50, but for one of 90.
JUDGED = [(40, True), (60, True), (70, True), (80, True), (10, False), (20, False), (90, False)]


def test_what_a_threshold_drops_of_either_kind() -> None:
    found = calibrate(JUDGED, rule=WORDS, threshold=50)
    assert (found.good, found.bad, found.good_dropped, found.bad_dropped) == (4, 3, 1, 2)


def test_a_rule_that_is_off_drops_nothing() -> None:
    found = calibrate(JUDGED, rule=WORDS, threshold=None)
    assert found == Calibration(good=4, bad=3, good_dropped=0, bad_dropped=0)


def test_the_best_threshold_has_the_largest_difference_of_shares() -> None:
    # At 30: 2/3 of the bad less none of the good. At 50: 2/3 less 1/4.
    assert threshold_best(JUDGED, rule=WORDS) == 30


def test_of_thresholds_as_good_the_one_that_drops_least() -> None:
    judged = [(0.05, True), (0.2, False), (0.3, True), (0.4, False)]
    # Above 0.35: 1/2 less 0. Above 0.125: 2/2 less 1/2.
    assert threshold_best(judged, rule=HASHES) == pytest.approx(0.35)
    found = calibrate(judged, rule=HASHES, threshold=0.1)
    assert (found.good_dropped, found.bad_dropped) == (1, 2)


@pytest.mark.parametrize("rule", [WORDS, HASHES])
def test_no_other_threshold_does_better(rule: Rule) -> None:
    draw = random.Random(5)
    judged = [(draw.randint(0, 30) / 2, draw.random() < 0.5) for _ in range(60)]

    def gain(threshold: float | None) -> float:
        found = calibrate(judged, rule=rule, threshold=threshold)
        return found.bad_dropped / found.bad - found.good_dropped / found.good

    assert gain(threshold_best(judged, rule=rule)) == pytest.approx(
        max(gain(quarter / 4) for quarter in range(-4, 70))
    )


@pytest.mark.parametrize(
    "judged",
    [
        [],
        [(10, True), (20, True)],
        [(10, False), (20, False)],
        [(10, True), (20, False)],  # the wrong way round
        [(10, True), (10, False)],
    ],
)
def test_where_no_threshold_tells_them_apart_there_is_none(
    judged: list[tuple[float, bool]],
) -> None:
    assert threshold_best(judged, rule=WORDS) is None


def test_precision_and_recall_are_shares_of_what_is_dropped_and_of_what_is_bad() -> None:
    found = calibrate(JUDGED, rule=WORDS, threshold=50)
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    nothing = calibrate([(10, True)], rule=WORDS, threshold=5)
    assert (nothing.precision, nothing.recall) == (None, None)


def test_thresholds_lie_between_seen_values_from_the_one_that_drops_least() -> None:
    assert thresholds_between(JUDGED, rule=WORDS, limit=9) == [15, 30, 50, 65, 75, 85]
    assert thresholds_between(JUDGED, rule=HASHES, limit=9) == [85, 75, 65, 50, 30, 15]
    assert thresholds_between(JUDGED, rule=WORDS, limit=3) == [15, 50, 85]
    assert thresholds_between([(10, True), (10, False)], rule=WORDS, limit=3) == []
