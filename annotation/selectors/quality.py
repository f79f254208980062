"""How far a project's judgements can be trusted: agreement, annotators, known answers.

All figures are of the newest judgements, at most MAX_SUBMISSIONS, so that a page costs the same in
a project of a thousand tasks and of a million. The arithmetic is in agreement.py,
annotator_models.py, behaviour.py and gold.py.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Sum
from django.db.models.functions import Length
from django.utils import timezone
from django.utils.translation import gettext

from annotation.agreement import Interval, bootstrap_interval
from annotation.behaviour import PositionBias, Speed, position_bias, speed
from annotation.gold import GOLD_KINDS, gold_score
from annotation.models import (
    WORK,
    Membership,
    Project,
    Review,
    Submission,
    Task,
    TaskCandidate,
)
from annotation.selectors.agreements import (
    KindAgreement,
    PersonAgreement,
    agreements,
    kind_agreement,
    kind_weights,
    mean,
    mean_of,
    people_agreement,
)
from annotation.selectors.judged import (
    JUDGEMENT_ROWS,
    MAX_SUBMISSIONS,
    Judged,
    judgements_newest,
    tasks_shared,
)
from annotation.selectors.judgements import judgement_of
from annotation.selectors.mirrors import SelfAgreement, self_agreements

FEWEST_TASKS = 5  # before anything is said of a person
HELP_WEIGHT = 0.4
HELP_GOLD = 0.7
HELP_REJECTED = 0.2
HELP_SELF = 0.7
AGREED = 0.95
_CHARS_A_WORD = 6


@dataclass(kw_only=True)
class PersonQuality:
    """What there is to see of one person's work."""

    membership: Membership
    judgements: int = 0
    agreement: list[PersonAgreement] = field(default_factory=list)
    gold: Interval | None = None
    gold_tasks: int = 0
    position: PositionBias | None = None
    speed: Speed | None = None
    reviewed: int = 0
    rejected: int = 0
    itself: SelfAgreement | None = None  # on pairs that they were asked twice, sides swapped

    @property
    def gold_told(self) -> float | None:
        """The mean on known answers, once there are enough: of few it says nothing, and tells them
        which task was one."""
        return self.gold.value if self.gold and self.gold_tasks >= FEWEST_TASKS else None

    @property
    def reasons(self) -> list[str]:
        """Why somebody should look at this person's work; empty for most."""
        found = []
        low = [
            one.label
            for one in self.agreement
            if one.weight is not None and one.weight < HELP_WEIGHT and one.tasks >= FEWEST_TASKS
        ]
        if low:
            found.append(gettext("differs from the others (%(kinds)s)") % {"kinds": ", ".join(low)})
        if self.gold and self.gold_tasks >= FEWEST_TASKS and self.gold.value < HELP_GOLD:
            found.append(gettext("misses known answers"))
        if self.position and self.position.is_biased:
            found.append(gettext("takes an answer for its place"))
        again = self.itself
        if again and again.pairs >= FEWEST_TASKS and again.same < HELP_SELF * again.pairs:
            found.append(gettext("chooses otherwise when the sides are swapped"))
        if self.speed and self.speed.is_outlier:
            found.append(gettext("faster than one can read"))
        if self.reviewed >= FEWEST_TASKS and self.rejected > HELP_REJECTED * self.reviewed:
            found.append(gettext("often rejected"))
        return found


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """A project's quality at a glance."""

    at: datetime
    judgements: int
    kinds: list[KindAgreement]
    people: list[PersonQuality]

    @property
    def who_needs_help(self) -> list[PersonQuality]:
        """Those with a reason to look, the most reasons first."""
        found = [person for person in self.people if person.reasons]
        return sorted(found, key=lambda person: -len(person.reasons))


def quality_report(*, project: Project) -> QualityReport:
    """Agreement by kind and by person, and how each person works. Eight queries."""
    judged = judgements_newest(project=project)
    members = {
        one.pk: PersonQuality(membership=one)
        for one in Membership.objects.filter(project=project).select_related("user")
    }
    by_kind: dict[str, list[Judged]] = defaultdict(list)
    by_person: dict[int, list[Judged]] = defaultdict(list)
    for one in judged:
        by_kind[one.kind].append(one)
        by_person[one.annotator].append(one)
    kinds = []
    for kind, rows in sorted(by_kind.items()):
        shared = tasks_shared(rows)
        if not shared:
            continue
        kinds.append(kind_agreement(kind, shared))
        weights = kind_weights(kind, shared)
        for pk, agreement in people_agreement(kind, shared, weights).items():
            members[pk].agreement.append(agreement)
    words = _words_of(judged)
    scores = gold_scores(project=project)
    reviewed = _reviewed(project)
    themselves = self_agreements(project=project)
    for pk, person in members.items():
        rows = by_person[pk]
        person.judgements = len(rows)
        person.position = position_bias(list(_best_places(rows)))
        person.speed = speed([(words.get(one.task, 0.0), one.active_s) for one in rows])
        person.itself = themselves.get(pk)
        person.gold_tasks = len(scores.get(pk, ()))
        person.gold = bootstrap_interval(scores.get(pk, ()), mean)
        person.reviewed, person.rejected = reviewed.get(pk, (0, 0))
    people = [one for one in members.values() if one.judgements or one.gold_tasks or one.reviewed]
    people.sort(key=lambda one: -one.judgements)
    return QualityReport(at=timezone.now(), judgements=len(judged), kinds=kinds, people=people)


