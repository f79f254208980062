"""Where a member stands in the project's test."""

from dataclasses import dataclass
from statistics import fmean

from django.utils.translation import gettext

from annotation.gold import gold_score
from annotation.models import QUALIFICATION, Membership, Submission, Task
from annotation.selectors.judgements import judgement_of
from annotation.selectors.payloads import letter_of
from annotation.selectors.queue import qualification_is_wanted
from annotation.selectors.shown import judgement_words

_WITH_JUDGEMENT = (
    *("task", "ranking", "rating", "edit__original", "edit__candidate"),
    *("comparison__better", "comparison__worse"),
)


@dataclass(frozen=True, kw_only=True)
class Qualification:
    """A member's test: tasks done of those there are, and the mean score of those done."""

    is_wanted: bool
    tasks: int
    done: int
    score: float | None
    wanted: float

    @property
    def is_done(self) -> bool:
        """Nothing of the test is left; a test without tasks is never done."""
        return 0 < self.tasks <= self.done

    @property
    def is_passed(self) -> bool:
        return self.is_done and self.score is not None and self.score >= self.wanted

    @property
    def percent(self) -> int:
        return int(100 * (self.score or 0.0))

    @property
    def percent_wanted(self) -> int:
        return round(100 * self.wanted)


def qualification_notice(*, submission: Submission) -> str:
    """What somebody learns from a task of the test, told when they have done it; "" for others.

    Letters are those that they saw.
    """
    task = submission.task
    if not task.is_qualification or task.gold is None:
        return ""
    score = gold_score(task.kind, task.gold, judgement_of(submission))
    letters = {uid: letter_of(place) for place, uid in enumerate(submission.shown_order)}
    line, notes = judgement_words(task.kind, task.gold, letters)
    told = (
        gettext("That is the known answer.")
        if score == 1
        else gettext("The known answer is: %(line)s.") % {"line": line}
    )
    return " ".join([told, *(f"({note})" for note in notes), task.gold_explanation]).strip()


def qualification_of(*, membership: Membership) -> Qualification:
    """The member's test; no query for those who need none, else two."""
    wanted = membership.project.qualification_pass
    if not qualification_is_wanted(membership=membership):
        return Qualification(is_wanted=False, tasks=0, done=0, score=None, wanted=wanted)
    tests = Task.objects.filter(
        QUALIFICATION, project=membership.project_id, gold__isnull=False, closed_at=None
    )
    done = (
        Submission.objects.filter(
            annotator=membership,
            task__is_qualification=True,
            task__gold__isnull=False,
            task__closed_at=None,
        )
        .exclude(status=Submission.Status.WITHDRAWN)
        .select_related(*_WITH_JUDGEMENT)
    )
    scores = [
        gold_score(one.task.kind, one.task.gold, judgement_of(one))
        for one in done
        if one.task.gold is not None
    ]
    return Qualification(
        is_wanted=True,
        tasks=tests.count(),
        done=len(scores),
        score=fmean(scores) if scores else None,
        wanted=wanted,
    )
