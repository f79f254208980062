"""What annotators asked the reviewers."""

from django.db.models import F, QuerySet

from annotation.models import Project, Question

QUESTIONS_AT_MOST = 200


def questions_of(*, project: Project) -> QuerySet[Question]:
    """The project's questions, those without an answer first, then the newest. One query."""
    return (
        Question.objects.filter(assignment__task__project=project)
        .select_related(
            "assignment__annotator__user", "assignment__task__prompt", "answered_by__user"
        )
        .order_by(F("answered_at").desc(nulls_first=True), "-id")[:QUESTIONS_AT_MOST]
    )


def questions_waiting(*, project: Project) -> int:
    """How many of the project's questions have no answer. One query."""
    return Question.objects.filter(assignment__task__project=project, answered_at=None).count()
