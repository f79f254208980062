"""How sure a figure is: intervals for means, ratios and shares.

Plain Python, standard library only: programs, reports and pages use the same arithmetic.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

ItemT = TypeVar("ItemT")
_Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and the interval that covers it in 95 of 100 repetitions, unless said otherwise."""

    mean: float
    low: float
    high: float


def wilson_interval(successes: float, trials: int, *, z: float = _Z_95) -> Interval:
    """The share successes / trials with Wilson's score interval (Wilson 1927).

    It stays inside [0, 1] and keeps a width at 0 and at `trials`, where a bootstrap has none.
    `successes` may be a sum of fractions (a tie counts half, a prompt whose answers disagree
    counts its share): a variable inside [0, 1] varies no more than a coin of the same mean, so
    the interval is then on the wide side.

    Raises ValueError unless 0 <= successes <= trials and trials > 0.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"wanted 0 <= successes <= trials, got {successes} of {trials}")
    share = successes / trials
    shrink = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At the ends the formula is exact and rounding is not: the share lies inside its interval.
    return Interval(
        mean=share,
        low=min(share, max(0.0, centre - half)),
        high=max(share, min(1.0, centre + half)),
    )


def bootstrap_interval(
    items: Sequence[ItemT],
    statistic: Callable[[Sequence[ItemT]], float],
    *,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """`statistic(items)` with a percentile bootstrap interval (Efron 1979).

    An item is what was drawn independently (a prompt with all its answers, not an answer): items
    are drawn with replacement, `samples` times, and the middle `level` of the statistic's values
    is the interval. The same seed gives the same interval. With few items it is somewhat narrow.

    Raises ValueError for fewer than two items, whose spread nothing tells.
    """
    if len(items) < 2:
        raise ValueError(f"an interval needs at least two independent items, got {len(items)}")
    draw = random.Random(seed)  # noqa: S311 - statistics, not secrets
    values = sorted(statistic(draw.choices(items, k=len(items))) for _ in range(samples))
    tail = (1 - level) / 2
    return Interval(
        mean=statistic(items), low=quantile(values, tail), high=quantile(values, 1 - tail)
    )


def bootstrap_mean(values: Sequence[float], *, samples: int = 2000, seed: int = 0) -> Interval:
    """The mean of independent values with its 95 % bootstrap interval."""
    return bootstrap_interval(values, fmean, samples=samples, seed=seed)


def bootstrap_ratio(
    parts: Sequence[tuple[float, float]], *, samples: int = 2000, seed: int = 0
) -> Interval:
    """Σ numerators / Σ denominators over (numerator, denominator) items, with its interval.

    For figures "per token" or "per pair" where an item (a prompt) brings several of them.
    """
    return bootstrap_interval(parts, _ratio, samples=samples, seed=seed)


def _ratio(parts: Sequence[tuple[float, float]]) -> float:
    return math.fsum(top for top, _ in parts) / math.fsum(bottom for _, bottom in parts)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the ordered values lie, linear between neighbours."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
