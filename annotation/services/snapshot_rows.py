"""Submissions → the rows of a snapshot, kind by kind.

What compares answers (rankings, pairs, edits, the turns of a dialogue) is told as a ranking: one
form that every reward model trains on. Ratings and demonstrations have forms of their own.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from annotation.models import Candidate, Degree, Prompt, Submission, Task
from annotation.records import (
    DEMONSTRATIONS_NAME,
    RANKINGS_NAME,
    RATINGS_NAME,
    DemonstrationRecord,
    RankedCandidate,
    RankingRecord,
    RatingRecord,
)
from annotation.task_forms import PairForm
from modelhub.models import Artifact

Kind = Task.Kind
Record = RankingRecord | RatingRecord | DemonstrationRecord


@dataclass(frozen=True, kw_only=True)
class SnapshotKind:
    """How the submissions of one kind are frozen."""

    kind: str
    file: str  # its name in the artifact
    artifact: str
    record: type[Record]
    rows_of: str  # the relation of a submission that its kind's rows lie behind
    fetched: tuple[str, ...]  # relations that the rows are told from
    # (submission, its annotator's weight, more that the kind needs) → its rows, sorted by id.
    rows: Callable[[Submission, float, Mapping[str, Any]], Iterator[Record]]
    prefetched: tuple[str, ...] = ()
    also_of: tuple[str, ...] = ()  # other kinds of task whose submissions may have such rows

    @property
    def of_tasks(self) -> tuple[str, ...]:
        return (self.kind, *self.also_of)


def _shared(submission: Submission, prompt: Prompt, weight: float) -> dict[str, Any]:
    """What every row tells of its submission."""
    guideline = submission.assignment.guideline
    return {
        "prompt_id": prompt.uid,
        "messages": prompt.messages,
        "split": prompt.split,
        "tags": prompt.tags,
        "batch": submission.task.batch.uid if submission.task.batch else None,
        "annotator": submission.annotator.uid,
        "is_simulated": submission.is_simulated,
        "weight": weight,
        "active_s": submission.active_s,
        "rationale": submission.rationale,
        "guideline": guideline.number if guideline else None,
    }


def _compared(
    submission: Submission,
    prompt: Prompt,
    weight: float,
    *,
    candidates: list[Candidate],
    **judged: Any,
) -> RankingRecord:
    told = "simulated" if submission.is_simulated else "person"
    return RankingRecord(
        candidates=_candidates(candidates),
        # Where is_simulated says it, it is not said again: old rows keep their bytes.
        source="" if submission.source == told else submission.source,
        **_shared(submission, prompt, weight),
        **{
            "id": submission.uid,
            "unacceptable": [],
            "shown_order": submission.shown_order,
            **judged,
        },
    )


def _candidates(candidates: list[Candidate]) -> list[dict[str, Any]]:
    told = [_candidate(one) for one in candidates]
    return sorted(told, key=lambda one: str(one["id"]))


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return dataclasses.asdict(
        RankedCandidate(
            id=candidate.uid,
            text=candidate.text,
            finish_reason=candidate.finish_reason,
            token_count=candidate.token_count,
            model_version=candidate.version.uid if candidate.version else None,
        )
    )


def _ranking(
    submission: Submission, weight: float, more: Mapping[str, Any]
) -> Iterator[RankingRecord]:
    task, ranking = submission.task, submission.ranking
    yield _compared(
        submission,
        task.prompt,
        weight,
        candidates=[one.candidate for one in task.task_candidates.all()],
        tiers=ranking.tiers,
        unacceptable=ranking.unacceptable,
    )


def _pair(
    submission: Submission, weight: float, more: Mapping[str, Any]
) -> Iterator[RankingRecord]:
    comparison, form = submission.comparison, more["form"]
    better, worse = comparison.better, comparison.worse
    tied = comparison.degree == Degree.TIE
    asks_safety = isinstance(form, PairForm) and form.safety_labels
    yield _compared(
        submission,
        submission.task.prompt,
        weight,
        candidates=[better, worse],
        tiers=[sorted([better.uid, worse.uid])] if tied else [[better.uid], [worse.uid]],
        kind=Kind.PAIR.value,
        degree=comparison.degree,
        unsafe=sorted(comparison.unsafe) if asks_safety or comparison.unsafe else None,
    )


def _edit(
    submission: Submission, weight: float, more: Mapping[str, Any]
) -> Iterator[RankingRecord]:
    edit = submission.edit
    yield _compared(
        submission,
        submission.task.prompt,
        weight,
        candidates=[edit.candidate, edit.original],
        tiers=[[edit.candidate.uid], [edit.original.uid]],
        kind=Kind.EDIT.value,
        diff=edit.diff,
    )


def _dialogue(
    submission: Submission, weight: float, more: Mapping[str, Any]
) -> Iterator[RankingRecord]:
    given = {
        frozenset((one.first.uid, one.second.uid)): one
        for one in submission.assignment.dialogue_turns.all()
    }
    for number, turn in enumerate(submission.dialogue.turns):
        one = given[frozenset(turn["candidates"])]
        (other,) = (uid for uid in turn["candidates"] if uid != turn["chosen"])
        yield _compared(
            submission,
            one.prompt,
            weight,
            id=f"{submission.uid}-{number:02d}",
            candidates=[one.first, one.second],
            tiers=[[turn["chosen"]], [other]],
            shown_order=turn["candidates"],
            kind=Kind.DIALOGUE.value,
            degree=turn["degree"],
        )


def _rating(
    submission: Submission, weight: float, more: Mapping[str, Any]
) -> Iterator[RatingRecord]:
    task = submission.task
    candidates = {one.candidate.uid: one.candidate for one in task.task_candidates.all()}
    for uid, rating in sorted(submission.rating.ratings.items()):
        yield RatingRecord(
            id=f"{submission.uid}-{uid}",
            rating_id=submission.uid,
            candidate=_candidate(candidates[uid]),
            overall=rating["overall"],
            flags=rating["flags"],
            shown_order=submission.shown_order,
            source=submission.source,
            **_shared(submission, task.prompt, weight),
        )


def _demonstration(
    submission: Submission, weight: float, more: Mapping[str, Any]
) -> Iterator[DemonstrationRecord]:
    written = submission.demonstration
    yield DemonstrationRecord(
        id=submission.uid,
        candidate=_candidate(written.candidate),
        started_from=written.started_from.uid if written.started_from else None,
        turns=written.turns,
        source=submission.source,
        **_shared(submission, submission.task.prompt, weight),
    )


def tells_apart(row: Record) -> bool:
    """Whether no two answers that read the same were put in different tiers.

    Two live models that answer alike, or a product's early feedback, can bring such a row: it
    prefers a text to itself, and there is nothing to learn from that.
    """
    if not isinstance(row, RankingRecord):
        return True
    text_of = {str(one["id"]): str(one["text"]) for one in row.candidates}
    tier_of: dict[str, int] = {}
    return all(
        tier_of.setdefault(text_of[uid], place) == place
        for place, tier in enumerate(row.tiers)
        for uid in tier
    )


_OF_TASK = "task__task_candidates__candidate__version"
SNAPSHOT_KINDS: dict[str, SnapshotKind] = {
    one.kind: one
    for one in (
        SnapshotKind(
            kind=Kind.RANKING.value,
            file=RANKINGS_NAME,
            artifact=Artifact.Kind.RANKINGS,
            record=RankingRecord,
            rows_of="ranking",
            fetched=("ranking",),
            rows=_ranking,
            prefetched=(_OF_TASK,),
        ),
        SnapshotKind(
            kind=Kind.PAIR.value,
            file=RANKINGS_NAME,
            artifact=Artifact.Kind.RANKINGS,
            record=RankingRecord,
            rows_of="comparison",
            fetched=("comparison__better__version", "comparison__worse__version"),
            rows=_pair,
        ),
        SnapshotKind(
            kind=Kind.EDIT.value,
            file=RANKINGS_NAME,
            artifact=Artifact.Kind.RANKINGS,
            record=RankingRecord,
            rows_of="edit",
            fetched=("edit__candidate__version", "edit__original__version"),
            rows=_edit,
            also_of=(Kind.RANKING.value,),  # none was good, and one was written anew
        ),
        SnapshotKind(
            kind=Kind.DIALOGUE.value,
            file=RANKINGS_NAME,
            artifact=Artifact.Kind.RANKINGS,
            record=RankingRecord,
            rows_of="dialogue",
            fetched=("dialogue",),
            rows=_dialogue,
            prefetched=(
                "assignment__dialogue_turns__prompt",
                "assignment__dialogue_turns__first__version",
                "assignment__dialogue_turns__second__version",
            ),
        ),
        SnapshotKind(
            kind=Kind.RATING.value,
            file=RATINGS_NAME,
            artifact=Artifact.Kind.RATINGS,
            record=RatingRecord,
            rows_of="rating",
            fetched=("rating",),
            rows=_rating,
            prefetched=(_OF_TASK,),
        ),
        SnapshotKind(
            kind=Kind.DEMONSTRATION.value,
            file=DEMONSTRATIONS_NAME,
            artifact=Artifact.Kind.DEMONSTRATIONS,
            record=DemonstrationRecord,
            rows_of="demonstration",
            fetched=("demonstration__candidate__version", "demonstration__started_from"),
            rows=_demonstration,
        ),
    )
}