def gold_scores(*, project: Project) -> dict[int, list[float]]:
    """Each member's scores on known answers, tests included; the newest first. One query."""
    scores: dict[int, list[float]] = defaultdict(list)
    for one, score in _gold_scored(project):
        scores[one.annotator_id].append(score)
    return scores


def gold_task_scores(*, project: Project) -> dict[int, list[float]]:
    """The scores that people reached on each known answer: low ones may mean it is wrong."""
    scores: dict[int, list[float]] = defaultdict(list)
    for one, score in _gold_scored(project):
        scores[one.task_id].append(score)
    return scores


def _gold_scored(project: Project) -> Iterator[tuple[Submission, float]]:
    submissions = (
        Submission.objects.filter(task__project=project, task__gold__isnull=False)
        .exclude(status=Submission.Status.WITHDRAWN)
        .select_related("task", *JUDGEMENT_ROWS)
        .order_by("-pk")[:MAX_SUBMISSIONS]
    )
    for one in submissions:
        if one.task.gold is not None and one.task.kind in GOLD_KINDS:
            yield one, gold_score(one.task.kind, one.task.gold, judgement_of(one))


def _best_places(rows: Iterable[Judged]) -> Iterator[tuple[int, int]]:
    """(place of the one best answer, answers shown) of the judgements that have one."""
    for one in rows:
        best = _best_of(one)
        if best in one.shown_order and len(one.shown_order) > 1:
            yield one.shown_order.index(best), len(one.shown_order)


def _best_of(one: Judged) -> str:
    if one.kind == "ranking" and one.judgement["tiers"] and len(one.judgement["tiers"][0]) == 1:
        return str(one.judgement["tiers"][0][0])
    if one.kind == "pair":
        return one.judgement["better"] or ""
    return one.judgement["original"] if one.kind == "edit" else ""


def _words_of(judged: Sequence[Judged]) -> dict[int, float]:
    """About how many words there are to read in each task's answers. One query."""
    chars = (
        TaskCandidate.objects.filter(task__in={one.task for one in judged})
        .order_by()
        .values_list("task")
        .annotate(chars=Sum(Length("candidate__text")))
    )
    return {task: (number or 0) / _CHARS_A_WORD for task, number in chars}


def _reviewed(project: Project) -> dict[int, tuple[int, int]]:
    """Member → (submissions reviewed, of them rejected or sent back at last). One query."""
    newest: dict[int, tuple[int, str]] = {}
    reviews = (
        Review.objects.filter(submission__task__project=project)
        .order_by("-pk")
        .values_list("submission", "submission__annotator", "verdict")[:MAX_SUBMISSIONS]
    )
    for submission, annotator, verdict in reviews:
        newest.setdefault(submission, (annotator, verdict))
    counts: dict[int, tuple[int, int]] = {}
    for annotator, verdict in newest.values():
        seen, bad = counts.get(annotator, (0, 0))
        counts[annotator] = (seen + 1, bad + (verdict != Review.Verdict.ACCEPT))
    return counts


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A task on which people differ: how far they agree, 0 to 1, and how many judged it."""

    task: Task
    agreement: float
    people: int


def disagreements(*, project: Project) -> list[Disagreement]:
    """Undecided tasks that people judged differently, the worst first. Two queries."""
    shared = {rows[0].task: rows for rows in tasks_shared(judgements_newest(project=project))}
    undecided = (
        Task.objects.filter(WORK, pk__in=shared, adjudication=None)
        .select_related("prompt")
        .order_by("pk")
    )
    found = []
    for task in undecided:
        agreement = mean_of(agreements(task.kind, shared[task.pk]))
        if agreement is not None and agreement < AGREED:
            found.append(Disagreement(task=task, agreement=agreement, people=len(shared[task.pk])))
    return sorted(found, key=lambda one: one.agreement)
