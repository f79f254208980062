"""Rankings → comparisons of two: the one place that says what is one. Plain Python.

An ordering is an ordering: pairs come from the tiers alone, whoever is unacceptable. The ranking
page ties what is unacceptable in a last tier, so such answers make no pair among themselves unless
somebody did order them. What a tie says is a policy of whoever reads it: named, not implied.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Ties = Literal["exclude", "include"]
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """`better` was ranked above `worse`, or tied with it where `tiers_apart` is 0."""

    better: str
    worse: str
    tiers_apart: int
    both_unacceptable: bool = False


def tiers_pairs(tiers: Sequence[Sequence[ItemT]]) -> list[tuple[ItemT, ItemT]]:
    """All (better, worse) pairs of a weak order, those of the best first; a tie makes none.

    >>> tiers_pairs([[2], [0, 1]])
    [(2, 0), (2, 1)]
    """
    return [
        (better, worse)
        for place, tier in enumerate(tiers)
        for better in tier
        for lower in tiers[place + 1 :]
        for worse in lower
    ]


def ranking_pairs(
    tiers: Sequence[Sequence[str]],
    *,
    unacceptable: Collection[str] = (),
    ties: Ties = "exclude",
) -> Iterator[Pair]:
    """Yield every pair of a ranking once, those of the best answer first.

    tiers: candidate ids, best first; one list is a tie.
    unacceptable: marks the pairs of two such; it leaves none out.
    ties: "exclude" passes over tied pairs (a tie is no preference); "include" yields each once,
    after the others, with tiers_apart 0 and the two in the order of their ids.
    Raises ValueError for an id that is ranked twice.
    """
    place = {one: number for number, tier in enumerate(tiers) for one in tier}
    if len(place) != sum(len(tier) for tier in tiers):
        raise ValueError("a candidate is ranked twice")
    ordered = [sorted(tier) for tier in tiers]
    pairs = tiers_pairs(ordered)
    if ties == "include":
        pairs += [pair for tier in ordered for pair in tiers_pairs([[one] for one in tier])]
    for better, worse in pairs:
        yield Pair(
            better=better,
            worse=worse,
            tiers_apart=place[worse] - place[better],
            both_unacceptable=better in unacceptable and worse in unacceptable,
        )
