"""The queue: handing tasks out, keeping drafts, taking slots back.

`Task.slots_free` is the whole truth about what may still be handed out: overlap less the live
assignments and the accepted submissions. A slot moves by a conditional UPDATE that also finds out
whether it was there, so two people never hold the same one.

Locks. SQLite's transactions begin IMMEDIATE: one writer at a time. On PostgreSQL rows are locked in
the order membership, assignment, task, and `assignment_next` never waits for a task that somebody
else has locked (SKIP LOCKED): nothing can wait in a circle.
"""

import json
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Case, F, Q, When
from django.utils import timezone

from annotation.models import Assignment, CandidateBatch, Guideline, Membership, Task
from annotation.selectors import tasks_open
from modelhub.errors import ApplicationError, ConflictError

State = Assignment.State
MAX_DRAFT_BYTES = 200_000
MAX_SEQUENCE = 2**31 - 1
MAX_REASON_CHARS = 300
_EXPIRED_AT_A_CLAIM = 8
_EXPIRED_AT_A_TIME = 100
_LOCKED_TRIES = 25
_LOCKED_WAIT_S = 0.02


@dataclass(frozen=True, kw_only=True)
class DraftReceipt:
    """What became of a draft: whether it was kept, the newest sequence, and what to tell."""

    saved: bool
    sequence: int
    state: str
    lease_until: datetime
    notice: str = ""


@transaction.atomic
def assignment_next(
    *, membership: Membership, batch: CandidateBatch | None = None
) -> Assignment | None:
    """What this member should do now; None when there is nothing for them.

    In this order: what they hold, with its lease renewed; what they had begun and let lapse, drafts
    first, if a slot is free; the open task of the highest priority that they never had. `batch`
    limits all three to the tasks of one batch. Costs about eight queries, none of which grows with
    the number of tasks.
    """
    standing = Membership.objects.select_for_update(no_key=True).filter(
        pk=membership.pk, removed_at=None
    )
    if standing.first() is None:
        return None
    tasks = Q(task__project=membership.project_id)
    if batch is not None:
        tasks &= Q(task__batch=batch)
    for held in Assignment.objects.filter(
        tasks, annotator=membership, state=State.LIVE
    ).select_related("task"):
        if held.task.closed_at is not None:
            assignment_release(assignment=held)
        elif _lease_renew(held).state == State.LIVE:
            return held
    _assignments_lapsed_release(limit=_EXPIRED_AT_A_CLAIM)
    return _resume(membership, tasks) or _claim(membership, batch)


@transaction.atomic
def assignment_renew(*, assignment: Assignment) -> Assignment:
    """Extend the lease. A lapsed assignment becomes live again if its slot is still free.

    Look at the returned `state`: "live" is reserved, "expired" is not (a submission is welcome all
    the same), "submitted" and "skipped" are over.
    """
    assignment = _locked(assignment)
    if assignment.state == State.LIVE:
        return _lease_renew(assignment)
    if assignment.state == State.EXPIRED and slot_take(task_id=assignment.task_id):
        return _revive(assignment)
    return assignment


@transaction.atomic
def draft_save(*, assignment: Assignment, draft: dict[str, Any], sequence: int) -> DraftReceipt:
    """Keep an unfinished judgement; the highest `sequence` wins, whatever order they arrive in.

    Saving renews the lease. A draft of a lapsed assignment is kept, and tries to get it back.
    """
    if not 0 < sequence <= MAX_SEQUENCE:
        raise ApplicationError(
            f"sequence is a whole number from 1; got {sequence}.", {"field": "sequence"}
        )
    if len(json.dumps(draft, ensure_ascii=False).encode()) > MAX_DRAFT_BYTES:
        raise ApplicationError(f"A draft is at most {MAX_DRAFT_BYTES} bytes.", {"field": "draft"})
    kept = Assignment.objects.filter(
        pk=assignment.pk, state__in=[State.LIVE, State.EXPIRED], draft_sequence__lt=sequence
    ).update(draft=draft, draft_sequence=sequence)
    assignment = assignment_renew(assignment=assignment)
    notice = ""
    if assignment.state in (State.SUBMITTED, State.SKIPPED):
        notice = f"This task is already {assignment.get_state_display()}: the draft was not kept."
    elif not kept:
        notice = "A newer draft was kept; this one is older."
    elif assignment.state == State.EXPIRED:
        notice = "The reservation has lapsed. Your draft is kept, and you can still send it."
    return DraftReceipt(
        saved=bool(kept),
        sequence=assignment.draft_sequence,
        state=assignment.state,
        lease_until=assignment.lease_until,
        notice=notice,
    )


