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
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Case, F, OuterRef, Q, QuerySet, Subquery, When
from django.utils import timezone
from django.utils.translation import gettext

from annotation.mirroring import mirror_seed
from annotation.models import (
    GOLD,
    WORK,
    Assignment,
    CandidateBatch,
    Guideline,
    Membership,
    Project,
    Question,
    Task,
)
from annotation.selectors import queues_of, tasks_open
from annotation.selectors.queue import task_next_lock
from annotation.services.mirrors import mirrored_task_make
from modelhub.errors import ApplicationError, ConflictError
from modelhub.prepared import Prepared, PreparedUpdate, row_insert

State = Assignment.State
MAX_DRAFT_BYTES = 200_000
MAX_SEQUENCE = 2**31 - 1
MAX_REASON_CHARS = 300
_EXPIRED_AT_A_CLAIM = 8
_EXPIRED_AT_A_TIME = 100
_LOCKED_TRIES = 25
_LOCKED_WAIT_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A member, locked and as they are now, and the guideline in force for them."""

    member: Membership
    guideline_id: int | None


@dataclass(frozen=True, kw_only=True)
class DraftReceipt:
    """What became of a draft: whether it was kept, the newest sequence, and what to tell."""

    saved: bool
    sequence: int
    state: str
    lease_until: datetime
    notice: str = ""


def assignment_next(
    *,
    membership: Membership,
    batch: CandidateBatch | None = None,
    after: str = "",
    standing: Standing | None = None,
) -> Assignment | None:
    """What this member should do now; None when there is nothing for them.

    In this order: what a question had paused, once it is answered; what they hold, the oldest
    first, with its lease renewed; what they had begun and let lapse, drafts first, if a slot is
    free; a pair of their own to judge again mirrored, if one is due; a task of the project's queue
    that they never had. `batch` limits all of it to the tasks
    of one batch, in which nothing is mixed.

    `after` is the uid of an assignment that is being done: what comes back is the one to do after
    it, so that a page can load it ahead. Nobody is given more than these two at a time.
    `standing` is what `membership_lock` gave, where the caller's transaction holds the member.
    Costs five queries for a new task, none of which grows with the number of tasks.
    """
    # No savepoint of its own: nothing here is refused, and half of a claim is undone by no one.
    with transaction.atomic(savepoint=False):
        standing = standing or membership_lock(membership=membership)
        if standing is None:
            return None
        member = standing.member
        wanted = Q(task__project=member.project_id) & ~Q(uid=after)
        if batch is not None:
            wanted &= Q(task__batch=batch)
        begun = _begun(member, wanted, after)
        held = _held(begun)
        if held is not None:
            return held
        if any(one.state == State.EXPIRED for one in begun):
            resumed = _resume(member, wanted)
            if resumed is not None:
                return resumed
        claimed = _claim(standing, batch)
        if claimed is None and _lapsed_release(limit=_EXPIRED_AT_A_CLAIM):
            claimed = _resume(member, wanted) or _claim(standing, batch)
        return claimed


def membership_lock(*, membership: Membership) -> Standing | None:
    """Hold a member's row, in the caller's transaction; None if they have left. One query.

    For who changes an assignment and then asks for the next in one transaction: `assignment_next`
    holds the member first, so two tabs that went the two ways at once would wait for each other.
    The membership that came in is brought up to date: it is the standing's member.
    """
    rows = _MEMBER.rows(member=membership.pk)
    if not rows:
        return None
    guideline_id, role, is_qualified, *of_project = rows[0]
    for name, value in zip(_PROJECT_FIELDS, of_project, strict=True):
        setattr(membership.project, name, value)
    membership.role = role
    if bool(is_qualified) != (membership.qualified_at is not None):
        membership.refresh_from_db(fields=["qualified_at"])
    return Standing(member=membership, guideline_id=guideline_id)


@transaction.atomic
def assignment_renew(*, assignment: Assignment) -> Assignment:
    """Extend the lease. A lapsed assignment becomes live again if its slot is still free.

    Look at the returned `state`: "live" is reserved, "expired" is not (a submission is welcome all
    the same), "paused" waits for the answer to a question, the others are over.
    """
    return _renew(assignment)


@transaction.atomic
def draft_save(*, assignment: Assignment, draft: dict[str, Any], sequence: int) -> DraftReceipt:
    """Keep an unfinished judgement; the highest `sequence` wins, whatever order they arrive in.

    Saving renews the lease. A draft of a lapsed assignment is kept, and tries to get it back.
    """
    if not 0 < sequence <= MAX_SEQUENCE:
        raise ApplicationError(
            gettext("sequence is a whole number from 1; got %(sequence)s.")
            % {"sequence": sequence},
            {"field": "sequence"},
        )
    if len(json.dumps(draft, ensure_ascii=False).encode()) > MAX_DRAFT_BYTES:
        raise ApplicationError(
            gettext("A draft is at most %(max_draft_bytes)s bytes.")
            % {"max_draft_bytes": MAX_DRAFT_BYTES},
            {"field": "draft"},
        )
    kept = Assignment.objects.filter(
        pk=assignment.pk,
        state__in=[State.LIVE, State.PAUSED, State.EXPIRED],
        draft_sequence__lt=sequence,
    ).update(draft=draft, draft_sequence=sequence)
    assignment = _renew(assignment)
    notice = ""
    if assignment.state in (State.SUBMITTED, State.SKIPPED):
        notice = gettext("This task is already %(state)s: the draft was not kept.") % {
            "state": assignment.get_state_display()
        }
    elif not kept:
        notice = gettext("A newer draft was kept; this one is older.")
    elif assignment.state == State.EXPIRED:
        notice = gettext(
            "The reservation has lapsed. Your draft is kept, and you can still send it."
        )
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
            gettext("Say why, in 1 to %(max_reason_chars)s characters.")
            % {"max_reason_chars": MAX_REASON_CHARS},
            {"field": "reason"},
        )
    ended = {"state": State.SKIPPED, "skip_reason": reason, "ended_at": timezone.now()}
    mine = Assignment.objects.filter(pk=assignment.pk)
    if mine.filter(state__in=Assignment.HOLDING).update(**ended):
        slot_return(task_id=assignment.task_id)
    elif not mine.filter(state=State.EXPIRED).update(**ended):
        assignment.refresh_from_db()
        if assignment.state == State.SUBMITTED:
            raise ConflictError(gettext("This task was already submitted and cannot be skipped."))
    assignment.refresh_from_db()
    return assignment


@transaction.atomic
def assignment_pause(*, assignment: Assignment) -> Assignment:
    """Let an assignment wait, with its slot and its draft, until its questions are answered.

    A lapsed one waits too if its slot is still free. Raises ConflictError for one that is over.
    """
    assignment = _locked(assignment)
    if assignment.state == State.EXPIRED and slot_take(task_id=assignment.task_id):
        assignment.state, assignment.ended_at = State.LIVE, None
    if assignment.state == State.LIVE:
        assignment.state = State.PAUSED
        assignment.save(update_fields=["state", "ended_at"])
    if assignment.state != State.PAUSED:
        raise ConflictError(
            gettext("This task is %(state)s: it cannot wait.")
            % {"state": assignment.get_state_display()}
        )
    return assignment


@transaction.atomic
def assignment_release(*, assignment: Assignment) -> bool:
    """Let an assignment lapse at once; its slot is free again and its draft is kept."""
    return _release(assignment)


def assignments_expire() -> int:
    """Let all assignments past their lease lapse; returns how many. Many short transactions."""
    total = 0
    while True:
        with transaction.atomic():
            count = _lapsed_release(limit=_EXPIRED_AT_A_TIME)
        if not count:
            return total
        total += count


def slot_take(*, task_id: int) -> bool:
    """Take one slot of an open task; False if there is none. Inside the caller's transaction."""
    return bool(_SLOT_TAKE.run(task=task_id))


