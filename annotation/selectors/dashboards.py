"""What the dashboards draw: one's own work, and a project's progress.

Counts by day and of coverage are of everything; what needs the judgements themselves is of the
newest ones (annotation/selectors/judged.py).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Literal

from django.db.models import Count, F, Q
from django.db.models.functions import TruncDate
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop

from annotation.agreement import FEWEST_GROUPS, Interval, bootstrap_interval, quantile
from annotation.models import (
    OPEN,
    WORK,
    Assignment,
    Degree,
    Membership,
    Project,
    Question,
    Review,
    Submission,
    Task,
)
from annotation.selectors.agreements import Figure, agreements, main_figure, mean, mean_of
from annotation.selectors.judged import Judged, judgements_newest, tasks_shared
from annotation.selectors.qualification import Qualification, qualification_of
from annotation.selectors.quality import FEWEST_TASKS, PersonQuality, QualityReport
from annotation.selectors.questions import questions_waiting
from annotation.selectors.tasks import TaskHeld, tasks_held
from annotation.task_forms import flag_label

DAYS = 30
WEEKS = 12
FEEDBACK_SHOWN = 20
_COUNTED = (
    Submission.Status.ACCEPTED,
    Submission.Status.SURPLUS,
    Submission.Status.REJECTED,
)


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """Something a reviewer said to an annotator."""

    at: datetime
    what: str  # a verdict, or "answered"
    text: str

    @property
    def words(self) -> str:
        if self.what in Review.Verdict.values:
            return str(Review.Verdict(self.what).label)
        return gettext("answered")


@dataclass(frozen=True, kw_only=True)
class OwnDashboard:
    """A person's own work in a project."""

    today: int
    total: int
    days: list[tuple[date, int]]
    median_active_s: float | None
    skips: list[tuple[str, int]]
    feedback: list[Feedback]
    quality: PersonQuality | None  # None before there is anything to see
    qualification: Qualification


def own_dashboard(*, membership: Membership, report: QualityReport) -> OwnDashboard:
    """A member's dashboard; `report` is their project's. Eight queries at most."""
    mine = Submission.objects.filter(annotator=membership).exclude(
        status=Submission.Status.WITHDRAWN
    )
    days = days_counted(mine.values_list("created_at", flat=True).filter(_since(DAYS)))
    skips = (
        Assignment.objects.filter(annotator=membership, state=Assignment.State.SKIPPED)
        .order_by()
        .values_list("skip_reason")
        .annotate(times=Count("pk"))
        .order_by("-times")[:5]
    )
    seconds = list(mine.order_by("-pk").values_list("active_s", flat=True)[:500])
    found = [one for one in report.people if one.membership.pk == membership.pk]
    return OwnDashboard(
        today=days[-1][1],
        total=mine.count(),
        days=days,
        median_active_s=median(seconds) if seconds else None,
        skips=list(skips),
        feedback=_feedback(membership),
        quality=found[0] if found else None,
        qualification=qualification_of(membership=membership),
    )


def _feedback(membership: Membership) -> list[Feedback]:
    reviews = Review.objects.filter(submission__annotator=membership).exclude(
        verdict=Review.Verdict.ACCEPT, reason=""
    )
    answers = Question.objects.filter(assignment__annotator=membership, answered_at__isnull=False)
    found = [
        Feedback(at=one.created_at, what=one.verdict, text=one.reason)
        for one in reviews[:FEEDBACK_SHOWN]
    ]
    found += [
        Feedback(at=one.answered_at, what="answered", text=one.answer)
        for one in answers[:FEEDBACK_SHOWN]
        if one.answered_at is not None
    ]
    return sorted(found, key=lambda one: one.at, reverse=True)[:FEEDBACK_SHOWN]


@dataclass(frozen=True, kw_only=True)
class KindTime:
    """How long the judgements of one kind take: quartiles of seconds of attention."""

    kind: str
    label: str
    judgements: int
    low_s: float
    median_s: float
    high_s: float


@dataclass(frozen=True, kw_only=True)
class KindCoverage:
    """How many tasks of a kind nobody, somebody, and everybody wanted has judged."""

    kind: str
    label: str
    tasks: int
    none: int
    some: int
    full: int
    closed: int  # before they were full, or held for a reviewer

    @property
    def percent(self) -> int:
        return 100 * self.full // self.tasks if self.tasks else 0


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """How often each label of a kind was given."""

    kind: str
    what: str  # in English, for a file; `title` is in the reader's language
    counts: list[tuple[str, int]]

    @property
    def title(self) -> str:
        words = {"kind": _kind_label(self.kind).capitalize(), "what": gettext(self.what)}
        return gettext("%(kind)s: %(what)s") % words