@transaction.atomic
def assignment_skip(*, assignment: Assignment, reason: str) -> Assignment:
    """Give a task back, saying why. It goes to others and never comes back to this annotator."""
    reason = reason.strip()
    if not reason or len(reason) > MAX_REASON_CHARS:
        raise ApplicationError(
            f"Say why, in 1 to {MAX_REASON_CHARS} characters.", {"field": "reason"}
        )
    ended = {"state": State.SKIPPED, "skip_reason": reason, "ended_at": timezone.now()}
    mine = Assignment.objects.filter(pk=assignment.pk)
    if mine.filter(state=State.LIVE).update(**ended):
        slot_return(task_id=assignment.task_id)
    elif not mine.filter(state=State.EXPIRED).update(**ended):
        assignment.refresh_from_db()
        if assignment.state == State.SUBMITTED:
            raise ConflictError("This task was already submitted and cannot be skipped.")
    assignment.refresh_from_db()
    return assignment


@transaction.atomic
def assignment_release(*, assignment: Assignment) -> bool:
    """Let a live assignment lapse at once; its slot is free again and its draft is kept."""
    released = Assignment.objects.filter(pk=assignment.pk, state=State.LIVE).update(
        state=State.EXPIRED, ended_at=timezone.now()
    )
    if released:
        slot_return(task_id=assignment.task_id)
    return bool(released)


def assignments_expire() -> int:
    """Let all assignments past their lease lapse; returns how many. Many short transactions."""
    total = 0
    while count := _assignments_lapsed_release(limit=_EXPIRED_AT_A_TIME):
        total += count
    return total


def slot_take(*, task_id: int) -> bool:
    """Take one slot of an open task; False if there is none. Inside the caller's transaction."""
    taken = Task.objects.filter(pk=task_id, slots_free__gt=0, closed_at=None)
    return bool(taken.update(slots_free=F("slots_free") - 1))


def slot_return(*, task_id: int) -> None:
    """Give one slot back. Inside the caller's transaction, once for each slot taken."""
    Task.objects.filter(pk=task_id).update(slots_free=F("slots_free") + 1)


@transaction.atomic
def _assignments_lapsed_release(*, limit: int) -> int:
    """Release up to `limit` assignments past their lease, passing over rows that others hold."""
    lapsed = (
        Assignment.objects.select_for_update(skip_locked=True, no_key=True, of=("self", "task"))
        .select_related("task")
        .filter(state=State.LIVE, lease_until__lt=timezone.now())
        .order_by("lease_until")[:limit]
    )
    return sum(assignment_release(assignment=one) for one in lapsed)


def _resume(membership: Membership, tasks: Q) -> Assignment | None:
    """The member's newest lapsed assignment whose task still has room, drafts first."""
    lapsed = (
        Assignment.objects.select_for_update(skip_locked=True, no_key=True, of=("self", "task"))
        .select_related("task")
        .filter(
            tasks,
            annotator=membership,
            state=State.EXPIRED,
            task__slots_free__gt=0,
            task__closed_at=None,
        )
        .order_by(Case(When(draft__isnull=True, then=1), default=0), "-id")
        .first()
    )
    if lapsed is not None and slot_take(task_id=lapsed.task_id):
        return _revive(lapsed)
    return None


def _claim(membership: Membership, batch: CandidateBatch | None) -> Assignment | None:
    """Take a slot of the first open task the member never had.

    Where every such task is locked by another transaction at this very moment, wait for those to
    end (they are milliseconds long) rather than say that there is nothing to do.
    """
    open_tasks = tasks_open(membership=membership)
    if batch is not None:
        open_tasks = open_tasks.filter(batch=batch)
    for _ in range(_LOCKED_TRIES):
        task = open_tasks.select_for_update(skip_locked=True, no_key=True).first()
        if task is not None and slot_take(task_id=task.pk):
            return Assignment.objects.create(
                task=task,
                annotator=membership,
                lease_until=_lease_end(),
                shuffle_seed=secrets.randbits(63),
                guideline=Guideline.objects.filter(project=membership.project_id).first(),
            )
        if not open_tasks.exists():
            return None
        time.sleep(_LOCKED_WAIT_S)
    return None


def _locked(assignment: Assignment) -> Assignment:
    return Assignment.objects.select_for_update(no_key=True).get(pk=assignment.pk)


def _lease_renew(assignment: Assignment) -> Assignment:
    """Extend a live lease, unless it lapses under our hands: `state` tells."""
    Assignment.objects.filter(pk=assignment.pk, state=State.LIVE).update(lease_until=_lease_end())
    assignment.refresh_from_db()
    return assignment


def _revive(assignment: Assignment) -> Assignment:
    """Make a lapsed, locked assignment live with a slot just taken."""
    assignment.state, assignment.ended_at = State.LIVE, None
    assignment.lease_until = _lease_end()
    assignment.save(update_fields=["state", "ended_at", "lease_until"])
    return assignment


def _lease_end() -> datetime:
    return timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_S)
