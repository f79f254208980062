"""Which tasks are open, for whom and in which order, and how far a batch's judging is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.db.models import Count, Exists, IntegerField, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from annotation.gold import gold_due
from annotation.models import (
    COVERED,
    GOLD,
    KNOWN,
    OPEN,
    QUALIFICATION,
    WORK,
    Assignment,
    Candidate,
    CandidateBatch,
    Membership,
    Project,
    Submission,
    Task,
    TaskCandidate,
)
from annotation.shown_order import order_shuffled
from modelhub.models import Run
from modelhub.prepared import Prepared, PreparedObjects

WINDOW = 64
# What comes first in each order, and whether from its highest value; the oldest among equals.
_LEVELS = {
    Project.Order.PRIORITY: ("priority", True),
    Project.Order.RANDOM: ("lottery", False),
    Project.Order.LEAST_COVERED: ("covered", False),
    Project.Order.DOUBT: ("doubt", True),
}


def tasks_open(*, membership: Membership, queue: Q = WORK) -> QuerySet[Task]:
    """The tasks with a free slot that this member never had, in the project's order.

    `queue` is WORK, GOLD or QUALIFICATION: three queues with no task in common; the last two come
    at random. Each order has an index of the open rows: the first is found, not sorted for. A
    member far ahead of the others pays for each task they had that is still open: see
    `tasks_open_in_turn`.
    """
    return _never_had(membership.project_id, membership.pk, queue, *_level(membership, queue))


def tasks_open_in_turn(
    *, membership: Membership, queue: Q = WORK, window: int = WINDOW
) -> Iterator[QuerySet[Task]]:
    """`tasks_open` as querysets to try one after the other; the first that has a row has the next.

    First, those among the first `window` of the queue: whatever is urgent is there, and unless the
    member is far ahead, so is their next task. Then those that come after the one last handed out
    to them, so that what they had and others did not is not walked again each time. At last all.
    """
    level, descending = _level(membership, queue)
    project, annotator = membership.project_id, membership.pk
    yield _window(project, annotator, queue, level, descending, window)
    tasks = tasks_open(membership=membership, queue=queue)
    for pk, value in _last(queue, level).rows(annotator=annotator):
        yield _after(tasks, level, descending, at=value, pk=pk)
        yield _after(tasks, level, descending, at=value)
    yield tasks


def task_next_lock(*, membership: Membership, queue: Q = WORK) -> Task | None:
    """The member's next task, locked, with its prompt; None if there is none but, perhaps, behind.

    The same tasks in the same turn as `tasks_open_in_turn`, all but its last piece; each query is
    compiled once. One query, where the member is not far ahead; else three or four.
    """
    level, descending = _level(membership, queue)
    for piece, values in _turns(membership, queue, level):
        task = _picked(queue, level, descending, piece).first(**values)
        if task is not None:
            return task
    return None


def tasks_open_count(*, membership: Membership, queue: Q = WORK, most: int) -> int:
    """How many tasks the member could be given now, counted up to `most`.

    One query, over the first of the queue; two or three more where the member had all of those.
    """
    level, descending = _level(membership, queue)
    for piece, values in _turns(membership, queue, level):
        ((count,),) = _piece_counted(queue, level, descending, piece, most).rows(**values)
        if count:
            return int(count)
    return tasks_open(membership=membership, queue=queue)[:most].count()


def tasks_in_front(*, membership: Membership, queue: Q = WORK, window: int) -> Subquery:
    """How many of the first `window` open tasks the member never had, as a part of another query.

    Of the index and the member's own assignments alone: no task is read.
    """
    level, descending = _level(membership, queue)
    front = _front(membership.project_id, queue, level, descending)
    had = Exists(Assignment.objects.filter(task=OuterRef("pk"), annotator=membership.pk))
    return _NotHad(front.values("pk", had=had)[:window])


def _turns(membership: Membership, queue: Q, level: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pieces of the queue to try for a member, one after the other, with their values."""
    who = {"project": membership.project_id, "annotator": membership.pk}
    yield "first", who
    for pk, value in _last(queue, level).rows(annotator=membership.pk):
        yield "equal", {**who, "at": value, "pk": pk}
        yield "beyond", {**who, "at": value}


_PLACES: dict[str, tuple[str, ...]] = {"first": (), "equal": ("at", "pk"), "beyond": ("at",)}


@cache
def _picked(queue: Q, level: str, descending: bool, piece: str) -> PreparedObjects[Task]:
    def build(**values: Any) -> QuerySet[Task]:
        tasks = _piece(queue, level, descending, piece, WINDOW, **values)
        locked = tasks.select_for_update(skip_locked=True, no_key=True, of=("self",))
        return locked.select_related("prompt")[:1]

    return PreparedObjects(build, numbers=("project", "annotator", *_PLACES[piece]))


@cache
def _piece_counted(queue: Q, level: str, descending: bool, piece: str, most: int) -> Prepared:
    def build(**values: Any) -> QuerySet[Any, Any]:
        tasks = _piece(queue, level, descending, piece, most, **values)
        return Membership.objects.filter(pk=values["annotator"]).values_list(Counted(tasks[:most]))

    return Prepared(build, numbers=("project", "annotator", *_PLACES[piece]))


def _piece(
    queue: Q,
    level: str,
    descending: bool,
    piece: str,
    window: int,
    *,
    project: int,
    annotator: int,
    **place: Any,
) -> QuerySet[Task]:
    if piece == "first":
        return _window(project, annotator, queue, level, descending, window)
    tasks = _never_had(project, annotator, queue, level, descending)
    return _after(tasks, level, descending, **place)


