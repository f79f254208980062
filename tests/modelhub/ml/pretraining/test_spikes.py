"""When the latest losses are a spike."""

import math

from modelhub.ml.pretraining.spikes import (
    Seen,
    seen_once,
    spike_may_begin,
    spike_reason,
    suspects,
)

LEVEL = [2.0, 2.1] * 20  # median 2.05, median absolute deviation 0.05: a deviation of 0.0741
LIMIT = 2.05 + 8 * 1.4826 * 0.05


def test_two_steps_above_the_limit_are_a_spike_and_one_is_none():
    above = LIMIT + 0.001
    assert spike_reason([*LEVEL, above], deviations=8) is None
    assert "8 deviations over its level of 2.050" in spike_reason(
        [*LEVEL, above, above], deviations=8
    )
    assert spike_reason([*LEVEL, LIMIT - 0.001, above], deviations=8) is None
    assert spike_reason([*LEVEL, above, above], deviations=0) is None


def test_the_first_step_above_the_limit_may_begin_a_spike():
    assert spike_may_begin([*LEVEL, LIMIT + 0.001], deviations=8)
    assert not spike_may_begin([*LEVEL, LIMIT - 0.001], deviations=8)
    assert not spike_may_begin([*LEVEL, LIMIT + 0.001], deviations=0)
    assert not spike_may_begin([1.0] * 15 + [9.0], deviations=8)


def test_a_level_loss_makes_no_spike_of_nothing():
    assert spike_reason([2.0] * 40 + [2.15, 2.15], deviations=8) is None
    assert spike_reason([2.0] * 40 + [2.17, 2.17], deviations=8) is not None


def test_a_falling_loss_and_the_first_steps_are_no_spike():
    falling = [8 * 0.97**step for step in range(200)]
    assert not any(spike_reason(falling[:n], deviations=8) for n in range(200))
    assert spike_reason([1.0] * 15 + [9.0, 9.0], deviations=8) is None


def test_a_loss_that_is_no_number_is_a_spike_at_once():
    assert spike_reason([math.nan], deviations=8) == "the loss is nan"
    assert spike_reason([math.inf], deviations=0) == "the loss is inf"


def test_suspects_are_the_blocks_of_the_spike_the_worst_first():
    seen = [
        Seen(7, 0, "a", 0, 99.0),
        Seen(8, 1, "a", 1, 2.0),
        Seen(9, 2, "b", 5, 7.0),
        Seen(9, 3, "b", 6, math.nan),
    ]
    assert [one.block for one in suspects(seen, step=9)] == [6, 5, 1]


def test_a_block_that_two_ranks_read_together_is_listed_once():
    first = [Seen(4, 10, "a", 3, 2.0), Seen(4, 12, "b", 0, math.nan)]
    # Tensor parallel: the same blocks, their losses rounded otherwise; a third rank has others.
    second = [Seen(4, 10, "a", 3, 2.0000002), Seen(4, 12, "b", 0, math.nan)]
    third = [Seen(4, 11, "a", 9, 3.0)]
    assert seen_once([first, second, third]) == [first[0], third[0], first[1]]
