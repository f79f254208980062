"""What people's judgements of documents say of a rule's threshold. Standard library."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from modelhub.ml.corpora.rules import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A threshold held against judged documents: how many of each kind it drops, of how many.

    best: the threshold that tells the two kinds apart best, and what it would drop; None where
    none does better than to drop nothing.
    """

    good: int
    bad: int
    good_dropped: int
    bad_dropped: int
    best: float | None = None
    best_good_dropped: int = 0
    best_bad_dropped: int = 0


def calibrate(
    judged: Sequence[tuple[float, bool]], *, rule: Rule, threshold: float | None
) -> Calibration:
    """Hold a rule against judged documents.

    judged: (the rule's signal, whether people found the document good to learn from). threshold:
    None for a rule that is off. The best threshold has the largest share of bad documents dropped
    less that of good ones (Youden's J; Youden 1950, Cancer 3:32-35), and of several as good the one
    that drops least. It lies half-way between two values that were seen, so that documents a
    little on either side of it are treated as those nearest to them.
    """
    good = [value for value, is_good in judged if is_good]
    bad = [value for value, is_good in judged if not is_good]

    def dropped(values: list[float], cut: float | None) -> int:
        return 0 if cut is None else sum(rule.drops(value, cut) for value in values)

    best, most = None, 0.0
    seen = sorted({value for value, _ in judged}, reverse=not rule.is_minimum)
    for before, after in pairwise(seen) if good and bad else ():
        cut = (before + after) / 2
        gain = dropped(bad, cut) / len(bad) - dropped(good, cut) / len(good)
        if gain > most + 1e-12:
            best, most = cut, gain
    return Calibration(
        good=len(good),
        bad=len(bad),
        good_dropped=dropped(good, threshold),
        bad_dropped=dropped(bad, threshold),
        best=best,
        best_good_dropped=dropped(good, best),
        best_bad_dropped=dropped(bad, best),
    )
