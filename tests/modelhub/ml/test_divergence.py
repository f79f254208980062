"""The tripwires: what stops a run, how soon, and what does not."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from modelhub.ml.configs import RefusedError
from modelhub.ml.divergence import (
    Diverged,
    above_reason,
    below_reason,
    divergence_stop,
    rise_reason,
)

pytestmark = pytest.mark.ml


def first_stop(values, **wire):
    """The number of values after which the wire is pulled, or None."""
    for count in range(1, len(values) + 1):
        if rise_reason("loss", values[:count], **wire):
            return count
    return None


def test_a_loss_that_rises_tenfold_stops_within_three_steps():
    good, bad = [0.7] * 30, [8.0] * 10
    assert first_stop(good + bad, factor=10, floor=0.5) == 33


@pytest.mark.parametrize("growth", [1.3, 2, 100])
def test_a_loss_that_explodes_from_the_start_stops_within_twenty_steps(growth):
    assert first_stop([0.7 * growth**step for step in range(40)], factor=10, floor=0.5) <= 20


@pytest.mark.parametrize(
    "values",
    [
        [0.7] * 30 + [8.0] * 2 + [0.7] * 5,  # a hard batch or two
        [0.7] * 20 + [0.01] * 20 + [0.3] * 20,  # tenfold of nearly nothing
        [8.0] * 10 + [0.5] * 40,  # falling
        [5.0, 51.0, 52.0],  # too few to tell
    ],
)
def test_what_only_looks_like_it_does_not_stop(values):
    assert first_stop(values, factor=10, floor=0.5) is None


def test_the_reason_names_figure_level_and_factor():
    reason = rise_reason("grad_norm", [2.0] * 20 + [90.0, 95.0, 99.0], factor=20, floor=1)
    assert reason == "grad_norm was 99 and for 3 steps more than 20 times its level of 2"


def test_limits_above_and_below():
    assert above_reason("kl", [1.0, 31.0], limit=30) == "kl was 31, above its limit of 30"
    assert above_reason("kl", [31.0, 29.0], limit=30) is None
    assert above_reason("kl", [], limit=30) is None
    reason = below_reason("entropy", [1.0, 0.1, 0.05, 0.04], limit=0.2)
    assert reason == "entropy was 0.04, below its limit of 0.2 for 3 steps"
    assert below_reason("entropy", [1.0, 1.0, 0.05, 0.04], limit=0.2) is None
    assert below_reason("entropy", [0.1], limit=0.2) is None


def test_nought_switches_a_wire_off():
    assert rise_reason("loss", [0.7] * 20 + [1e9] * 9, factor=0, floor=1) is None
    assert above_reason("kl", [1e9], limit=0) is None
    assert below_reason("entropy", [-1e9] * 9, limit=0) is None


def test_the_run_stops_with_the_first_reason_and_is_not_tried_again():
    divergence_stop(4, None, None)
    with pytest.raises(Diverged, match="training diverged at step 5: second; nothing"):
        divergence_stop(5, None, "second", "third")
    assert issubclass(Diverged, RefusedError)