@dataclass(frozen=True, kw_only=True)
class Week:
    """How far people agreed on what they judged in one week."""

    start: date
    tasks: int
    agreement: Interval


@dataclass(frozen=True, kw_only=True)
class KindWeeks:
    """How far people agreed on one kind of task, beyond chance, week by week."""

    kind: str
    figure: Figure  # over all weeks shown: names the measure
    weeks: list[Week]

    @property
    def title(self) -> str:
        words = {"kind": _kind_label(self.kind).capitalize(), "measure": self.figure.measure_words}
        return gettext("%(kind)s: %(measure)s") % words


@dataclass(frozen=True, kw_only=True)
class ProgressDashboard:
    """A project's progress, for who manages it."""

    days: list[tuple[date, int]]
    times: list[KindTime]
    coverage: list[KindCoverage]
    weeks: list[Week]
    kind_weeks: list[KindWeeks]
    labels: list[Distribution]
    unreviewed: int
    waiting: int  # for an answer to a question


def progress_dashboard(*, project: Project) -> ProgressDashboard:
    """Six queries, of which two count the project's tasks and its last month's submissions."""
    judged = judgements_newest(project=project)
    submissions = Submission.objects.filter(task__project=project, status__in=_COUNTED)
    return ProgressDashboard(
        days=days_of_project(project=project),
        times=_times(judged),
        coverage=coverage(project=project),
        weeks=weeks_agreement(judged),
        kind_weeks=kinds_weeks_agreement(judged),
        labels=label_distributions(judged),
        unreviewed=submissions.filter(reviews=None).count(),
        waiting=questions_waiting(project=project),
    )


def days_of_project(*, project: Project, days: int = DAYS) -> list[tuple[date, int]]:
    """Judgements of each of the last days, UTC; the last is today. One query."""
    counted = dict(
        Submission.objects.filter(_since(days), task__project=project, status__in=_COUNTED)
        .order_by()
        .values_list(TruncDate("created_at", tzinfo=UTC))
        .annotate(Count("pk"))
    )
    return _filled(counted, days)


def days_counted(moments: Iterable[datetime], days: int = DAYS) -> list[tuple[date, int]]:
    """How many moments lie in each of the last days, UTC; the last is today."""
    return _filled(Counter(moment.astimezone(UTC).date() for moment in moments), days)


def _filled(counted: dict[date, int], days: int) -> list[tuple[date, int]]:
    today = timezone.now().astimezone(UTC).date()
    every = [today - timedelta(days=before) for before in reversed(range(days))]
    return [(day, counted.get(day, 0)) for day in every]


def _since(days: int) -> Q:
    today = timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Q(created_at__gte=today - timedelta(days=days - 1))


def _times(judged: Sequence[Judged]) -> list[KindTime]:
    seconds: dict[str, list[float]] = defaultdict(list)
    for one in judged:
        if one.active_s > 0:
            seconds[one.kind].append(one.active_s)
    return [
        KindTime(
            kind=kind,
            label=_kind_label(kind),
            judgements=len(values),
            low_s=quantile(sorted(values), 0.25),
            median_s=quantile(sorted(values), 0.5),
            high_s=quantile(sorted(values), 0.75),
        )
        for kind, values in sorted(seconds.items())
    ]


def coverage(*, project: Project) -> list[KindCoverage]:
    """How far the tasks of each kind are judged; known answers are not counted. Two queries.

    A task that somebody has now is not judged by them yet.
    """
    rows = {
        row["kind"]: row
        for row in Task.objects.filter(WORK, project=project)
        .order_by()
        .values("kind")
        .annotate(
            tasks=Count("pk"),
            none=Count("pk", filter=OPEN & Q(slots_free=F("overlap"))),
            some=Count("pk", filter=OPEN & Q(slots_free__lt=F("overlap"))),
            full=Count("pk", filter=Q(slots_free=0)),
            closed=Count("pk", filter=Q(slots_free__gt=0) & ~OPEN),
        )
        .order_by("kind")
    }
    for one in tasks_held(project=project):
        row = rows[one.kind]
        row[_covered(one, held=0)] -= 1
        row[_covered(one, held=one.held)] += 1
    return [KindCoverage(label=_kind_label(row["kind"]), **row) for row in rows.values()]


def _covered(task: TaskHeld, *, held: int) -> Literal["none", "some", "full", "closed"]:
    """Which count of KindCoverage a task is in, if `held` of its taken slots have no judgement."""
    judged = task.overlap - task.slots_free - held
    if judged == task.overlap:
        return "full"
    if task.is_stopped:
        return "closed"
    return "some" if judged else "none"


