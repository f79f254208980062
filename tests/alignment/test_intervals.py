"""Intervals against values worked by hand or known from the literature."""

import math
import random

import pytest

from alignment.intervals import (
    bootstrap_interval,
    bootstrap_mean,
    bootstrap_ratio,
    quantile,
    wilson_interval,
)


def test_wilson_interval_of_15_in_20_is_the_textbook_one() -> None:
    # p = 0.75, z = 1.96: (0.75 + 0.09604 ± 1.96·sqrt(0.009375 + 0.002401)) / 1.19208
    interval = wilson_interval(15, 20)
    assert interval.mean == 0.75
    assert interval.low == pytest.approx(0.5313, abs=1e-4)
    assert interval.high == pytest.approx(0.8881, abs=1e-4)


def test_wilson_interval_keeps_a_width_where_all_or_none_succeed() -> None:
    none, everyone = wilson_interval(0, 10), wilson_interval(10, 10)
    # z² / (n + z²) = 3.8415 / 13.8415
    assert none.low == 0 and none.high == pytest.approx(0.27753, abs=1e-5)
    assert everyone.high == 1 and everyone.low == pytest.approx(1 - 0.27753, abs=1e-5)


def test_wilson_interval_takes_ties_as_halves() -> None:
    interval = wilson_interval(2.5, 5)
    assert interval.mean == 0.5
    assert interval.low == pytest.approx(1 - interval.high)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_interval_refuses_what_is_no_share(successes: float, trials: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, trials)


def test_quantile_lies_between_its_neighbours() -> None:
    assert quantile([0.0, 10.0, 20.0], 0.5) == 10
    assert quantile([0.0, 10.0, 20.0], 0.25) == 5
    assert quantile([0.0, 10.0, 20.0], 1.0) == 20


def test_bootstrap_of_equal_values_has_no_width() -> None:
    interval = bootstrap_mean([3.0] * 8, samples=50)
    assert (interval.mean, interval.low, interval.high) == (3, 3, 3)


def test_bootstrap_of_two_values_spans_them() -> None:
    # A resample of {0, 1} is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4: both ends pass 2.5 %.
    interval = bootstrap_mean([0.0, 1.0], samples=500)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0, 1)


def test_bootstrap_agrees_with_the_normal_interval_on_many_values() -> None:
    draw = random.Random(1)
    values = [draw.gauss(5, 2) for _ in range(400)]
    interval = bootstrap_mean(values)
    assert interval.low == pytest.approx(interval.mean - 1.96 * 2 / math.sqrt(400), abs=0.04)
    assert interval.high == pytest.approx(interval.mean + 1.96 * 2 / math.sqrt(400), abs=0.04)


def test_bootstrap_is_the_same_for_the_same_seed() -> None:
    values = [math.sqrt(number) for number in range(40)]
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_ratio_weighs_items_by_their_denominator() -> None:
    # (1 + 9) / (1 + 3) = 2.5, where the mean of the two ratios would be 2.
    assert bootstrap_ratio([(1, 1), (9, 3)], samples=20).mean == 2.5


def test_items_are_resampled_whole() -> None:
    groups = [[1.0, 1.0, 1.0], [0.0]]
    seen: list[int] = []

    def count(drawn: object) -> float:
        sizes = [len(group) for group in drawn]  # type: ignore[attr-defined]
        assert len(sizes) == 2
        seen.extend(sizes)
        return float(sum(sizes))

    bootstrap_interval(groups, count, samples=20)
    assert set(seen) == {1, 3}


def test_one_item_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two independent items"):
        bootstrap_mean([1.0])
