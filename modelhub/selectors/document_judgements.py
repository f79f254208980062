"""What people said of a corpus's documents, held against the rules."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelhub.ml.corpora.calibration import (
    Calibration,
    calibrate,
    threshold_best,
    thresholds_between,
)
from modelhub.ml.corpora.documents import signals_at
from modelhub.ml.corpora.rules import CHINESE, Rule, threshold_for
from modelhub.models import Artifact
from modelhub.storage import artifact_folder

THRESHOLDS_SHOWN = 8


def judgements_standing(corpus: Artifact, **of: Any) -> dict[tuple[int, int], tuple[bool, str]]:
    """(place, author) → whether it is good, and where that was said: each one's newest word.

    of: conditions on the judgements. One query.
    """
    rows = corpus.judgements.filter(**of).order_by("created_at", "pk")
    said = rows.values_list("place", "author", "is_good", "origin")
    return {(place, author): (is_good, origin) for place, author, is_good, origin in said}


@dataclass(frozen=True, slots=True)
class Judged:
    """A document that people have judged: its signals, and what most of them said."""

    signals: Mapping[str, Any]
    is_good: bool

    @property
    def is_chinese(self) -> bool:
        return bool(self.signals["language"] == CHINESE)


def judged_documents(corpus: Artifact) -> list[Judged]:
    """Judged documents; those that as many found good as bad are left out. One query."""
    votes: Counter[int] = Counter()
    for (place, _author), (is_good, _origin) in judgements_standing(corpus).items():
        votes[place] += 1 if is_good else -1
    decided = sorted(place for place, balance in votes.items() if balance)
    measured = signals_at(artifact_folder(corpus), decided)
    return [
        Judged(signals, votes[place] > 0) for place, signals in zip(decided, measured, strict=True)
    ]


def calibration_of_all(
    judged: Sequence[Judged], rule: Rule, thresholds: Mapping[str, float]
) -> Calibration:
    """Of both languages' thresholds together, as the funnel counts."""
    own = [
        calibrate(
            _values(judged, rule, is_chinese=is_chinese),
            rule=rule,
            threshold=threshold_for(thresholds, rule.name, is_chinese=is_chinese),
        )
        for is_chinese in (False, True)
    ]
    return Calibration(
        good=sum(one.good for one in own),
        bad=sum(one.bad for one in own),
        good_dropped=sum(one.good_dropped for one in own),
        bad_dropped=sum(one.bad_dropped for one in own),
    )


@dataclass(frozen=True, kw_only=True)
class ThresholdRow:
    """One threshold of a table: what it would drop of the judged documents."""

    threshold: float
    people: Calibration
    is_now: bool
    is_best: bool


@dataclass(frozen=True, kw_only=True)
class RuleCalibration:
    """One rule before people's judgements: as it stands, and at the threshold they speak for.

    rows: thresholds from the one that drops least, with the two among them.
    """

    now: Calibration
    best: float | None
    then: Calibration
    rows: list[ThresholdRow]


def rule_calibration(
    *, corpus: Artifact, rule: Rule, threshold: float | None, is_chinese: bool
) -> RuleCalibration:
    """What people's judgements say of one rule, in Chinese or in all else. One query."""
    values = _values(judged_documents(corpus), rule, is_chinese=is_chinese)
    best = threshold_best(values, rule=rule)
    told = {one for one in (threshold, best) if one is not None} if values else set()
    shown = told.union(thresholds_between(values, rule=rule, limit=THRESHOLDS_SHOWN))
    return RuleCalibration(
        now=calibrate(values, rule=rule, threshold=threshold),
        best=best,
        then=calibrate(values, rule=rule, threshold=best),
        rows=[
            ThresholdRow(
                threshold=one,
                people=calibrate(values, rule=rule, threshold=one),
                is_now=one == threshold,
                is_best=one == best,
            )
            for one in sorted(shown, reverse=not rule.is_minimum)
        ],
    )


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How much people have said of a corpus's documents, and how far they agree."""

    judgements: int
    of_tasks: int  # of them, those that came of a task in a project
    people: int
    documents: int
    shared: int  # documents that two or more judged
    agreed: int  # of them, those of which all said the same


def judgements_tally(*, corpus: Artifact) -> Tally:
    """Count a corpus's judgements. One query."""
    standing = judgements_standing(corpus)
    said: dict[int, list[bool]] = {}
    for (place, _author), (is_good, _origin) in standing.items():
        said.setdefault(place, []).append(is_good)
    shared = [verdicts for verdicts in said.values() if len(verdicts) > 1]
    return Tally(
        judgements=len(standing),
        of_tasks=sum(1 for _, origin in standing.values() if origin),
        people=len({author for _, author in standing}),
        documents=len(said),
        shared=len(shared),
        agreed=sum(1 for verdicts in shared if len(set(verdicts)) == 1),
    )


def _values(judged: Sequence[Judged], rule: Rule, *, is_chinese: bool) -> list[tuple[float, bool]]:
    own = (one for one in judged if one.is_chinese is is_chinese)
    return [(one.signals[rule.signal], one.is_good) for one in own]
