"""Making tasks of any kind: over a batch's answers, or over prompts."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext

from annotation.models import (
    IMPORTED,
    Candidate,
    CandidateBatch,
    Project,
    Prompt,
    Task,
    TaskCandidate,
)
from annotation.task_forms import DialogueForm, form_of
from modelhub.errors import ApplicationError
from modelhub.ml.records import chunked

Kind = Task.Kind
# How many different answers a task of a kind has: at least, at most.
ANSWERS = {
    Kind.DEMONSTRATION.value: (0, 9),
    Kind.RANKING.value: (2, 9),
    Kind.PAIR.value: (2, 2),
    Kind.RATING.value: (1, 9),
    Kind.EDIT.value: (1, 9),
    Kind.DIALOGUE.value: (0, 0),
}
MAX_PRIORITY = 2**31 - 1
_ROWS_AT_A_TIME = 500


@dataclass(frozen=True, kw_only=True)
class TasksMade:
    """What became of each prompt that was asked for."""

    made: int
    existing: int  # had such a task already
    too_few: int  # have fewer different answers than the kind needs


@transaction.atomic
def tasks_create(
    *,
    project: Project,
    kind: str,
    batch: CandidateBatch | None = None,
    prompts: QuerySet[Prompt] | None = None,
    overlap: int | None = None,
    priority: int = 0,
) -> TasksMade:
    """A task of a kind for each prompt; tells how many were made, and why no more.

    With `batch`, of the prompts it answered and with its answers; else of `prompts` (the project's
    own, if none are named) with what was sampled or imported to be judged. Identical answers to a
    prompt come once, the first of them up to the most a kind takes (ANSWERS); a prompt with too few
    has no task, nor has one that has a task of this kind already, of this batch or of none. So
    asked twice it makes nothing twice. What annotators wrote to live models is asked of nobody,
    unless named.
    Dialogues want the project's two models chosen: without them nobody could do one.
    """
    if kind not in ANSWERS:
        raise ApplicationError(
            gettext("There is no kind %(kind)s.") % {"kind": f"{kind!r}"}, {"field": "kind"}
        )
    overlap = project.overlap if overlap is None else overlap
    if not 1 <= overlap <= 50:
        raise ApplicationError(
            gettext("overlap is 1 to 50 people; got %(overlap)s.") % {"overlap": overlap},
            {"field": "overlap"},
        )
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise ApplicationError(gettext("That priority is out of bounds."), {"field": "priority"})
    if batch is not None and batch.project_id != project.pk:
        raise ApplicationError(
            gettext("%(batch)s is not of this project.") % {"batch": batch}, {"field": "batch"}
        )
    form = form_of(project, kind)
    if isinstance(form, DialogueForm) and not form.sides:
        raise ApplicationError(
            gettext(
                "No models are chosen for this project’s dialogues. Choose the two on the page "
                "Settings → Kinds of task → Dialogue, or by PUT task-forms/."
            ),
            {"field": "kind"},
        )
    # Two calls at once would each find no task there.
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    if prompts is None:
        prompts = Prompt.objects.all()
        if batch is None:
            prompts = prompts.exclude(source__in=Prompt.NEVER_SAMPLED)
    asked = prompts.filter(project=project)
    if batch is not None:
        asked = asked.filter(candidates__batch=batch).distinct()
    made = existing = too_few = 0
    for some in chunked(asked.order_by("pk").values_list("pk", flat=True), _ROWS_AT_A_TIME):
        had = set(
            Task.objects.filter(
                project=project,
                kind=kind,
                batch=batch,
                prompt__in=some,
                gold__isnull=True,
                mirror_of__isnull=True,
            ).values_list("prompt_id", flat=True)
        )
        count = _tasks_write(
            project,
            kind,
            batch,
            _answers_chosen(kind, batch, [pk for pk in some if pk not in had]),
            overlap=overlap,
            priority=priority,
        )
        made += count
        existing += len(had)
        too_few += len(some) - len(had) - count
    return TasksMade(made=made, existing=existing, too_few=too_few)


def _answers_chosen(
    kind: str, batch: CandidateBatch | None, prompts: Sequence[int]
) -> Iterator[tuple[int, list[int]]]:
    """(prompt, its task's candidates in sampled order) of the prompts that have enough."""
    fewest, most = ANSWERS[kind]
    chosen: dict[int, list[int]] = {pk: [] for pk in prompts}
    if most:
        candidates = Candidate.objects.filter(prompt__in=prompts)
        if batch is not None:
            candidates = candidates.filter(batch=batch)
        else:
            sampled = Q(batch__isnull=False, batch__purpose=CandidateBatch.Purpose.RANKING)
            candidates = candidates.filter(sampled | IMPORTED)
        rows = candidates.order_by("prompt_id", "batch_id", "index", "pk").only("prompt_id", "text")
        for prompt_id, answers in groupby(rows, key=lambda one: one.prompt_id):
            chosen[prompt_id] = _different(answers)[:most]
    for prompt_id, answers_of_it in chosen.items():
        if len(answers_of_it) >= fewest:
            yield prompt_id, answers_of_it


def _different(answers: Iterable[Candidate]) -> list[int]:
    """The primary keys of the first of each text."""
    first: dict[str, int] = {}
    for candidate in answers:
        first.setdefault(candidate.text.strip(), candidate.pk)
    return list(first.values())


def _tasks_write(
    project: Project,
    kind: str,
    batch: CandidateBatch | None,
    chosen: Iterable[tuple[int, list[int]]],
    *,
    overlap: int,
    priority: int,
) -> int:
    tasks: list[Task] = []
    members: list[TaskCandidate] = []
    for prompt_id, answers in chosen:
        task = Task(
            project=project,
            kind=kind,
            prompt_id=prompt_id,
            batch=batch,
            overlap=overlap,
            slots_free=overlap,
            priority=priority,
            lottery=secrets.randbits(31),
        )
        tasks.append(task)
        members.extend(
            TaskCandidate(task=task, candidate_id=answer, position=position)
            for position, answer in enumerate(answers)
        )
    Task.objects.bulk_create(tasks)
    TaskCandidate.objects.bulk_create(members)
    return len(tasks)
