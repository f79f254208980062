"""Questions: an annotator in doubt asks the reviewers; the task waits for the answer."""

from collections.abc import Iterable

from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from annotation.models import Assignment, Membership, Notification, Question
from annotation.policy import role_reaches
from annotation.services.assignments import assignment_pause
from modelhub.errors import ApplicationError, ConflictError, RefusedError

MAX_QUESTION_CHARS = 5_000
_SHOWN_CHARS = 200


@transaction.atomic
def question_ask(*, assignment: Assignment, text: str) -> Question:
    """Put a question about a task to the reviewers, and let the task wait with its slot and draft.

    Every reviewer and manager of the project is notified. The same words again, while they wait
    for an answer, are the same question. Raises ConflictError for a task that is over.
    """
    text = _text_check(text)
    paused = assignment_pause(assignment=assignment)
    waiting = Question.objects.filter(assignment=paused, answered_at=None, text=text).first()
    if waiting is not None:
        return waiting
    question = Question.objects.create(assignment=paused, text=text)
    project = assignment.annotator.project
    reviewers = Membership.objects.filter(project=project, removed_at=None).exclude(
        pk=assignment.annotator_id
    )
    _tell(
        (one for one in reviewers if role_reaches(one.role, Membership.Role.REVIEWER)),
        f"{assignment.annotator.user} asks: {text}",
        reverse("project_questions", args=[project.uid]),
    )
    return question


@transaction.atomic
def question_answer(*, question: Question, reviewer: Membership, text: str) -> Question:
    """Answer a question. Its annotator is notified, and gets the task again before any other.

    Raises RefusedError for whoever is no reviewer of the project or asked it, and ConflictError
    if it was answered before.
    """
    text = _text_check(text)
    asker = question.assignment.annotator
    if (
        reviewer.project_id != asker.project_id
        or reviewer.removed_at is not None
        or not role_reaches(reviewer.role, Membership.Role.REVIEWER)
    ):
        raise RefusedError("Reviewers of the project answer questions.")
    if reviewer.pk == asker.pk:
        raise RefusedError("Somebody else answers your question.")
    answered = {"answer": text, "answered_by": reviewer, "answered_at": timezone.now()}
    if not Question.objects.filter(pk=question.pk, answered_at=None).update(**answered):
        raise ConflictError("This question was answered already.")
    _tell(
        [asker],
        f"Your question was answered: {text}",
        reverse("annotate", args=[asker.project.uid]),
    )
    question.refresh_from_db()
    return question


def _text_check(text: str) -> str:
    text = text.strip()
    if not text or len(text) > MAX_QUESTION_CHARS:
        raise ApplicationError(f"Wanted 1 to {MAX_QUESTION_CHARS} characters.", {"field": "text"})
    return text


def _tell(recipients: Iterable[Membership], text: str, path: str) -> None:
    line = " ".join(text.split())
    if len(line) > _SHOWN_CHARS:
        line = line[: _SHOWN_CHARS - 1] + "…"
    Notification.objects.bulk_create(
        Notification(recipient=recipient, text=line, path=path) for recipient in recipients
    )
