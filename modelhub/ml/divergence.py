"""Tripwires: has this training run gone wrong? Pure functions of the figures it wrote so far.

NaN and infinity end a run at the step they appear in (`RunDir.metric`). What diverges while it is
still finite is caught here: a loss that rose tenfold, a gradient that keeps spiking, a figure past
its limit. Each function returns the reason as a sentence, or None; `divergence_stop` ends the run
with the first reason there is. Call it before the optimizer's step, so that the last good
checkpoint is what is left:

    divergence_stop(step, rise_reason("loss", losses, factor=10, floor=0.7), …)

A reason depends on the figures alone: a run that was killed and goes on, its figures in its
checkpoint, stops where it would have.
"""

from collections.abc import Sequence

from modelhub.ml.configs import RefusedError

# Steps. A level is the lowest of a window, not its mean, which a run that goes wrong early would
# take up with it. A rise must last: one hard batch is no divergence, and gradients are clipped.
WINDOW_STEPS = 16
PATIENCE_STEPS = 3


class Diverged(RefusedError):  # noqa: N818 - as NotFinite: the state it is in, not an exception's
    """Training diverged: the run stops, nothing of it is published, another try ends the same."""


def rise_reason(
    name: str,
    values: Sequence[float],
    *,
    factor: float,
    floor: float,
    window: int = WINDOW_STEPS,
    patience: int = PATIENCE_STEPS,
) -> str | None:
    """Why `values` have run away upwards, or None.

    They have if each of the last `patience` is more than `factor` times their level, the lowest of
    the `window` values before those (of fewer, early on, but of one at least).

    values: a figure of every step so far, oldest first. floor: the least level that counts; without
    one a loss that has come down to nothing would "rise tenfold" by nothing. In the figure's unit.
    factor: 0 switches the wire off.
    """
    if not factor or len(values) <= patience:
        return None
    level = max(min(values[-window - patience : -patience]), floor)
    latest = values[-patience:]
    if min(latest) <= factor * level:
        return None
    return (
        f"{name} was {latest[-1]:.4g} and for {patience} steps more than {factor:g} times its "
        f"level of {level:.4g}"
    )


def above_reason(
    name: str, values: Sequence[float], *, limit: float, patience: int = 1
) -> str | None:
    """Why a figure is past its upper limit, or None: each of the last `patience` is above it.

    For a divergence from the reference (KL), say. limit: 0 switches the wire off.
    """
    latest = values[-patience:]
    if not limit or len(latest) < patience or min(latest) <= limit:
        return None
    return f"{name} was {latest[-1]:.4g}, above its limit of {limit:g}{_lasted(patience)}"


def below_reason(
    name: str, values: Sequence[float], *, limit: float, patience: int = PATIENCE_STEPS
) -> str | None:
    """Why a figure has collapsed, or None: each of the last `patience` is below `limit`.

    For a policy's entropy, say. limit: 0 switches the wire off.
    """
    latest = values[-patience:]
    if not limit or len(latest) < patience or max(latest) >= limit:
        return None
    return f"{name} was {latest[-1]:.4g}, below its limit of {limit:g}{_lasted(patience)}"


def divergence_stop(step: int, *reasons: str | None) -> None:
    """Raise Diverged with the first reason there is."""
    for reason in reasons:
        if reason is not None:
            raise Diverged(f"training diverged at step {step}: {reason}; nothing is published")


def _lasted(patience: int) -> str:
    return f" for {patience} steps" if patience > 1 else ""
