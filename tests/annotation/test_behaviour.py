"""Position bias and reading speed; T20: who works so is told from honest people."""

import random

import pytest

from annotation.behaviour import position_bias, speed
from tests.annotation.test_annotator_models import area_under_curve


def test_whoever_always_takes_the_first_is_biased() -> None:
    bias = position_bias([(0, 4)] * 20)
    assert bias.share == 1
    assert bias.expected == 0.25
    assert bias.is_biased


def test_whoever_chooses_evenly_is_not() -> None:
    assert not position_bias([(place, 4) for place in range(4)] * 10).is_biased


def test_expectation_is_the_mean_over_how_many_were_shown() -> None:
    assert position_bias([(0, 2), (1, 4)]).expected == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_few_choices_say_nothing() -> None:
    assert not position_bias([(0, 9)] * 3).is_biased
    assert position_bias([]) is None


def test_ten_words_a_second_is_reading_and_a_hundred_is_not() -> None:
    slow, fast = speed([(300, 60)] * 10), speed([(300, 3)] * 10)
    assert (slow.words_per_s, slow.too_fast, slow.is_outlier) == (5, 0, False)
    assert (fast.words_per_s, fast.too_fast, fast.is_outlier) == (100, 10, True)


def test_a_page_that_counted_no_seconds_is_left_out() -> None:
    assert speed([(300, 0.0)]) is None
    assert speed([(300, 0.0), (300, 60)]).submissions == 1


def test_now_and_then_fast_is_nobody_to_look_at() -> None:
    assert not speed([(300, 3)] * 2 + [(300, 60)] * 10).is_outlier


def test_poisoned_annotators_are_told_by_place_and_by_pace() -> None:
    """T20: 20 honest people, 4 who always take the first, 4 who copy one order, 4 who hurry.

    An honest person's best answer stands anywhere; each reads 300 words at 3 to 6 words a second,
    and is interrupted or skims now and then.
    """
    draw = random.Random(7)
    tasks = 60
    honest = [[(draw.randrange(4), 4) for _ in range(tasks)] for _ in range(20)]
    first = [
        [(0 if draw.random() < 0.9 else draw.randrange(4), 4) for _ in range(tasks)]
        for _ in range(4)
    ]
    # The same order of places again and again: its best is always third.
    copied = [[(2, 4)] * tasks for _ in range(4)]
    off = [[abs(_share(one) - 0.25) for one in group] for group in (honest, first, copied)]
    assert area_under_curve(_negated(off[1]), _negated(off[0])) >= 0.95
    assert area_under_curve(_negated(off[2]), _negated(off[0])) >= 0.95
    for group, flagged in ((honest, 0), (first, 4), (copied, 4)):
        found = sum(position_bias(one).is_biased for one in group)
        assert abs(found - flagged) <= (1 if group is honest else 0)  # at most 5 % of 20 honest
    reading = [
        [(300.0, 300 / draw.uniform(3, 6) * draw.choice([0.3, 1, 1, 1, 1, 5])) for _ in range(40)]
        for _ in range(20)
    ]
    hurried = [
        [(300.0, 300 / draw.uniform(20, 60) if draw.random() < 0.5 else 60.0) for _ in range(40)]
        for _ in range(4)
    ]
    shares = [[one.too_fast / one.submissions for one in map(speed, g)] for g in (reading, hurried)]
    assert area_under_curve(_negated(shares[1]), _negated(shares[0])) >= 0.95
    assert sum(speed(one).is_outlier for one in reading) <= 1
    assert all(speed(one).is_outlier for one in hurried)


def _share(choices: list[tuple[int, int]]) -> float:
    return position_bias(choices).share


def _negated(values: list[float]) -> list[float]:
    """`area_under_curve` takes those who weigh less for the bad ones."""
    return [-value for value in values]
