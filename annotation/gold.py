"""Tasks with a known answer: when one is mixed in, and how near a judgement comes. Plain Python.

A judgement is the JSON that a submission of its kind holds; a gold one may leave fields out, and
only what it names is scored.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

Judgement = Mapping[str, Any]
RATING_STEPS = 6  # from 1 to 7


def gold_due(*, handed_out: int, gold_handed_out: int, share: float, seed: str) -> bool:
    """Whether the next task that somebody gets is one with a known answer.

    handed_out, gold_handed_out: the tasks the person ever got, and those of them that were gold.
    share: of all tasks handed out, how many are gold, 0 to 1.
    seed: the person's own, so that nobody can tell from a neighbour when it comes.
    There is one in every stretch of 1/share tasks, at a place of the stretch that nobody can guess;
    where none was at hand then, it is due until the stretch ends.
    """
    if share <= 0.0:
        return False
    stretch = math.floor(handed_out * share)
    start = math.ceil(stretch / share)
    length = math.ceil((stretch + 1) / share) - start
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{stretch}".encode()).digest()[:8])
    place = start + draw % length
    if handed_out == place:
        return gold_handed_out <= stretch
    return handed_out > place and gold_handed_out == stretch


def gold_score(kind: str, gold: Judgement, judgement: Judgement) -> float:
    """How near a judgement comes to the known one, 0 to 1; 1 says the same.

    ranking: the share of pairs in the same order (half for a tie on one side alone), and the
    unacceptable marks. pair: the choice (half for a tie on one side alone), less up to a quarter
    for the degree, and the safety labels. rating: overall, less a sixth for each step, and what
    the flags share. edit: whether the same answer was taken up.
    Raises ValueError for a kind whose judgements are written, not chosen, and for gold that names
    nothing to score.
    """
    if kind not in _SCORES:
        raise ValueError(f"a {kind} has no known answer to be scored against")
    parts = _SCORES[kind](gold, judgement)
    if not parts:
        raise ValueError(f"this known answer to a {kind} names nothing to score")
    return math.fsum(parts) / len(parts)


def judgements_agree(kind: str, one: Judgement, other: Judgement) -> float | None:
    """How far two people's judgements of one task agree, 0 to 1, the same both ways round.

    None for kinds that cannot be compared, and for judgements that have nothing in common.
    """
    score = _SCORES.get(kind)
    parts = [*score(one, other), *score(other, one)] if score else []
    return math.fsum(parts) / len(parts) if parts else None


def tier_places(tiers: Sequence[Sequence[str]]) -> dict[str, int]:
    """Candidate uid → its tier, from 0."""
    return {uid: place for place, tier in enumerate(tiers) for uid in tier}


def pair_degree(judgement: Judgement, first: str) -> int:
    """A pair's judgement as a number, -4 to 4: 4 where `first` is significantly better."""
    degree = int(judgement.get("degree") or 0)
    return degree if judgement.get("better") == first else -degree


def _ranking(gold: Judgement, judgement: Judgement) -> list[float]:
    wanted, given = tier_places(gold.get("tiers", ())), tier_places(judgement.get("tiers", ()))
    pairs = [
        _same_side(wanted[one] - wanted[other], given[one] - given[other])
        for one, other in combinations(sorted(wanted), 2)
        if one in given and other in given
    ]
    parts = [math.fsum(pairs) / len(pairs)] if pairs else []
    if gold.get("unacceptable"):
        marked = set(gold["unacceptable"]), set(judgement.get("unacceptable", ()))
        parts.append(sum((uid in marked[0]) == (uid in marked[1]) for uid in wanted) / len(wanted))
    return parts


def _pair(gold: Judgement, judgement: Judgement) -> list[float]:
    parts = []
    if "better" in gold:
        wanted, given = gold["better"], judgement.get("better")
        if wanted != given:
            parts.append(0.5 if wanted is None or given is None else 0.0)
        else:
            apart = abs(int(gold.get("degree") or 0) - int(judgement.get("degree") or 0))
            parts.append(1.0 - 0.25 * apart / 3 if wanted is not None and "degree" in gold else 1.0)
    return parts + _overlap(gold.get("unsafe", ()), judgement.get("unsafe", ()))


def _rating(gold: Judgement, judgement: Judgement) -> list[float]:
    parts = []
    for uid, wanted in gold.get("ratings", {}).items():
        given = judgement.get("ratings", {}).get(uid, {})
        if wanted.get("overall") is not None and given.get("overall") is not None:
            parts.append(1.0 - abs(wanted["overall"] - given["overall"]) / RATING_STEPS)
        if "flags" in wanted:
            parts += _overlap(wanted["flags"], given.get("flags", ()))
    return parts


def _edit(gold: Judgement, judgement: Judgement) -> list[float]:
    if "original" not in gold:
        return []
    return [float(gold["original"] == judgement.get("original"))]


def _same_side(wanted: int, given: int) -> float:
    if not wanted or not given:
        return 1.0 if wanted == given else 0.5
    return float((wanted > 0) == (given > 0))


def _overlap(wanted: Sequence[str], given: Sequence[str]) -> list[float]:
    """What two sets share, of all that is in either; of two empty ones nothing is said.

    Else whoever chose wrongly would have half a score for marks that nobody asked for.
    """
    either = set(wanted) | set(given)
    return [len(set(wanted) & set(given)) / len(either)] if either else []


_SCORES: dict[str, Callable[[Judgement, Judgement], list[float]]] = {
    "ranking": _ranking,
    "pair": _pair,
    "rating": _rating,
    "edit": _edit,
}
GOLD_KINDS = frozenset(_SCORES)