@cache
def _last(queue: Q, level: str) -> Prepared:
    """Of the task of a queue last handed out to a member: its key, and its level then."""

    def build(annotator: int) -> QuerySet[Any, Any]:
        return (
            Task.objects.filter(queue, assignments__annotator=annotator)
            .annotate(covered=COVERED - 1)  # as it was before it was handed out
            .order_by("-assignments__id")
            .values_list("pk", level)[:1]
        )

    return Prepared(build, numbers=("annotator",))


def _never_had(
    project: int, annotator: int, queue: Q, level: str, descending: bool
) -> QuerySet[Task]:
    """The open tasks of a queue that a member never had, in its order."""
    had = Assignment.objects.filter(task=OuterRef("pk"), annotator=annotator)
    return _front(project, queue, level, descending).filter(~Exists(had))


def _after(
    tasks: QuerySet[Task], level: str, descending: bool, *, at: Any, pk: int | None = None
) -> QuerySet[Task]:
    """Those at a level that are younger than a task; without a task, those beyond the level."""
    if pk is not None:
        return tasks.filter(**{level: at, "pk__gt": pk})
    return tasks.filter(**{f"{level}__{'lt' if descending else 'gt'}": at})


def _window(
    project: int, annotator: int, queue: Q, level: str, descending: bool, window: int
) -> QuerySet[Task]:
    """Those among the first `window` open tasks of the queue that a member never had.

    Nothing outside the window says that they are open, but for the slot that another transaction
    may have taken meanwhile: else a database would walk the index of all open tasks, asking of
    each whether it is one of the window, and a member who had those would pay for the whole queue.
    """
    had = Assignment.objects.filter(task=OuterRef("pk"), annotator=annotator)
    few = _Few(_front(project, queue, level, descending).values("pk")[:window])
    tasks = Task.objects.filter(~Exists(had), pk__in=few, slots_free__gt=0)
    return _ordered(tasks, level, descending)


def _front(project: int, queue: Q, level: str, descending: bool) -> QuerySet[Task]:
    """The open tasks of a queue, in its order, whoever had them."""
    return _ordered(Task.objects.filter(OPEN, queue, project=project), level, descending)


def _ordered(tasks: QuerySet[Task], level: str, descending: bool) -> QuerySet[Task]:
    return tasks.alias(covered=COVERED).order_by(f"-{level}" if descending else level, "id")


class Counted(Subquery):
    """How many rows a query has, its limit kept, as a part of another."""

    template = "(SELECT COUNT(*) FROM (%(subquery)s) AS counted)"
    output_field = IntegerField()

    def __init__(self, rows: QuerySet[Any]) -> None:
        super().__init__(rows.values("pk"))


class _NotHad(Subquery):
    """How many rows of a query do not say `had`."""

    template = "(SELECT COUNT(*) FROM (%(subquery)s) AS front WHERE NOT front.had)"
    output_field = IntegerField()


class _Few(Subquery):
    """Keys that are few. PostgreSQL would not guess it, and read the whole table beside them."""

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return self.as_sql(compiler, connection, "(SELECT unnest(ARRAY(%(subquery)s)))")


def queues_of(*, membership: Membership) -> list[Q]:
    """The queues a member is given tasks from now, the first that has one. Two queries at most.

    Before the test is passed it is the test alone. After it the work, in which tasks with a known
    answer are mixed so that they are the project's share of what this person is given.
    """
    project = membership.project
    if qualification_is_wanted(membership=membership):
        return [QUALIFICATION]
    if not project.gold_share:
        return [WORK]
    given = Assignment.objects.filter(annotator=membership).count()
    known = Task.objects.filter(
        KNOWN, project=project, assignments__annotator=membership
    ).aggregate(tests=Count("pk", filter=QUALIFICATION), gold=Count("pk", filter=GOLD))
    due = gold_due(
        handed_out=given - known["tests"],
        gold_handed_out=known["gold"],
        share=project.gold_share,
        seed=membership.uid,
    )
    return [GOLD, WORK] if due else [WORK]


def qualification_is_wanted(*, membership: Membership) -> bool:
    """Whether the member has still to pass the project's test before real work. No query."""
    return (
        membership.project.qualification_pass > 0
        and membership.qualified_at is None
        and membership.role == Membership.Role.ANNOTATOR
        and membership.source == Membership.Source.PERSON
    )


def _level(membership: Membership, queue: Q) -> tuple[str, bool]:
    if queue != WORK:
        return _LEVELS[Project.Order.RANDOM]
    return _LEVELS[Project.Order(membership.project.queue_order)]


def shown_order(*, assignment: Assignment) -> list[str]:
    """Candidate uids in the order this annotator sees them. One query."""
    uids = [uid for (uid,) in _UIDS.rows(task=assignment.task_id)]
    return order_shuffled(uids, seed=assignment.shuffle_seed)


_UIDS = Prepared(
    lambda task: (
        TaskCandidate.objects.filter(task=task).order_by("position").values_list("candidate__uid")
    ),
    numbers=("task",),
)


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
        live=sum(states.get(state, 0) for state in Assignment.HOLDING),
        skipped=states.get(Assignment.State.SKIPPED, 0),
        accepted=statuses.get(Submission.Status.ACCEPTED, 0),
        surplus=statuses.get(Submission.Status.SURPLUS, 0),
    )


def _counted(rows: QuerySet[Any], field: str) -> dict[str, int]:
    """How many rows there are of each value of a field. One query."""
    return dict(rows.order_by().values_list(field).annotate(Count("pk")))
