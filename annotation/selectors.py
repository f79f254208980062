"""What is read of annotation's rows. Each says which queries it costs."""

from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from annotation.models import (
    Assignment,
    Candidate,
    CandidateBatch,
    Membership,
    Project,
    Submission,
    Task,
    TaskCandidate,
)
from annotation.rendering import markdown_render, messages_render, words_count
from annotation.shown_order import order_shuffled
from modelhub.models import Run


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


OPEN_AT_MOST = 200


@dataclass(frozen=True, kw_only=True)
class AnnotatorProgress:
    """What an annotator has done in a project, and what waits for them."""

    submitted: int
    submitted_today: int  # since midnight, UTC
    open: int  # tasks this person could be given now; counted up to OPEN_AT_MOST


def annotator_progress(*, membership: Membership) -> AnnotatorProgress:
    """Two queries: over the annotator's submissions, and over at most OPEN_AT_MOST open tasks."""
    midnight = timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    done = Submission.objects.filter(annotator=membership).aggregate(
        submitted=Count("pk"), submitted_today=Count("pk", filter=Q(created_at__gte=midnight))
    )
    waiting = tasks_open(membership=membership)[:OPEN_AT_MOST].count()
    return AnnotatorProgress(**done, open=waiting)


def tasks_open(*, membership: Membership) -> QuerySet[Task]:
    """The tasks with a free slot that this member never had, in the order they are handed out.

    The index task_open holds exactly the open rows in this order: the first is found, not sorted.
    """
    had = Assignment.objects.filter(task=OuterRef("pk"), annotator=membership)
    return Task.objects.filter(
        ~Exists(had), project=membership.project_id, slots_free__gt=0, closed_at__isnull=True
    ).order_by("-priority", "id")


def rank_payload(*, assignment: Assignment) -> dict[str, Any]:
    """All that the ranking page shows of an assignment, as JSON; seven queries.

    Blind: answers come in the shown order, under letters, without the model or the sampling that
    made them. HTML is rendered and safe (annotation.rendering); lengths are in words.
    """
    task = assignment.task
    texts = dict(
        TaskCandidate.objects.filter(task=task).values_list("candidate__uid", "candidate__text")
    )
    guideline = assignment.guideline
    progress = annotator_progress(membership=assignment.annotator)
    return {
        "assignment": {
            "uid": assignment.uid,
            "state": assignment.state,
            "lease_until": assignment.lease_until.isoformat(),
            "draft": assignment.draft,
            "draft_sequence": assignment.draft_sequence,
        },
        "task": {"uid": task.uid, "kind": task.kind},
        "prompt": {"messages": messages_render(task.prompt.messages)},
        "candidates": [
            {
                "uid": uid,
                "letter": letter_of(place),
                "html": markdown_render(texts[uid]),
                "words": words_count(texts[uid]),
            }
            for place, uid in enumerate(order_shuffled(texts, seed=assignment.shuffle_seed))
        ],
        "guideline": guideline
        and {"number": guideline.number, "html": markdown_render(guideline.text)},
        "progress": asdict(progress),
    }


def letter_of(place: int) -> str:
    """A, B, …, Z, AA, AB, …: what the answer shown at a place (from 0) is called."""
    letters = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def memberships_of(*, user: User) -> QuerySet[Membership]:
    """The person's standing memberships with their projects, by the project's name. One query."""
    return (
        Membership.objects.filter(user=user, removed_at=None)
        .select_related("project")
        .order_by("project__name", "pk")
    )


def members(*, project: Project) -> QuerySet[Membership]:
    """The standing members of a project with their users, by name. One query."""
    return (
        Membership.objects.filter(project=project, removed_at=None)
        .select_related("user")
        .order_by("user__username")
    )
