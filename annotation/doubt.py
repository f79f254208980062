"""How unsure a reward model is of a task's answers. Plain Python.

For two answers the model's belief that the first is better is the Bradley–Terry probability
p = sigmoid(score − score). Over the members of an ensemble the entropy of the mean belief splits in
two (Houlsby et al. 2011, arXiv:1112.5745): the mean entropy, high where the answers are near a tie,
and what is left, the mutual information, high where each member is sure and they disagree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """Bits, of a choice between two: each from 0, together at most 1."""

    near_tie: float
    disagreement: float

    @property
    def total(self) -> float:
        return self.near_tie + self.disagreement


def doubt_of(scores_KM: Sequence[Sequence[float]]) -> Doubt:
    """The mean doubt over all pairs of K answers.

    scores_KM: for each of K ≥ 2 answers, its score by each of M ≥ 1 members of an ensemble, in one
    order of members. Scores of different members need share no scale's zero: differences count.
    Raises ValueError for fewer answers or members, rows of different lengths, and for a score that
    is not finite.
    """
    members = {len(row_M) for row_M in scores_KM}
    if len(scores_KM) < 2 or len(members) != 1 or members == {0}:
        raise ValueError("wanted two answers or more, each scored by the same members")
    if not all(math.isfinite(score) for row_M in scores_KM for score in row_M):
        raise ValueError("a score is not finite")
    ties, totals = [], []
    for first_M, second_M in combinations(scores_KM, 2):
        beliefs_M = [_sigmoid(a - b) for a, b in zip(first_M, second_M, strict=True)]
        totals.append(_entropy(sum(beliefs_M) / len(beliefs_M)))
        ties.append(sum(_entropy(belief) for belief in beliefs_M) / len(beliefs_M))
    near_tie, total = sum(ties) / len(ties), sum(totals) / len(totals)
    return Doubt(near_tie=near_tie, disagreement=max(0.0, total - near_tie))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _entropy(p: float) -> float:
    """Of a coin, in bits."""
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)
