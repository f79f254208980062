"""What submitting is, whatever was judged: never lost, never counted twice, undone for a moment.

A kind of task brings how its judgement is checked and kept (`JudgementKind`); what is the same for
all is here: the reason, the slot, the second tab, the second thoughts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.db import transaction
from django.db.models import Model
from django.utils import timezone
from django.utils.translation import gettext

from annotation.identity import identity_hide
from annotation.models import Assignment, Candidate, Submission, SubmissionRevision, Task
from annotation.selectors import shown_order
from annotation.selectors.judgements import judgement_of
from annotation.services.assignments import slot_return, slot_take
from annotation.services.documents import document_judgement_hand_down
from annotation.task_forms import Form, form_of
from modelhub.errors import ApplicationError, ConflictError
from modelhub.prepared import Prepared, PreparedObjects, PreparedUpdate, row_insert

State = Assignment.State
Status = Submission.Status
FormT = TypeVar("FormT", bound=Form)

MAX_RATIONALE_CHARS = 20_000
MAX_ACTIVE_S = 7 * 24 * 3600.0
UNDO_S = 10.0
_UNDO_GRACE_S = 5.0  # for the way here: what was clicked in time is in time


@dataclass(frozen=True, kw_only=True)
class Asked(Generic[FormT]):
    """What a judgement is checked against."""

    assignment: Assignment
    form: FormT
    shown: Sequence[str]  # candidate uids, as the annotator sees them


@dataclass(frozen=True, kw_only=True)
class JudgementKind(Generic[FormT]):
    """How one kind's judgements are checked and kept."""

    kind: str
    # (asked, judgement as it came) → it in its one form. Raises ApplicationError naming the field.
    check: Callable[[Asked[FormT], dict[str, Any]], dict[str, Any]]
    # Make the kind's rows of a submission from a checked judgement.
    keep: Callable[[Submission, dict[str, Any]], None]
    rows: tuple[type[Model], ...]  # what `keep` makes, each one to one with the submission


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of a judgement: its submission, and whether it is the one that stands there."""

    submission: Submission
    stands: bool


def submission_settle(
    kind: JudgementKind[FormT],
    *,
    assignment: Assignment,
    judgement: dict[str, Any],
    rationale: str = "",
    active_s: float = 0.0,
    first_move_s: float | None = None,
) -> Settled:
    """Store an annotator's judgement of a task.

    active_s: seconds of attention. first_move_s: those before the first move, if it was counted.
    What is well formed is always kept. It is `accepted` while the assignment holds a slot, or if a
    slot is still free; otherwise it is `surplus` (the lease lapsed and others filled the overlap,
    or the task has closed). Sent again with the same content it changes nothing; with other content
    (a second tab) the first stands and this one becomes a SubmissionRevision of it. After an undo
    it is the other way round: this one stands, in the same row, and the first is the revision.
    Raises ApplicationError, naming the field, for a judgement that is not one of this task.
    """
    task = assignment.task
    if task.kind != kind.kind:
        raise ApplicationError(
            gettext("This is a %(kind)s task, not a %(kind_2)s one.")
            % {"kind": task.kind, "kind_2": kind.kind}
        )
    form: Any = form_of(task.project, task.kind)
    shown = shown_order(assignment=assignment)
    judgement = kind.check(Asked(assignment=assignment, form=form, shown=shown), judgement)
    _common_check(form, rationale, active_s)

    # What can be refused was: no savepoint, and the rows are locked for the writing alone.
    with transaction.atomic(savepoint=False):
        (now_locked,) = _LOCKED.objects(assignment=assignment.pk)
        state = now_locked.state
        # Only now: a query that had to wait for the lock would not see what the other one made.
        made = _SUBMISSION.rows(assignment=assignment.pk)
        rows_before = Submission.objects.select_related("task")
        before = rows_before.get(pk=made[0][0]) if made else None
        if before is not None and state == State.SUBMITTED:
            return _submitted_again(before, judgement, rationale)
        now = timezone.now()
        given = {
            "status": _status_settle(now_locked.task, held_slot=state in Assignment.HOLDING),
            "source": assignment.annotator.source,
            "shown_order": shown,
            "active_s": active_s,
            "first_move_s": first_move_s,
            "rationale": rationale,
        }
        assignment.state, assignment.ended_at = State.SUBMITTED, now
        assignment.active_s, assignment.skip_reason = active_s, ""
        _SUBMITTED.run(assignment=assignment.pk, now=now, active_s=active_s)
        if before is None:
            submission = row_insert(
                Submission(
                    assignment=assignment, task=task, annotator_id=assignment.annotator_id, **given
                )
            )
        else:
            _revise(before, payload_of(before), {**judgement, "rationale": rationale})
            # The judgement that stands was made now.
            Submission.objects.filter(pk=before.pk).update(created_at=now, **given)
            for rows in kind.rows:
                rows._default_manager.filter(submission=before).delete()
            submission = Submission.objects.select_related("task").get(pk=before.pk)
        kind.keep(submission, judgement)
        return Settled(submission=submission, stands=True)


@transaction.atomic
def submission_undo(*, assignment: Assignment) -> Assignment:
    """Take a submission back, within UNDO_S seconds of it, and go on with it as a draft.

    The slot stays taken, if it was; a surplus submission tries to get one. Asked twice, the second
    time changes nothing. Raises ConflictError when it is too late: the time is over, a reviewer has
    been there, or the task has closed.
    """
    assignment = Assignment.objects.select_for_update(no_key=True).get(pk=assignment.pk)
    submission = Submission.objects.select_related("task").filter(assignment=assignment).first()
    if submission is None:
        raise ConflictError(gettext("There is nothing to undo: this task was not submitted."))
    if submission.task.is_qualification:
        raise ConflictError(gettext("This task was part of the test, and its answer was told."))
    if assignment.state in Assignment.HOLDING and submission.status == Status.WITHDRAWN:
        return assignment
    limit = timedelta(seconds=UNDO_S + _UNDO_GRACE_S)
    if (
        assignment.state != State.SUBMITTED
        or assignment.ended_at is None
        or timezone.now() - assignment.ended_at > limit
    ):
        raise ConflictError(
            gettext("A submission is taken back within %(undo_s)s seconds.")
            % {"undo_s": f"{UNDO_S:.0f}"}
        )
    if submission.reviews.exists():
        raise ConflictError(gettext("A reviewer has seen this submission already."))
    return submission_reopen(submission=submission)


@transaction.atomic
def submission_reopen(*, submission: Submission) -> Assignment:
    """Withdraw a submission and give its task back to its annotator, the judgement as the draft.

    Raises ConflictError if the task has closed, or if it was withdrawn before.
    """
    submission = Submission.objects.select_related("task").get(pk=submission.pk)
    assignment = Assignment.objects.select_for_update(no_key=True).get(pk=submission.assignment_id)
    task = Task.objects.select_for_update(no_key=True).get(pk=submission.task_id)
    if task.closed_at is not None:
        raise ConflictError(gettext("The task has closed: what was submitted stands."))
    withdrawn = Submission.objects.filter(pk=submission.pk).exclude(status=Status.WITHDRAWN)
    if not withdrawn.update(status=Status.WITHDRAWN):
        raise ConflictError(gettext("This submission was taken back already."))
    held_slot = submission.status == Status.ACCEPTED
    submission.status = Status.WITHDRAWN
    document_judgement_hand_down(submission=submission)
    has_slot = held_slot or slot_take(task_id=task.pk)
    assignment.state = State.LIVE if has_slot else State.EXPIRED
    assignment.ended_at = None if has_slot else timezone.now()
    assignment.lease_until = timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_S)
    assignment.draft = _draft_of(submission)
    assignment.draft_sequence += 1
    assignment.save(update_fields=["state", "ended_at", "lease_until", "draft", "draft_sequence"])
    return assignment


def payload_of(submission: Submission) -> dict[str, Any]:
    """A submission's judgement and reason in their one form, as revisions and drafts hold them."""
    return {**judgement_of(submission), "rationale": submission.rationale}


