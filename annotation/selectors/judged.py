"""Submissions as the figures of quality see them: who said what, thing by thing."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean
from typing import Any

from django.db.models import QuerySet

from annotation.gold import pair_degree
from annotation.models import Candidate, Project, Submission, Task
from annotation.selectors.judgements import judgement_of

MAX_SUBMISSIONS = 2000
JUDGEMENT_ROWS = (
    *("ranking", "rating", "demonstration__candidate", "demonstration__started_from"),
    *("comparison__better", "comparison__worse", "edit__original", "edit__candidate", "dialogue"),
)
COUNTING = (Submission.Status.ACCEPTED, Submission.Status.SURPLUS)
Unit = tuple[Any, ...]
Group = list[Unit]  # the units of one task
Values = Callable[["Judged"], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A submission as the figures see it."""

    uid: str
    task: int
    kind: str
    annotator: int
    judgement: dict[str, Any]
    shown_order: list[str]
    active_s: float
    at: datetime
    # Of a dialogue: which of the two models wrote an answer, by the answer's uid.
    sides: dict[str, str] = field(default_factory=dict)


def judgements_newest(
    *, project: Project, limit: int = MAX_SUBMISSIONS, kind: str = ""
) -> list[Judged]:
    """The newest judgements of real work that count, the newest first.

    One query, and one more where there are dialogues among them.
    """
    submissions = Submission.objects.filter(
        task__project=project,
        task__gold__isnull=True,
        task__is_qualification=False,
        task__mirror_of__isnull=True,
        status__in=COUNTING,
    )
    if kind:
        submissions = submissions.filter(task__kind=kind)
    return list(_judged(submissions.order_by("-pk")[:limit]))


def _judged(submissions: QuerySet[Submission]) -> Iterator[Judged]:
    rows = list(submissions.select_related("task", *JUDGEMENT_ROWS))
    sides = _sides(rows)
    for one in rows:
        yield Judged(
            uid=one.uid,
            task=one.task_id,
            kind=one.task.kind,
            annotator=one.annotator_id,
            judgement=judgement_of(one),
            shown_order=one.shown_order,
            active_s=one.active_s,
            at=one.created_at,
            sides=sides if one.task.kind == Task.Kind.DIALOGUE else {},
        )


def _sides(submissions: Sequence[Submission]) -> dict[str, str]:
    """Answer of a dialogue → model, endpoint and temperature that wrote it. One query or none."""
    uids = {
        uid
        for one in submissions
        if one.task.kind == Task.Kind.DIALOGUE
        for turn in one.dialogue.turns
        for uid in turn["candidates"]
    }
    if not uids:
        return {}
    rows = Candidate.objects.filter(uid__in=uids).values_list("uid", "version", "decoding")
    return {
        uid: f"{version} {decoding.get('endpoint')} {decoding.get('temperature')}"
        for uid, version, decoding in rows
    }


def tasks_shared(judged: Iterable[Judged]) -> list[list[Judged]]:
    """The judgements by task, of tasks that two or more people judged."""
    tasks: dict[int, list[Judged]] = defaultdict(list)
    for one in judged:
        tasks[one.task].append(one)
    return [sorted(rows, key=lambda one: one.uid) for rows in tasks.values() if len(rows) > 1]


def flags_of(tasks: Iterable[Iterable[Judged]]) -> list[str]:
    """The flags that anybody raised in ratings, by name."""
    return sorted(
        {
            flag
            for rows in tasks
            for one in rows
            for rated in one.judgement["ratings"].values()
            for flag in rated.get("flags", ())
        }
    )


def units(rows: Sequence[Judged], values: Values) -> Group:
    """The units of one task: for each thing judged, what each person said of it."""
    said: dict[str, list[Any]] = defaultdict(list)
    for one in rows:
        for thing, value in values(one).items():
            said[thing].append(value)
    return [tuple(unit) for _, unit in sorted(said.items())]


def ranking_values(one: Judged) -> dict[str, Any]:
    """Each answer's mean rank, so that ties take up as many ranks as they have answers."""
    ranks, before = {}, 0
    for tier in one.judgement["tiers"]:
        for uid in tier:
            ranks[uid] = before + (len(tier) + 1) / 2
        before += len(tier)
    return ranks


def pair_values(one: Judged) -> dict[str, Any]:
    """Choice and degree: -4 to 4, from the side of the answer with the lower uid."""
    return {"": pair_degree(one.judgement, min(one.shown_order))}


def choice_values(one: Judged) -> dict[str, Any]:
    """The choice alone: -1, 0 for a tie, 1."""
    return {"": sign(pair_degree(one.judgement, min(one.shown_order)))}


def unsafe_values(one: Judged) -> dict[str, Any]:
    """Whether each answer was called unsafe."""
    return {uid: uid in one.judgement["unsafe"] for uid in one.shown_order}


def overall_values(one: Judged) -> dict[str, Any]:
    """Each answer's rating as a whole."""
    return {
        uid: rated["overall"]
        for uid, rated in one.judgement["ratings"].items()
        if rated.get("overall") is not None
    }


def flag_values(flag: str) -> Values:
    """Whether each answer got the flag."""

    def values(one: Judged) -> dict[str, Any]:
        return {
            uid: flag in rated.get("flags", ()) for uid, rated in one.judgement["ratings"].items()
        }

    return values


def edit_values(one: Judged) -> dict[str, Any]:
    """Which answer was taken up: its place among the task's, by uid.

    A place and not the answer itself: each task has its own answers, and a class that occurs in one
    task alone would make chance as good as nothing.
    """
    return {"": sorted(one.shown_order).index(one.judgement["original"])}


def start_values(one: Judged) -> dict[str, Any]:
    """Where a written answer began: the place of the draft, or -1 for an empty page."""
    started = one.judgement["started_from"]
    drafts = sorted(one.shown_order)
    return {"": drafts.index(started) if started in drafts else -1} if drafts else {}


def side_values(one: Judged) -> dict[str, Any]:
    """Which of a dialogue's two models was better, by how much: -4 to 4, the mean over turns."""
    named = [
        (one.sides[turn["chosen"]], turn)
        for turn in one.judgement["turns"]
        if all(uid in one.sides for uid in turn["candidates"])
    ]
    both = sorted({one.sides[uid] for _, turn in named for uid in turn["candidates"]})
    if len(both) != 2:
        return {}
    return {
        "": fmean(turn["degree"] if side == both[0] else -turn["degree"] for side, turn in named)
    }


def sign(degree: float) -> int:
    return (degree > 0) - (degree < 0)