_SLOT_TAKE = PreparedUpdate(
    lambda task: (
        Task.objects.filter(pk=task, slots_free__gt=0, closed_at=None),
        {"slots_free": F("slots_free") - 1},
    ),
    numbers=("task",),
)


def slot_return(*, task_id: int) -> None:
    """Give one slot back. Inside the caller's transaction, once for each slot taken."""
    Task.objects.filter(pk=task_id).update(slots_free=F("slots_free") + 1)


_PROJECT_FIELDS = ("queue_order", "gold_share", "qualification_pass", "mirrored_share")
_PROJECT = Project.objects.filter(pk=OuterRef("project"))
_NEWEST = Guideline.objects.filter(project=OuterRef("project")).order_by("-number")


def _member_rows(member: int) -> QuerySet[Any, Any]:
    # Subqueries, for what is joined would be locked too.
    return (
        Membership.objects.select_for_update(no_key=True)
        .filter(pk=member, removed_at=None)
        .order_by("pk")
        .values_list(
            Subquery(_NEWEST.values("pk")[:1]),
            "role",
            Case(When(qualified_at=None, then=0), default=1),
            *(Subquery(_PROJECT.values(name)) for name in _PROJECT_FIELDS),
        )
    )


_MEMBER = Prepared(_member_rows, numbers=("member",))


