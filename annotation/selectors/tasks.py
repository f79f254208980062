"""How many tasks of each kind a project has."""

from dataclasses import dataclass

from django.db.models import Count, Sum

from annotation.models import OPEN, Project, Task


@dataclass(frozen=True, kw_only=True)
class TaskCount:
    """The tasks of one kind, but known answers and mirrored pairs. Slots are people wanted."""

    kind: str
    label: str
    tasks: int
    open: int  # still handed out
    slots: int
    slots_taken: int  # by a judgement, or by somebody who has it now


def task_counts(*, project: Project) -> list[TaskCount]:
    """Every kind in the order of Task.Kind, also those without a task. One query over the tasks."""
    rows = {
        row["kind"]: row
        for row in Task.objects.filter(project=project, gold__isnull=True, mirror_of__isnull=True)
        .order_by()
        .values("kind")
        .annotate(
            tasks=Count("pk"),
            open=Count("pk", filter=OPEN),
            slots=Sum("overlap"),
            free=Sum("slots_free"),
        )
    }
    none = {"tasks": 0, "open": 0, "slots": 0, "free": 0}
    return [
        TaskCount(
            kind=kind.value,
            label=str(kind.label),
            tasks=row["tasks"],
            open=row["open"],
            slots=row["slots"],
            slots_taken=row["slots"] - row["free"],
        )
        for kind in Task.Kind
        for row in [rows.get(kind.value, none)]
    ]