def weeks_agreement(judged: Sequence[Judged], weeks: int = WEEKS) -> list[Week]:
    """How far people's judgements were the same, 0 to 1, by the week of a task's last judgement."""
    by_week: dict[date, list[float]] = defaultdict(list)
    for rows in tasks_shared(judged):
        agreement = mean_of(agreements(rows[0].kind, rows))
        if agreement is not None:
            by_week[_week_of(rows)].append(agreement)
    found = []
    for start, values in sorted(by_week.items())[-weeks:]:
        interval = bootstrap_interval(values, mean)
        if interval is not None:
            found.append(Week(start=start, tasks=len(values), agreement=interval))
    return found


def kinds_weeks_agreement(judged: Sequence[Judged], weeks: int = WEEKS) -> list[KindWeeks]:
    """The main coefficient of each kind by the week of a task's last judgement.

    A week with fewer than FEWEST_GROUPS shared tasks is left out, and one that has no coefficient,
    because everybody said the same of everything.
    """
    by_kind: dict[str, list[list[Judged]]] = defaultdict(list)
    for rows in tasks_shared(judged):
        by_kind[rows[0].kind].append(rows)
    found = []
    for kind, shared in sorted(by_kind.items()):
        whole = main_figure(kind, shared, resamples=0)
        by_week: dict[date, list[list[Judged]]] = defaultdict(list)
        for rows in shared:
            by_week[_week_of(rows)].append(rows)
        told = [
            Week(start=start, tasks=len(tasks), agreement=figure.interval)
            for start, tasks in sorted(by_week.items())[-weeks:]
            if len(tasks) >= FEWEST_GROUPS and (figure := main_figure(kind, tasks)) is not None
        ]
        if whole is not None and told:
            found.append(KindWeeks(kind=kind, figure=whole, weeks=told))
    return found


def _week_of(rows: Sequence[Judged]) -> date:
    """The Monday, UTC, of the week in which a task was last judged."""
    day = max(one.at for one in rows).astimezone(UTC).date()
    return day - timedelta(days=day.weekday())


def label_distributions(judged: Sequence[Judged]) -> list[Distribution]:
    """What people said, counted: degrees of pairs, ratings and flags, ties, what edits took up."""
    by_kind: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        by_kind[one.kind].append(one)
    found = []
    if rows := by_kind["pair"]:
        degrees = Counter(one.judgement["degree"] for one in rows)
        found.append(
            _distribution(
                "pair", gettext_noop("degree"), [(str(d.label), degrees[d]) for d in Degree]
            )
        )
        unsafe = Counter(len(one.judgement["unsafe"]) for one in rows)
        if set(unsafe) != {0}:
            names = (gettext("both safe"), gettext("one unsafe"), gettext("both unsafe"))
            found.append(
                _distribution(
                    "pair", gettext_noop("safety"), [(n, unsafe[i]) for i, n in enumerate(names)]
                )
            )
    if rows := by_kind["rating"]:
        rated = [each for one in rows for each in one.judgement["ratings"].values()]
        overall = Counter(each.get("overall") for each in rated)
        found.append(
            _distribution(
                "rating", gettext_noop("overall"), [(str(n), overall[n]) for n in range(1, 8)]
            )
        )
        flags = Counter(flag for each in rated for flag in each.get("flags", ()))
        counted = [(flag_label(flag), times) for flag, times in flags.most_common()]
        found.append(_distribution("rating", gettext_noop("flags"), counted))
    if rows := by_kind["ranking"]:
        tied = sum(any(len(tier) > 1 for tier in one.judgement["tiers"]) for one in rows)
        bad = sum(bool(one.judgement["unacceptable"]) for one in rows)
        none = sum(len(one.judgement["unacceptable"]) == len(one.shown_order) for one in rows)
        found.append(
            _distribution(
                "ranking",
                gettext_noop("what they hold"),
                [
                    (gettext("all in order"), len(rows) - tied),
                    (gettext("with a tie"), tied),
                    (gettext("something unacceptable"), bad),
                    (gettext("nothing acceptable"), none),
                ],
            )
        )
    if rows := by_kind["dialogue"]:
        chosen = Counter(turn["degree"] for one in rows for turn in one.judgement["turns"])
        found.append(
            _distribution(
                "dialogue", gettext_noop("degree"), [(str(d.label), chosen[d]) for d in Degree if d]
            )
        )
    return [one for one in found if any(count for _, count in one.counts)]


def _distribution(kind: str, what: str, counts: list[tuple[str, int]]) -> Distribution:
    return Distribution(kind=kind, what=what, counts=[(str(n), c) for n, c in counts])


def _kind_label(kind: str) -> str:
    return str(Task.Kind(kind).label)


def gold_is_told(quality: PersonQuality | None) -> bool:
    """Whether a person's mean on known answers may be shown to them.

    Of few it would tell which task was one of them.
    """
    return quality is not None and quality.gold_tasks >= FEWEST_TASKS