def _begun(member: Membership, wanted: Q, after: str) -> list[Assignment]:
    """What the member holds, and what lapsed and has room still; the oldest first.

    One query where there is nothing but what is being done, as when a task has just been sent or
    the one behind it is loaded.
    """
    if all(uid == after for (uid,) in _BEGUN_UIDS.rows(member=member.pk)):
        return []
    begun = (
        Assignment.objects.filter(wanted, _IS_BEGUN, annotator=member)
        .select_related("task__prompt")
        .order_by("id")
    )
    return [_of(member, one) for one in begun]


_IS_BEGUN = Q(state__in=[State.LIVE, State.PAUSED, State.EXPIRED]) & (
    ~Q(state=State.EXPIRED) | Q(task__slots_free__gt=0, task__closed_at=None)
)
_BEGUN_UIDS = Prepared(
    lambda member: (
        Assignment.objects.filter(_IS_BEGUN, annotator=member)
        .order_by("-id")
        .values_list("uid")[:2]
    ),
    numbers=("member",),
)


def _held(begun: list[Assignment]) -> Assignment | None:
    """The first of these that is the member's to go on with: what was answered, what is live."""
    paused = [one for one in begun if one.state == State.PAUSED]
    if paused:
        waiting = set(
            Question.objects.filter(assignment__in=paused, answered_at=None).values_list(
                "assignment_id", flat=True
            )
        )
        paused = [one for one in paused if one.pk not in waiting]
    for one in paused + [one for one in begun if one.state == State.LIVE]:
        if one.task.closed_at is not None:
            _release(one)
            continue
        lease_until = _lease_end()
        # Unless it lapsed under our hands.
        if Assignment.objects.filter(pk=one.pk, state=one.state).update(
            state=State.LIVE, lease_until=lease_until
        ):
            one.state, one.lease_until = State.LIVE, lease_until
            return one
    return None


def _resume(member: Membership, tasks: Q) -> Assignment | None:
    """The member's newest lapsed assignment whose task still has room, drafts first."""
    lapsed = (
        Assignment.objects.select_for_update(skip_locked=True, no_key=True, of=("self", "task"))
        .select_related("task__prompt")
        .filter(
            tasks,
            annotator=member,
            state=State.EXPIRED,
            task__slots_free__gt=0,
            task__closed_at=None,
        )
        .order_by(Case(When(draft__isnull=True, then=1), default=0), "-id")
        .first()
    )
    if lapsed is not None and slot_take(task_id=lapsed.task_id):
        return _of(member, _revive(lapsed))
    return None


