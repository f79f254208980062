"""Reviews: accept, reject with a reason, send back. Nobody reviews their own work."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction
from django.urls import reverse
from django.utils.translation import gettext, gettext_noop

from annotation.models import Assignment, Membership, Review, Submission, Task
from annotation.policy import role_reaches
from annotation.services.assignments import assignment_pause, slot_return, slot_take
from annotation.services.documents import document_judgement_hand_down
from annotation.services.notifications import notification_send
from annotation.services.submissions import submission_reopen
from modelhub.errors import ApplicationError, ConflictError, RefusedError

Status = Submission.Status
Verdict = Review.Verdict
MAX_REASON_CHARS = 5_000


@dataclass(frozen=True, kw_only=True)
class BulkReview:
    """What became of many submissions accepted at once."""

    accepted: int
    own: int  # the reviewer's own, passed over
    gone: int  # withdrawn meanwhile


@transaction.atomic
def review_submit(
    *, submission: Submission, reviewer: Membership, verdict: str, reason: str = ""
) -> Review:
    """Say of somebody else's submission whether it counts; the newest review decides.

    accept: it counts, if its task has room. reject: it does not, and its slot is free for another
    person. send_back: it is its annotator's draft again, and waits with its slot until they come.
    The annotator is told of the last two, with the reason, which both need.
    Raises RefusedError for one's own submission or for whoever is no reviewer here, ConflictError
    for one that is withdrawn (it waits for its annotator), ApplicationError naming the field.
    """
    reviewer_check(reviewer=reviewer, project_id=submission.task.project_id)
    if submission.annotator_id == reviewer.pk or submission.annotator.user_id == reviewer.user_id:
        raise RefusedError(gettext("This is your own work: somebody else reviews it."))
    if verdict not in Verdict.values:
        raise ApplicationError(
            gettext("A verdict is one of %(names)s; got %(verdict)s.")
            % {"names": ", ".join(Verdict.values), "verdict": f"{verdict!r}"},
            {"field": "verdict"},
        )
    reason = reason.strip()
    if len(reason) > MAX_REASON_CHARS:
        raise ApplicationError(
            gettext("A reason is at most %(max_reason_chars)s characters.")
            % {"max_reason_chars": MAX_REASON_CHARS},
            {"field": "reason"},
        )
    if verdict != Verdict.ACCEPT and not reason:
        raise ApplicationError(
            gettext("Say why: the annotator reads it and learns from it."), {"field": "reason"}
        )
    # Locked in the order of every submission: assignment, task.
    Assignment.objects.select_for_update(no_key=True).get(pk=submission.assignment_id)
    submission.refresh_from_db(fields=["status"])
    if submission.status == Status.WITHDRAWN:
        raise ConflictError(gettext("This was taken back meanwhile: its annotator is at it again."))
    review = Review.objects.create(
        submission=submission, reviewer=reviewer, verdict=verdict, reason=reason
    )
    if verdict == Verdict.ACCEPT:
        _accept(submission)
    elif verdict == Verdict.REJECT:
        _reject(submission)
    else:
        assignment = submission_reopen(submission=submission)
        if assignment.state == Assignment.State.LIVE:
            # Not on a lease of minutes: the annotator may come tomorrow.
            assignment_pause(assignment=assignment)
    if verdict != Verdict.ACCEPT:
        _tell(submission, verdict, reason)
    submission.refresh_from_db(fields=["status"])
    document_judgement_hand_down(submission=submission)
    return review


def submissions_accept(*, submissions: Iterable[Submission], reviewer: Membership) -> BulkReview:
    """Accept many submissions, each in its own transaction; one's own are passed over."""
    accepted = own = gone = 0
    for submission in submissions:
        try:
            review_submit(submission=submission, reviewer=reviewer, verdict=Verdict.ACCEPT)
            accepted += 1
        except RefusedError:
            own += 1
        except ConflictError:
            gone += 1
    return BulkReview(accepted=accepted, own=own, gone=gone)


def reviewer_check(*, reviewer: Membership, project_id: int) -> None:
    """Raise RefusedError unless this is a standing reviewer, or manager, of the project."""
    standing = reviewer.removed_at is None and reviewer.project_id == project_id
    if not standing or not role_reaches(reviewer.role, Membership.Role.REVIEWER):
        raise RefusedError(gettext("Only this project's reviewers do that."))


def _accept(submission: Submission) -> None:
    if submission.status == Status.ACCEPTED:
        return
    task = Task.objects.select_for_update(no_key=True).get(pk=submission.task_id)
    counts = task.closed_at is None and slot_take(task_id=task.pk)
    Submission.objects.filter(pk=submission.pk).update(
        status=Status.ACCEPTED if counts else Status.SURPLUS
    )


def _reject(submission: Submission) -> None:
    had_slot = Submission.objects.filter(pk=submission.pk, status=Status.ACCEPTED)
    if had_slot.update(status=Status.REJECTED):
        slot_return(task_id=submission.task_id)
    else:
        Submission.objects.filter(pk=submission.pk).update(status=Status.REJECTED)


def _tell(submission: Submission, verdict: str, reason: str) -> None:
    uid = submission.task.project.uid
    if verdict == Verdict.SEND_BACK:
        line, path = gettext_noop("Sent back to you: %(reason)s"), reverse("annotate", args=[uid])
    else:
        line = gettext_noop("Rejected: %(reason)s")
        path = reverse("project_dashboard", args=[uid])
    notification_send(
        recipients=[submission.annotator], text=line, values={"reason": reason}, path=path
    )
