"""How far people agree, beyond chance, and how sure that figure is. Plain Python.

A *unit* is what was judged (a task, or one answer of it) and holds the values that people gave it,
in any order; who did not judge it is simply not there. Figures are None where they say nothing:
without a unit that two people judged, or where everybody always said one and the same thing.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, TypeVar

Metric = Literal["nominal", "ordinal", "interval"]
GroupT = TypeVar("GroupT")
RESAMPLES = 200
FEWEST_GROUPS = 5


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with the ends of its interval, which are None where there is too little to say."""

    value: float
    low: float | None = None
    high: float | None = None


def krippendorff_alpha(units: Iterable[Sequence[Any]], *, metric: Metric) -> float | None:
    """Krippendorff's alpha: 1 is agreement, 0 is chance, below 0 is systematic disagreement.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": coincidences within units
    against those that the margins would make. Any number of people a unit; those with one value
    are left out, as there. Values of the ordinal and interval metrics are numbers; those of the
    nominal metric need only be hashable.
    """
    coincidences: dict[tuple[Any, Any], float] = {}
    for values, times in Counter(tuple(unit) for unit in units).items():
        if len(values) < 2:
            continue
        share = times / (len(values) - 1)
        counts = Counter(values)
        for one, n_one in counts.items():
            for other, n_other in counts.items():
                pairs = n_one * (n_other - (one == other))
                if pairs:
                    before = coincidences.get((one, other), 0.0)
                    coincidences[one, other] = before + pairs * share
    margins: dict[Any, float] = {}
    for (one, _), number in coincidences.items():
        margins[one] = margins.get(one, 0.0) + number
    if len(margins) < 2:
        return None
    distance = _distance(margins, metric)
    total = math.fsum(margins.values())
    observed = math.fsum(number * distance(*pair) for pair, number in coincidences.items())
    expected = math.fsum(
        margins[one] * margins[other] * distance(one, other) for one in margins for other in margins
    )
    return 1.0 - (total - 1.0) * observed / expected


def _distance(margins: dict[Any, float], metric: Metric) -> Callable[[Any, Any], float]:
    """The squared difference of two values, by the metric; for ordinal it needs all margins."""
    if metric == "nominal":
        return lambda one, other: float(one != other)
    if metric == "interval":
        return lambda one, other: float((one - other) ** 2)
    below, running = {}, 0.0
    for value in sorted(margins):
        below[value] = running + margins[value] / 2  # the middle of the value's own ranks
        running += margins[value]
    return lambda one, other: (below[one] - below[other]) ** 2


def fleiss_kappa(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Fleiss' kappa for nominal values (Fleiss 1971, Psychological Bulletin 76, 378-382).

    Every unit was judged by equally many people, two or more: raises ValueError otherwise.
    """
    counted = Counter(tuple(unit) for unit in units)
    sizes = {len(unit) for unit in counted}
    if not sizes:
        return None
    if len(sizes) > 1 or (people := sizes.pop()) < 2:
        raise ValueError("each unit is judged by the same number of people, at least two")
    number = sum(counted.values())
    margins: Counter[Hashable] = Counter()
    agreeing = 0
    for unit, times in counted.items():
        counts = Counter(unit)
        agreeing += times * sum(count * (count - 1) for count in counts.values())
        for value, count in counts.items():
            margins[value] += count * times
    if len(margins) < 2:
        return None
    observed = agreeing / (number * people * (people - 1))
    by_chance = math.fsum((count / (number * people)) ** 2 for count in margins.values())
    return (observed - by_chance) / (1.0 - by_chance)


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b of two rankings of the same things, ties allowed (Kendall 1945).

    first, second: each thing's rank, in the same order of things; K things cost K² steps.
    None where a ranking ties everything. Raises ValueError if the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"rankings of {len(first)} and of {len(second)} things")
    concordance = in_first = in_second = 0
    for i in range(len(first)):
        for j in range(i):
            sign_first = (first[i] > first[j]) - (first[i] < first[j])
            sign_second = (second[i] > second[j]) - (second[i] < second[j])
            concordance += sign_first * sign_second
            in_first += sign_first != 0
            in_second += sign_second != 0
    if not in_first or not in_second:
        return None
    return concordance / math.sqrt(in_first * in_second)


def bootstrap_interval(
    groups: Sequence[GroupT],
    statistic: Callable[[Sequence[GroupT]], float | None],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """A statistic of the groups with its percentile bootstrap interval; None if it is None.

    Efron and Tibshirani 1993, chapter 13. A group is what was drawn together (a task with all its
    units): groups are drawn again with replacement, so what depends on each other stays together.
    The same groups and seed give the same interval. Fewer than FEWEST_GROUPS groups, or a statistic
    that most resamples do not have, give none.
    """
    value = statistic(groups)
    if value is None:
        return None
    draw = random.Random(seed)  # noqa: S311 (a resample, not a secret)
    drawn: list[float] = []
    if resamples and len(groups) >= FEWEST_GROUPS:
        for _ in range(resamples):
            one = statistic(draw.choices(groups, k=len(groups)))
            if one is not None:
                drawn.append(one)
    if not drawn or len(drawn) * 2 < resamples:
        return Interval(value=value)
    drawn.sort()
    tail = (1.0 - level) / 2.0
    return Interval(value=value, low=quantile(drawn, tail), high=quantile(drawn, 1.0 - tail))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of sorted values lies, interpolated between neighbours."""
    place = share * (len(ordered) - 1)
    under = math.floor(place)
    over = min(under + 1, len(ordered) - 1)
    return ordered[under] + (ordered[over] - ordered[under]) * (place - under)


def wilson_interval(successes: float, trials: int, *, level: float = 0.95) -> Interval | None:
    """A share with Wilson's score interval (Wilson 1927, JASA 22, 209-212); None of no trials.

    Fractions of a success may be among them: they vary less than a coin, so it is rather wide.
    """
    if not trials:
        return None
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    share = successes / trials
    spread = 1.0 + z * z / trials
    middle = (share + z * z / (2 * trials)) / spread
    half = z / spread * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(value=share, low=middle - half, high=middle + half)
