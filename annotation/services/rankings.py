"""Rankings: tiers of answers, best first."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext

from annotation.models import Assignment, Ranking, Submission, Task
from annotation.services.submissions import Asked, JudgementKind, submission_settle
from annotation.task_forms import RankingForm
from modelhub.errors import ApplicationError


def ranking_submit(
    *,
    assignment: Assignment,
    tiers: Sequence[Sequence[str]],
    unacceptable: Sequence[str] = (),
    rationale: str = "",
    active_s: float = 0.0,
) -> Submission:
    """Store a ranking of a task: tiers of candidate uids, best first. See submission_settle.

    Raises ApplicationError, naming the uid, unless the tiers are the task's candidates, each once.
    """
    return submission_settle(
        RANKING,
        assignment=assignment,
        judgement={"tiers": tiers, "unacceptable": unacceptable},
        rationale=rationale,
        active_s=active_s,
    ).submission


def _check(asked: Asked[RankingForm], judgement: dict[str, Any]) -> dict[str, Any]:
    tiers, unacceptable = judgement["tiers"], judgement["unacceptable"]
    candidates = asked.shown
    ranked = Counter(uid for tier in tiers for uid in tier)
    if not all(tiers):
        raise ApplicationError(gettext("A tier is empty."), {"field": "tiers"})
    for uid, times in ranked.items():
        if uid not in candidates:
            raise ApplicationError(
                gettext("%(uid)s is not a candidate of this task.") % {"uid": uid},
                {"field": "tiers"},
            )
        if times > 1:
            raise ApplicationError(
                gettext("%(uid)s is ranked %(times)s times.") % {"uid": uid, "times": times},
                {"field": "tiers"},
            )
    for uid in candidates:
        if uid not in ranked:
            raise ApplicationError(
                gettext("%(uid)s is not ranked.") % {"uid": uid}, {"field": "tiers"}
            )
    if unacceptable and not asked.form.unacceptable:
        raise ApplicationError(
            gettext("This project does not ask which answers are unacceptable."),
            {"field": "unacceptable"},
        )
    for uid, times in Counter(unacceptable).items():
        if uid not in candidates:
            raise ApplicationError(
                gettext("%(uid)s is not a candidate of this task.") % {"uid": uid},
                {"field": "unacceptable"},
            )
        if times > 1:
            raise ApplicationError(
                gettext("%(uid)s is named %(times)s times.") % {"uid": uid, "times": times},
                {"field": "unacceptable"},
            )
    # Inside a tier, and among the unacceptable, order means nothing.
    return {"tiers": [sorted(tier) for tier in tiers], "unacceptable": sorted(unacceptable)}


def _keep(submission: Submission, judgement: dict[str, Any]) -> None:
    Ranking.objects.create(submission=submission, **judgement)


RANKING: JudgementKind[RankingForm] = JudgementKind(
    kind=Task.Kind.RANKING, check=_check, keep=_keep, rows=(Ranking,)
)
