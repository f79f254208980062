"""Rankings → comparisons of two. Plain Python.

A ranking of K answers in tiers says something about up to K(K−1)/2 pairs. What it says about a
tie, and about two answers that nobody should be given, is a policy of whoever reads it: named, not
implied.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

Ties = Literal["exclude", "include"]
BothUnacceptable = Literal["include", "exclude"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """`better` was ranked above `worse`, or tied with it where `tiers_apart` is 0."""

    better: str
    worse: str
    tiers_apart: int


def ranking_pairs(
    tiers: Sequence[Sequence[str]],
    *,
    unacceptable: Collection[str] = (),
    ties: Ties = "exclude",
    both_unacceptable: BothUnacceptable = "include",
) -> Iterator[Pair]:
    """Yield every pair of a ranking once, those of the best answer first.

    tiers: candidate ids, best first; one list is a tie.
    ties: "exclude" passes over tied pairs (a tie is no preference); "include" yields each once,
    with tiers_apart 0 and the two in the order of their ids.
    both_unacceptable: "exclude" passes over pairs of two unacceptable answers, which would teach
    that the lesser evil is good.
    Raises ValueError for an id that is ranked twice.
    """
    ranked = [(place, one) for place, tier in enumerate(tiers) for one in sorted(tier)]
    if len({one for _, one in ranked}) != len(ranked):
        raise ValueError("a candidate is ranked twice")
    for (place, better), (other_place, worse) in combinations(ranked, 2):
        if ties == "exclude" and place == other_place:
            continue
        if both_unacceptable == "exclude" and better in unacceptable and worse in unacceptable:
            continue
        yield Pair(better=better, worse=worse, tiers_apart=other_place - place)
