"""Submitting a ranking: never lost, never counted twice."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from annotation.models import Assignment, Ranking, Submission, SubmissionRevision, Task
from annotation.selectors import shown_order
from annotation.services.assignments import slot_return, slot_take
from modelhub.errors import ApplicationError

State = Assignment.State
Status = Submission.Status
MAX_RATIONALE_CHARS = 20_000
MAX_ACTIVE_S = 7 * 24 * 3600.0


@transaction.atomic
def ranking_submit(
    *,
    assignment: Assignment,
    tiers: Sequence[Sequence[str]],
    unacceptable: Sequence[str] = (),
    rationale: str = "",
    active_s: float = 0.0,
) -> Submission:
    """Store an annotator's ranking of a task: tiers of candidate uids, best first.

    What is well formed is always kept. It is `accepted` while the assignment holds a slot, or if a
    slot is still free; otherwise it is `surplus` (the lease lapsed and others filled the overlap,
    or the task has closed). Sent again with the same content it changes nothing; with other content
    (a second tab) the first stands and this one becomes a SubmissionRevision of it.
    Raises ApplicationError, naming the uid, unless the tiers are the task's candidates, each once.
    """
    shown = shown_order(assignment=assignment)
    _ranking_check(shown, tiers, unacceptable)
    if len(rationale) > MAX_RATIONALE_CHARS:
        raise ApplicationError(
            f"A reason is at most {MAX_RATIONALE_CHARS} characters.", {"field": "rationale"}
        )
    if not 0 <= active_s <= MAX_ACTIVE_S:
        raise ApplicationError(
            f"active_s is 0 to {MAX_ACTIVE_S:.0f} seconds; got {active_s}.", {"field": "active_s"}
        )
    payload = _payload(tiers, unacceptable, rationale)

    now = timezone.now()
    mine = Assignment.objects.filter(pk=assignment.pk)
    ended = {"state": State.SUBMITTED, "ended_at": now, "active_s": active_s, "skip_reason": ""}
    held_slot = mine.filter(state=State.LIVE).update(**ended) == 1
    if not held_slot and not mine.filter(state__in=[State.EXPIRED, State.SKIPPED]).update(**ended):
        return _submitted_again(assignment, payload)
    assignment.refresh_from_db()
    submission = Submission.objects.create(
        assignment=assignment,
        task_id=assignment.task_id,
        annotator_id=assignment.annotator_id,
        status=_status_settle(assignment.task_id, held_slot),
        source=assignment.annotator.source,
        shown_order=shown,
        active_s=active_s,
        rationale=rationale,
    )
    Ranking.objects.create(
        submission=submission, tiers=payload["tiers"], unacceptable=payload["unacceptable"]
    )
    return submission


def ranking_kept(
    *,
    submission: Submission,
    tiers: Sequence[Sequence[str]],
    unacceptable: Sequence[str],
    rationale: str,
) -> bool:
    """Whether a submission holds this very content, or it was put beside it as a revision."""
    return _payload(tiers, unacceptable, rationale) == _payload_of(submission)


def _status_settle(task_id: int, held_slot: bool) -> str:
    """accepted or surplus; a task keeps as many accepted submissions as slots were taken."""
    task = Task.objects.select_for_update(no_key=True).get(pk=task_id)
    if task.closed_at is None and (held_slot or slot_take(task_id=task_id)):
        return Status.ACCEPTED
    if held_slot:
        slot_return(task_id=task_id)
    return Status.SURPLUS


def _submitted_again(assignment: Assignment, payload: dict[str, Any]) -> Submission:
    submission = Submission.objects.select_related("ranking").get(assignment=assignment)
    if payload != _payload_of(submission) and payload not in [
        revision.payload for revision in submission.revisions.all()
    ]:
        SubmissionRevision.objects.create(submission=submission, payload=payload)
    return submission


def _payload(
    tiers: Sequence[Sequence[str]], unacceptable: Sequence[str], rationale: str
) -> dict[str, Any]:
    """A ranking in its one form: inside a tier, and among the unacceptable, order means nothing."""
    return {
        "tiers": [sorted(tier) for tier in tiers],
        "unacceptable": sorted(unacceptable),
        "rationale": rationale,
    }


def _payload_of(submission: Submission) -> dict[str, Any]:
    ranking = submission.ranking
    return _payload(ranking.tiers, ranking.unacceptable, submission.rationale)


def _ranking_check(
    candidates: Sequence[str], tiers: Sequence[Sequence[str]], unacceptable: Sequence[str]
) -> None:
    ranked = Counter(uid for tier in tiers for uid in tier)
    if not all(tiers):
        raise ApplicationError("A tier is empty.", {"field": "tiers"})
    for uid, times in ranked.items():
        if uid not in candidates:
            raise ApplicationError(f"{uid} is not a candidate of this task.", {"field": "tiers"})
        if times > 1:
            raise ApplicationError(f"{uid} is ranked {times} times.", {"field": "tiers"})
    for uid in candidates:
        if uid not in ranked:
            raise ApplicationError(f"{uid} is not ranked.", {"field": "tiers"})
    for uid, times in Counter(unacceptable).items():
        if uid not in candidates:
            raise ApplicationError(
                f"{uid} is not a candidate of this task.", {"field": "unacceptable"}
            )
        if times > 1:
            raise ApplicationError(f"{uid} is named {times} times.", {"field": "unacceptable"})