def _claim(standing: Standing, batch: CandidateBatch | None) -> Assignment | None:
    """Take a slot of a task the member never had, from the first of their queues that has one.

    Where every such task is locked by another transaction at this very moment, wait for those to
    end (they are milliseconds long) rather than say that there is nothing to do.
    """
    member = standing.member
    if batch is None and (mirrored := mirrored_task_make(membership=member)) is not None:
        task, first = mirrored
        return _hand_out(standing, task, shuffle_seed=mirror_seed(first.shown_order))
    queues = [WORK, GOLD] if batch else queues_of(membership=member)
    for _ in range(_LOCKED_TRIES):
        for task in _offers(member, queues, batch):
            if slot_take(task_id=task.pk):
                task.slots_free -= 1
                return _hand_out(standing, task, shuffle_seed=secrets.randbits(63))
        if not connection.features.has_select_for_update_skip_locked:
            return None
        if not any(_open(member, queue, batch).exists() for queue in queues):
            return None
        time.sleep(_LOCKED_WAIT_S)
    return None


def _hand_out(standing: Standing, task: Task, *, shuffle_seed: int) -> Assignment:
    """A task, a slot of which is taken, in the member's hands."""
    return row_insert(
        Assignment(
            task=task,
            annotator=standing.member,
            lease_until=_lease_end(),
            shuffle_seed=shuffle_seed,
            guideline_id=standing.guideline_id,
        )
    )


def _offers(member: Membership, queues: list[Q], batch: CandidateBatch | None) -> Iterator[Task]:
    """Tasks that the member may have, each locked and with its prompt; the best first."""
    for queue in queues:
        task = task_next_lock(membership=member, queue=queue) if batch is None else None
        if task is not None:
            yield task
        tasks = _open(member, queue, batch).select_related("prompt")
        task = tasks.select_for_update(skip_locked=True, no_key=True, of=("self",)).first()
        if task is not None:
            yield task


def _open(member: Membership, queue: Q, batch: CandidateBatch | None) -> QuerySet[Task]:
    tasks = tasks_open(membership=member, queue=queue)
    return tasks if batch is None else tasks.filter(batch=batch)


def _release(assignment: Assignment) -> bool:
    released = Assignment.objects.filter(pk=assignment.pk, state__in=Assignment.HOLDING).update(
        state=State.EXPIRED, ended_at=timezone.now()
    )
    if released:
        slot_return(task_id=assignment.task_id)
    return bool(released)


def _lapsed_release(*, limit: int) -> int:
    """Release up to `limit` assignments past their lease, passing over rows that others hold."""
    lapsed = (
        Assignment.objects.select_for_update(skip_locked=True, no_key=True, of=("self", "task"))
        .select_related("task")
        .filter(state=State.LIVE, lease_until__lt=timezone.now())
        .order_by("lease_until")[:limit]
    )
    return sum(_release(one) for one in lapsed)


def _locked(assignment: Assignment) -> Assignment:
    return Assignment.objects.select_for_update(no_key=True).get(pk=assignment.pk)


def _renew(assignment: Assignment) -> Assignment:
    assignment = _locked(assignment)
    if assignment.state == State.LIVE:
        assignment.lease_until = _lease_end()
        assignment.save(update_fields=["lease_until"])
    elif assignment.state == State.EXPIRED and slot_take(task_id=assignment.task_id):
        _revive(assignment)
    return assignment


def _revive(assignment: Assignment) -> Assignment:
    """Make a lapsed, locked assignment live with a slot just taken."""
    assignment.state, assignment.ended_at = State.LIVE, None
    assignment.lease_until = _lease_end()
    assignment.save(update_fields=["state", "ended_at", "lease_until"])
    return assignment


def _of(member: Membership, assignment: Assignment) -> Assignment:
    """The assignment, knowing whose it is without another query."""
    assignment.annotator = member
    return assignment


def _lease_end() -> datetime:
    return timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_S)