def _draft_of(submission: Submission) -> dict[str, Any]:
    """A submission to go on with, the names hidden that its annotator has never seen."""
    draft = payload_of(submission)
    for written in (draft, draft.get("rewrite") or {}):
        uid = written.get("original") or written.get("started_from")
        if uid is not None:
            original = Candidate.objects.get(uid=uid).text
            written["text"] = identity_hide(written["text"], original=original)
    return draft


def _common_check(form: Form, rationale: str, active_s: float) -> None:
    if len(rationale) > MAX_RATIONALE_CHARS:
        raise ApplicationError(
            gettext("A reason is at most %(max_rationale_chars)s characters.")
            % {"max_rationale_chars": MAX_RATIONALE_CHARS},
            {"field": "rationale"},
        )
    if form.rationale == "required" and not rationale.strip():
        raise ApplicationError(
            gettext("Say why: this project asks for a reason."), {"field": "rationale"}
        )
    if not 0 <= active_s <= MAX_ACTIVE_S:
        raise ApplicationError(
            gettext("active_s is 0 to %(max_active_s)s seconds; got %(active_s)s.")
            % {"max_active_s": f"{MAX_ACTIVE_S:.0f}", "active_s": active_s},
            {"field": "active_s"},
        )


# An assignment and its task, as they are now; locked in this order.
_LOCKED = PreparedObjects(
    lambda assignment: (
        Assignment.objects.select_for_update(no_key=True, of=("self", "task"))
        .filter(pk=assignment)
        .order_by("pk")
        .select_related("task")
        .only("state", "task__closed_at")
    ),
    numbers=("assignment",),
)
_SUBMITTED = PreparedUpdate(
    lambda assignment, now, active_s: (
        Assignment.objects.filter(pk=assignment),
        {"state": State.SUBMITTED, "ended_at": now, "active_s": active_s, "skip_reason": ""},
    ),
    numbers=("assignment", "active_s"),
    times=("now",),
)
_SUBMISSION = Prepared(
    lambda assignment: (
        Submission.objects.filter(assignment=assignment).order_by("pk").values_list("pk")
    ),
    numbers=("assignment",),
)


def _status_settle(task: Task, *, held_slot: bool) -> str:
    """accepted or surplus; a task keeps as many accepted submissions as slots were taken."""
    if task.closed_at is None and (held_slot or slot_take(task_id=task.pk)):
        return Status.ACCEPTED
    if held_slot:
        slot_return(task_id=task.pk)
    return Status.SURPLUS


def _submitted_again(submission: Submission, judgement: dict[str, Any], rationale: str) -> Settled:
    payload, standing = {**judgement, "rationale": rationale}, payload_of(submission)
    _revise(submission, payload, standing)
    return Settled(submission=submission, stands=payload == standing)


def _revise(submission: Submission, payload: dict[str, Any], standing: dict[str, Any]) -> None:
    """Keep a payload beside the one that stands, once."""
    if payload != standing and payload not in [
        revision.payload for revision in submission.revisions.all()
    ]:
        SubmissionRevision.objects.create(submission=submission, payload=payload)
