"""The rate over a run, worked by hand."""

import pytest

from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.schedules import cosine_rate, learning_rate, wsd_rate


def test_cosine_rises_linearly_and_ends_at_its_final_share():
    rates = [cosine_rate(s, steps=9, warmup_steps=4, final_share=0.1) for s in range(9)]
    # Half a cosine over the five steps behind the warm-up: 1, (1 + √½)/2, ½, (1 − √½)/2, 0 of 0.9.
    wanted = [0.25, 0.5, 0.75, 1.0, 1.0, 0.868198, 0.55, 0.231802, 0.1]
    assert rates == pytest.approx(wanted, abs=1e-6)


def test_wsd_is_level_until_its_decay_and_then_falls_by_the_root():
    rates = [
        wsd_rate(s, steps=10, warmup_steps=2, final_share=0.0, decay_share=0.4) for s in range(10)
    ]
    wanted = [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0.0]
    assert rates == pytest.approx(wanted)


def test_a_level_run_that_is_lengthened_has_the_same_rates_so_far():
    short, long = (
        PretrainConfig(schedule="wsd", steps=steps, warmup_steps=5, decay_share=0.2)
        for steps in (100, 200)
    )
    assert [learning_rate(s, short) for s in range(80)] == [
        learning_rate(s, long) for s in range(80)
    ]
