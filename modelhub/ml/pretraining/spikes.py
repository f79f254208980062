"""Loss spikes: found by the losses so far, answered by going back and leaving the blocks out.

PaLM went back about 100 steps and skipped 200 to 500 batches, and the spike did not come again: it
is a meeting of these weights with this data (Chowdhery et al. 2022, arXiv:2204.02311, section 5.1).
Here the run goes back to its newest checkpoint, passes over the samples that were read since, and
tells which documents stood in the blocks of the spike. Pure functions of figures in the checkpoint:
a run that was killed and goes on finds the same spikes.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WINDOW_STEPS = 64  # before the spike, that tell what is usual
LEAST_STEPS = 16  # before which nothing is unusual
PATIENCE_STEPS = 2  # one hard batch is no spike
FLOOR_NATS = 0.02  # least deviation that counts: a level loss would make a spike of nothing
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
NAMED_BLOCKS = 8  # of a spike, those with the highest loss


def spike_reason(losses: Sequence[float], *, deviations: float) -> str | None:
    """Why the latest losses are a spike, or None. losses: of every step so far, nats a token.

    Each of the last two must be more than `deviations` robust standard deviations (1.4826 · the
    median absolute deviation, 0.02 nats at least) above the median of up to 64 steps before them.
    A loss that is no number is a spike at once.
    """
    if losses and not math.isfinite(losses[-1]):
        return f"the loss is {losses[-1]}"
    before = losses[-WINDOW_STEPS - PATIENCE_STEPS : -PATIENCE_STEPS]
    if not deviations or len(before) < LEAST_STEPS:
        return None
    level, limit = _level_and_limit(before, deviations)
    latest = losses[-PATIENCE_STEPS:]
    if min(latest) <= limit:
        return None
    return (
        f"the loss was {latest[0]:.3f} and {latest[1]:.3f}, above {limit:.3f}: "
        f"{deviations:g} deviations over its level of {level:.3f}"
    )


def spike_may_begin(losses: Sequence[float], *, deviations: float) -> bool:
    """Whether the latest loss is above the limit: these weights are none to go back to."""
    before = losses[-WINDOW_STEPS - 1 : -1]
    if not deviations or len(before) < LEAST_STEPS:
        return False
    return losses[-1] > _level_and_limit(before, deviations)[1]


def _level_and_limit(before: Sequence[float], deviations: float) -> tuple[float, float]:
    level = statistics.median(before)
    spread = MAD_TO_DEVIATION * statistics.median(abs(one - level) for one in before)
    return level, level + deviations * max(spread, FLOOR_NATS)


@dataclass(frozen=True, order=True)
class Seen:
    """One block as it was trained on, lately."""

    step: int  # counted from 1
    sample: int
    source: str
    block: int
    loss: float  # nats per learnt token


@dataclass(frozen=True)
class Spike:
    """What happened, as the run's result tells it."""

    step: int  # at which it was found, counted from 1
    reason: str
    back_to_step: int
    first_sample: int  # skipped, with all behind it up to last_sample
    last_sample: int
    blocks: list[dict[str, Any]]  # suspects: source, block, loss (None: no number), documents

    def told(self) -> str:
        documents = "; ".join(
            f"{one['source']}, block {one['block']} ({_nats(one['loss'])}): {one['documents']}"
            for one in self.blocks[:3]
        )
        return (
            f"step {self.step}: {self.reason}; back to step {self.back_to_step}, samples "
            f"{self.first_sample} to {self.last_sample} are skipped. Suspects: {documents}"
        )


def _nats(loss: float | None) -> str:
    return "no number" if loss is None else f"{loss:.2f} nats"


def seen_once(by_rank: Sequence[Sequence[Seen]]) -> list[Seen]:
    """The blocks that any rank has seen, each once, in their order.

    Ranks that share matrices read the same blocks, and their losses differ in the last digits: the
    first of them tells.
    """
    found: dict[tuple[int, int], Seen] = {}
    for own in by_rank:
        for one in own:
            found.setdefault((one.step, one.sample), one)
    return [found[key] for key in sorted(found)]


def suspects(seen: Sequence[Seen], *, step: int) -> list[Seen]:
    """The blocks of the steps that made the spike, the worst first."""
    own = [one for one in seen if one.step > step - PATIENCE_STEPS]

    def badness(one: Seen) -> float:
        return one.loss if math.isfinite(one.loss) else math.inf

    return sorted(own, key=badness, reverse=True)[:NAMED_BLOCKS]
