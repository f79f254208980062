"""Rankings: tiers of answers, best first; and where none is good, one of them written anew."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext

from annotation.models import Assignment, Comparison, Edit, Ranking, Submission, Task
from annotation.services.edits import edit_check, edit_keep
from annotation.services.submissions import Asked, JudgementKind, submission_settle
from annotation.task_forms import RankingForm
from modelhub.errors import ApplicationError


def ranking_submit(
    *,
    assignment: Assignment,
    tiers: Sequence[Sequence[str]],
    unacceptable: Sequence[str] = (),
    rewrite: Mapping[str, str] | None = None,
    rationale: str = "",
    active_s: float = 0.0,
) -> Submission:
    """Store a ranking of a task: tiers of candidate uids, best first. See submission_settle.

    rewrite: {"original": the uid of an answer, "text": a better version of it}, kept as an edit is.
    Raises ApplicationError, naming the uid, unless the tiers are the task's candidates, each once.
    """
    return submission_settle(
        RANKING,
        assignment=assignment,
        judgement={"tiers": tiers, "unacceptable": unacceptable, "rewrite": rewrite},
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
    rewrite = judgement.get("rewrite")
    if rewrite is not None and not asked.form.rewrite:
        raise ApplicationError(
            gettext("This project asks for no answer written anew."), {"field": "rewrite"}
        )
    # Inside a tier, and among the unacceptable, order means nothing.
    return {
        "tiers": [sorted(tier) for tier in tiers],
        "unacceptable": sorted(unacceptable),
        # Said only where there is one: what was judged before there could be is unchanged.
        **({"rewrite": edit_check(candidates, rewrite)} if rewrite is not None else {}),
    }


def _keep(submission: Submission, judgement: dict[str, Any]) -> None:
    Ranking.objects.create(
        submission=submission, tiers=judgement["tiers"], unacceptable=judgement["unacceptable"]
    )
    if "rewrite" in judgement:
        edit_keep(submission, judgement["rewrite"])


RANKING: JudgementKind[RankingForm] = JudgementKind(
    kind=Task.Kind.RANKING, check=_check, keep=_keep, rows=(Ranking, Edit, Comparison)
)
