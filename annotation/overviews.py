"""What the project pages show, read in few queries. None grows with the number of rows shown."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Case, Count, Max, Min, Q, QuerySet, Sum, When
from django.db.models.functions import Coalesce

from annotation.models import (
    WORK,
    Assignment,
    Membership,
    Project,
    Prompt,
    Split,
    Submission,
    Task,
)
from annotation.selectors import AnnotatorProgress, annotator_progress


@dataclass(frozen=True, kw_only=True)
class SlotCounts:
    """Judgements wanted of a project's open tasks, and how far they are. Slots: tasks × overlap."""

    wanted: int
    accepted: int
    in_progress: int
    waiting: int
    surplus: int
    skipped: int
    overlap_least: int  # people wanted for an open task; 0 where none is open
    overlap_most: int

    @property
    def percent(self) -> int:
        """Of the judgements wanted, how many are in; whole, 0 to 100."""
        return 100 * self.accepted // self.wanted if self.wanted else 0


@dataclass(frozen=True, kw_only=True)
class ProjectCard:
    """A project on somebody's front page."""

    project: Project
    role: str
    mine: AnnotatorProgress | None  # None for a superuser who is no member
    holds_task: bool
    slots: SlotCounts

    @property
    def has_work(self) -> bool:
        return self.holds_task or (self.mine is not None and self.mine.open > 0)


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What a member has done."""

    membership: Membership
    submitted: int
    surplus: int
    skipped: int
    median_active_s: float | None


def project_cards(*, user: User) -> list[ProjectCard]:
    """A person's projects, those with work first. Six queries, and four for each project."""
    mine = Membership.objects.filter(user=user, removed_at=None)
    memberships = {membership.project_id: membership for membership in mine}
    projects = Project.objects.all()
    if not user.is_superuser:
        projects = projects.filter(pk__in=memberships)
    cards = []
    for project in projects:
        membership = memberships.get(project.pk)
        progress = annotator_progress(membership=membership) if membership else None
        cards.append(
            ProjectCard(
                project=project,
                role=membership.role if membership else Membership.Role.MANAGER,
                mine=progress,
                holds_task=membership is not None and task_held(membership=membership),
                slots=slot_counts(project=project),
            )
        )
    return sorted(cards, key=lambda card: (not card.has_work, card.project.name.lower()))


def task_held(*, membership: Membership) -> bool:
    """Whether the member holds a live assignment of a task that is still open. One query."""
    return Assignment.objects.filter(
        annotator=membership, state=Assignment.State.LIVE, task__closed_at=None
    ).exists()


def slot_counts(*, project: Project) -> SlotCounts:
    """Three queries. A closed task wants what it got: nobody is going to fill the rest.

    Known answers and tests are no work that is wanted: they are not counted.
    """
    tasks = Task.objects.filter(WORK, project=project).aggregate(
        overlaps=Coalesce(Sum("overlap"), 0),
        overlap_least=Coalesce(Min("overlap", filter=Q(closed_at=None)), 0),
        overlap_most=Coalesce(Max("overlap", filter=Q(closed_at=None)), 0),
        waiting=Coalesce(Sum("slots_free", filter=Q(closed_at=None)), 0),
        given_up=Coalesce(Sum("slots_free", filter=Q(closed_at__isnull=False)), 0),
    )
    work: dict[str, Any] = {
        "task__project": project,
        "task__gold__isnull": True,
        "task__is_qualification": False,
        "task__mirror_of__isnull": True,
    }
    submissions = Submission.objects.filter(**work).aggregate(
        accepted=Count("pk", filter=Q(status=Submission.Status.ACCEPTED)),
        surplus=Count("pk", filter=Q(status=Submission.Status.SURPLUS)),
    )
    assignments = Assignment.objects.filter(**work).aggregate(
        in_progress=Count("pk", filter=Q(state__in=Assignment.HOLDING)),
        skipped=Count("pk", filter=Q(state=Assignment.State.SKIPPED)),
    )
    return SlotCounts(
        wanted=tasks["overlaps"] - tasks["given_up"],
        waiting=tasks["waiting"],
        overlap_least=tasks["overlap_least"],
        overlap_most=tasks["overlap_most"],
        **submissions,
        **assignments,
    )


def prompt_counts(*, project: Project) -> list[tuple[str, str, int]]:
    """(split, its label, prompts) in the order train, validation, held-out. One query."""
    counts = dict(
        Prompt.objects.filter(project=project)
        .order_by()
        .values_list("split")
        .annotate(count=Count("pk"))
    )
    return [(split.value, str(split.label), counts.get(split.value, 0)) for split in Split]


def prompts_page(*, project: Project, split: str, words: str) -> QuerySet[Prompt]:
    """Prompts with how many answers each has, newest first; to be cut into pages."""
    prompts = Prompt.objects.filter(project=project).annotate(
        answers=Count("candidates", distinct=True)
    )
    if split in Split.values:
        prompts = prompts.filter(split=split)
    if words:
        prompts = prompts.filter(messages__icontains=words)
    return prompts.order_by("-pk")


def contributions(*, project: Project) -> list[Contribution]:
    """Everyone who is or was a member, by what they did. Three queries."""
    members = Membership.objects.filter(project=project).select_related("user").order_by("pk")
    done = {
        row["annotator"]: row
        for row in Submission.objects.filter(task__project=project)
        .order_by()
        .values("annotator")
        .annotate(submitted=Count("pk"), surplus=Count("pk", filter=Q(status="surplus")))
    }
    skipped = dict(
        Assignment.objects.filter(task__project=project, state=Assignment.State.SKIPPED)
        .order_by()
        .values_list("annotator")
        .annotate(count=Count("pk"))
    )
    seconds = _active_seconds(project)
    rows = []
    for member in members:
        row = done.get(member.pk)
        if member.removed_at is not None and row is None:
            continue
        rows.append(
            Contribution(
                membership=member,
                submitted=row["submitted"] if row else 0,
                surplus=row["surplus"] if row else 0,
                skipped=skipped.get(member.pk, 0),
                median_active_s=median(seconds[member.pk]) if member.pk in seconds else None,
            )
        )
    return sorted(rows, key=lambda row: -row.submitted)


def members_now(*, project: Project) -> QuerySet[Membership]:
    """Those who are members now, managers first. One query."""
    rank = Case(
        When(role=Membership.Role.MANAGER, then=0),
        When(role=Membership.Role.REVIEWER, then=1),
        default=2,
    )
    return (
        Membership.objects.filter(project=project, removed_at=None)
        .select_related("user")
        .order_by(rank, "pk")
    )


def _active_seconds(project: Project) -> dict[int, list[float]]:
    """Seconds of attention of each member's newest submissions, at most 2,000 in all."""
    newest = (
        Submission.objects.filter(task__project=project)
        .order_by("-pk")
        .values_list("annotator", "active_s")[:2000]
    )
    seconds: dict[int, list[float]] = {}
    for member, active_s in newest:
        seconds.setdefault(member, []).append(active_s)
    return seconds
