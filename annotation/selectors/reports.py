"""What was reported of a project's tasks."""

from django.db.models import F, QuerySet

from annotation.models import Project, Report

REPORTS_AT_MOST = 200


def reports_of(*, project: Project) -> QuerySet[Report]:
    """The project's reports, those that wait first, then the newest. One query."""
    return (
        Report.objects.filter(task__project=project)
        .select_related("task__prompt", "reporter__user", "decided_by__user")
        .order_by(F("decided_at").desc(nulls_first=True), "-id")[:REPORTS_AT_MOST]
    )


def reports_waiting(*, project: Project) -> int:
    """How many of the project's reports nobody has decided. One query."""
    return Report.objects.filter(task__project=project, decided_at=None).count()
