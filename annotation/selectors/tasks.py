"""How many tasks of each kind a project has, and which of them somebody has now."""

from collections import Counter
from dataclasses import dataclass

from django.db.models import Count, Sum

from annotation.models import OPEN, WORK, Assignment, Project, Task


@dataclass(frozen=True, kw_only=True)
class TaskCount:
    """The tasks of one kind, but known answers and mirrored pairs. Slots are people wanted."""

    kind: str
    label: str
    tasks: int
    open: int  # still handed out
    slots: int
    judged: int  # slots that a judgement holds, and nobody who is still at it


@dataclass(frozen=True, kw_only=True)
class TaskHeld:
    """A task that somebody has now, judged by them not yet."""

    kind: str
    overlap: int
    slots_free: int
    held: int  # slots of those who have it
    is_stopped: bool  # closed, or held for a reviewer


def tasks_held(*, project: Project) -> list[TaskHeld]:
    """The tasks that somebody has now: as many as people work, however many there are. One query.

    A slot that is not free is held by a judgement that counts or by an assignment: what of them
    are judgements is known from these few rows, without a look at every submission.
    """
    rows = (
        Assignment.objects.filter(
            task__in=Task.objects.filter(WORK, project=project), state__in=Assignment.HOLDING
        )
        .order_by()
        .values_list(
            *("task", "task__kind", "task__overlap", "task__slots_free"),
            *("task__closed_at", "task__held_at"),
        )
        .annotate(held=Count("pk"))
    )
    return [
        TaskHeld(
            kind=kind,
            overlap=overlap,
            slots_free=slots_free,
            held=held,
            is_stopped=closed_at is not None or held_at is not None,
        )
        for _, kind, overlap, slots_free, closed_at, held_at, held in rows
    ]


def task_counts(*, project: Project) -> list[TaskCount]:
    """Every kind in the order of Task.Kind, also those without a task. Two queries."""
    held: Counter[str] = Counter()
    for one in tasks_held(project=project):
        held[one.kind] += one.held
    rows = {
        row["kind"]: row
        for row in Task.objects.filter(WORK, project=project)
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
            judged=row["slots"] - row["free"] - held[kind.value],
        )
        for kind in Task.Kind
        for row in [rows.get(kind.value, none)]
    ]
