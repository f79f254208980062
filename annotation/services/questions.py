"""Questions: an annotator in doubt asks the reviewers; the task waits for the answer."""

from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop

from annotation.models import Assignment, Membership, Question
from annotation.policy import role_reaches
from annotation.services.assignments import assignment_pause
from annotation.services.notifications import notification_send, reviewers_notify
from modelhub.errors import ApplicationError, ConflictError, RefusedError

MAX_QUESTION_CHARS = 5_000


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
    reviewers_notify(
        project=project,
        text=gettext_noop("%(person)s asks: %(question)s"),
        values={"person": str(assignment.annotator.user), "question": text},
        path=reverse("project_questions", args=[project.uid]),
        besides=assignment.annotator,
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
        raise RefusedError(gettext("Reviewers of the project answer questions."))
    if reviewer.pk == asker.pk:
        raise RefusedError(gettext("Somebody else answers your question."))
    answered = {"answer": text, "answered_by": reviewer, "answered_at": timezone.now()}
    if not Question.objects.filter(pk=question.pk, answered_at=None).update(**answered):
        raise ConflictError(gettext("This question was answered already."))
    notification_send(
        recipients=[asker],
        text=gettext_noop("Your question was answered: %(answer)s"),
        values={"answer": text},
        path=reverse("annotate", args=[asker.project.uid]),
    )
    question.refresh_from_db()
    return question


def _text_check(text: str) -> str:
    text = text.strip()
    if not text or len(text) > MAX_QUESTION_CHARS:
        raise ApplicationError(
            gettext("Wanted 1 to %(max_question_chars)s characters.")
            % {"max_question_chars": MAX_QUESTION_CHARS},
            {"field": "text"},
        )
    return text
