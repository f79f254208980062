"""Which tasks are open, for whom and in which order, and how far a batch's judging is."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Exists, OuterRef, QuerySet, Sum
from django.db.models.functions import Coalesce

from annotation.models import (
    Assignment,
    Candidate,
    CandidateBatch,
    Membership,
    Submission,
    Task,
    TaskCandidate,
)
from annotation.shown_order import order_shuffled
from modelhub.models import Run


def tasks_open(*, membership: Membership) -> QuerySet[Task]:
    """The tasks with a free slot that this member never had, in the order they are handed out.

    The index task_open holds exactly the open rows in this order: the first is found, not sorted.
    """
    had = Assignment.objects.filter(task=OuterRef("pk"), annotator=membership)
    return Task.objects.filter(
        ~Exists(had), project=membership.project_id, slots_free__gt=0, closed_at__isnull=True
    ).order_by("-priority", "id")


def shown_order(*, assignment: Assignment) -> list[str]:
    """Candidate uids in the order this annotator sees them. One query."""
    uids = TaskCandidate.objects.filter(task=assignment.task_id).values_list(
        "candidate__uid", flat=True
    )
    return order_shuffled(uids, seed=assignment.shuffle_seed)


def batches_to_ingest() -> QuerySet[CandidateBatch]:
    """Batches whose answers are written and not yet taken in. One query."""
    return CandidateBatch.objects.filter(
        ingested_at=None, run__status=Run.Status.SUCCEEDED
    ).order_by("pk")


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    """How far the judging of a batch is. Slots are people wanted: tasks × overlap."""

    prompts: int
    candidates: int
    tasks: int
    prompts_without_task: int  # their answers were all the same
    slots: int
    slots_free: int
    live: int
    accepted: int
    surplus: int
    skipped: int

    @property
    def is_complete(self) -> bool:
        """Every slot holds an accepted submission."""
        return self.slots_free == 0 and self.live == 0


def batch_progress(*, batch: CandidateBatch) -> BatchProgress:
    """Where the judging of a batch stands. Four queries, each over the batch's rows."""
    tasks = batch.tasks.aggregate(
        tasks=Count("pk"),
        slots=Coalesce(Sum("overlap"), 0),
        slots_free=Coalesce(Sum("slots_free"), 0),
    )
    prompts = Candidate.objects.filter(batch=batch).aggregate(
        candidates=Count("pk"), prompts=Count("prompt", distinct=True)
    )
    states = _counted(Assignment.objects.filter(task__batch=batch), "state")
    statuses = _counted(Submission.objects.filter(task__batch=batch), "status")
    return BatchProgress(
        **tasks,
        **prompts,
        prompts_without_task=prompts["prompts"] - tasks["tasks"] if batch.overlap else 0,
        live=states.get(Assignment.State.LIVE, 0),
        skipped=states.get(Assignment.State.SKIPPED, 0),
        accepted=statuses.get(Submission.Status.ACCEPTED, 0),
        surplus=statuses.get(Submission.Status.SURPLUS, 0),
    )


def _counted(rows: QuerySet[Any], field: str) -> dict[str, int]:
    """How many rows there are of each value of a field. One query."""
    return dict(rows.order_by().values_list(field).annotate(Count("pk")))
