"""What people's judgements of documents say of a rule's threshold. Standard library."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from modelhub.ml.corpora.rules import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A threshold held against judged documents: how many of each kind it drops, of how many."""

    good: int
    bad: int
    good_dropped: int
    bad_dropped: int

    @property
    def precision(self) -> float | None:
        """Of the judged documents it drops, the share that is bad; None if it drops none."""
        dropped = self.good_dropped + self.bad_dropped
        return self.bad_dropped / dropped if dropped else None

    @property
    def recall(self) -> float | None:
        """Of the bad documents, the share that it drops; None if none was found bad."""
        return self.bad_dropped / self.bad if self.bad else None


def calibrate(
    judged: Sequence[tuple[float, bool]], *, rule: Rule, threshold: float | None
) -> Calibration:
    """Hold a rule against judged documents.

    judged: (the rule's signal, whether people found the document good to learn from). threshold:
    None for a rule that is off.
    """
    counts = Counter(
        (is_good, threshold is not None and rule.drops(value, threshold))
        for value, is_good in judged
    )
    return Calibration(
        good=counts[True, True] + counts[True, False],
        bad=counts[False, True] + counts[False, False],
        good_dropped=counts[True, True],
        bad_dropped=counts[False, True],
    )


def threshold_best(judged: Sequence[tuple[float, bool]], *, rule: Rule) -> float | None:
    """The threshold that tells the two kinds apart best; None if none beats to drop nothing.

    It has the largest share of bad documents dropped less that of good ones (Youden's J; Youden
    1950, Cancer 3:32-35); of several as good it is the one that drops least. It lies half-way
    between two values that were seen, so that a document a little on either side is treated as
    those nearest to it. One pass over the sorted values.
    """
    of_value: dict[float, Counter[bool]] = {}
    for value, is_good in judged:
        of_value.setdefault(value, Counter())[is_good] += 1
    totals = sum(of_value.values(), Counter[bool]())
    if not totals[True] or not totals[False]:
        return None
    best, most, good, bad = None, 0.0, 0, 0
    # In the order in which a threshold that moves drops them.
    for before, after in pairwise(sorted(of_value, reverse=not rule.is_minimum)):
        good += of_value[before][True]
        bad += of_value[before][False]
        gain = bad / totals[False] - good / totals[True]
        if gain > most + 1e-12:
            best, most = (before + after) / 2, gain
    return best


def thresholds_between(
    judged: Sequence[tuple[float, bool]], *, rule: Rule, limit: int
) -> list[float]:
    """Thresholds at which the rule drops other judged documents, from the one that drops least.

    Each lies half-way between two values that were seen; of more than `limit` (2 or more) there
    are so many, spread evenly.
    """
    values = sorted({value for value, _ in judged}, reverse=not rule.is_minimum)
    between = [(before + after) / 2 for before, after in pairwise(values)]
    if len(between) <= limit:
        return between
    return [between[round(i * (len(between) - 1) / (limit - 1))] for i in range(limit)]
