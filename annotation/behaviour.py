"""How somebody works, apart from what they say: how fast, and what they see first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from annotation.agreement import wilson_interval

# 238 words a minute is how fast adults read silently (Brysbaert 2019, Journal of Memory and
# Language 109); at four times that nobody has read what they judge.
TOO_FAST_WORDS_PER_S = 4 * 238 / 60
TOO_FAST_SHARE = 0.2
FEWEST_SUBMISSIONS = 8


@dataclass(frozen=True, kw_only=True)
class PositionBias:
    """How often somebody's best answer was the one shown first, against what chance gives."""

    share: float
    low: float
    high: float
    expected: float
    choices: int

    @property
    def is_biased(self) -> bool:
        """Chance lies outside the interval, and there was enough to see."""
        seen = self.choices >= FEWEST_SUBMISSIONS
        return seen and not self.low <= self.expected <= self.high


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast somebody goes through answers, and how often faster than anybody reads."""

    words_per_s: float  # the median
    too_fast: int
    submissions: int

    @property
    def is_outlier(self) -> bool:
        enough = self.submissions >= FEWEST_SUBMISSIONS
        return enough and self.too_fast > TOO_FAST_SHARE * self.submissions


def position_bias(
    choices: Sequence[tuple[int, int]], *, level: float = 0.99
) -> PositionBias | None:
    """Position bias of choices, each (place of the best answer from 0, answers shown).

    Only choices of one single best answer belong here. By chance alone it was the first of K with
    probability 1/K. The interval is Wilson's, at 99 %: a project looks at many people at once.
    """
    interval = wilson_interval(sum(place == 0 for place, _ in choices), len(choices), level=level)
    if interval is None or interval.low is None or interval.high is None:
        return None
    return PositionBias(
        share=interval.value,
        low=interval.low,
        high=interval.high,
        expected=math.fsum(1 / shown for _, shown in choices) / len(choices),
        choices=len(choices),
    )


def speed(readings: Sequence[tuple[float, float]]) -> Speed | None:
    """The speed of submissions, each (words to read, seconds of attention); None of none.

    Without seconds nothing is known: a page that counted none is left out.
    """
    paces = [words / seconds for words, seconds in readings if seconds > 0]
    if not paces:
        return None
    return Speed(
        words_per_s=median(paces),
        too_fast=sum(pace > TOO_FAST_WORDS_PER_S for pace in paces),
        submissions=len(paces),
    )
