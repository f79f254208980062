"""Position bias and reading speed."""

import pytest

from annotation.behaviour import position_bias, speed


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
