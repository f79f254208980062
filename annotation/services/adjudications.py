"""Adjudications: where people disagreed, a reviewer says whose judgement stands."""

from django.db import transaction
from django.utils.translation import gettext

from annotation.models import Adjudication, Membership, Submission, Task
from annotation.services.reviews import MAX_REASON_CHARS, reviewer_check
from modelhub.errors import ApplicationError, RefusedError

STANDING = (Submission.Status.ACCEPTED, Submission.Status.SURPLUS)


@transaction.atomic
def adjudication_submit(
    *, task: Task, reviewer: Membership, submission: Submission, reason: str = ""
) -> Adjudication:
    """Decide which of a task's submissions stands; a later decision takes an earlier one's place.

    The submissions stay as they are: who reads them for training asks for the one that stands.
    Raises RefusedError for whoever is no reviewer here or judged this task, ApplicationError for a
    submission of another task, or one that was rejected or taken back.
    """
    reviewer_check(reviewer=reviewer, project_id=task.project_id)
    if Submission.objects.filter(task=task, annotator__user_id=reviewer.user_id).exists():
        raise RefusedError(gettext("You judged this task yourself: somebody else decides it."))
    reason = reason.strip()
    if len(reason) > MAX_REASON_CHARS:
        raise ApplicationError(
            gettext("A reason is at most %(max_reason_chars)s characters.")
            % {"max_reason_chars": MAX_REASON_CHARS},
            {"field": "reason"},
        )
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    submission.refresh_from_db(fields=["status"])
    if submission.task_id != task.pk or submission.status not in STANDING:
        raise ApplicationError(
            gettext("Choose one of the judgements of this task that count."),
            {"field": "submission"},
        )
    adjudication, _ = Adjudication.objects.update_or_create(
        task=task, defaults={"reviewer": reviewer, "submission": submission, "reason": reason}
    )
    return adjudication
