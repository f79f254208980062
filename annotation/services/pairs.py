"""Pairs: the better of two answers, by a degree, and whether each is safe."""

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext

from annotation.models import Assignment, Candidate, Comparison, Degree, Submission, Task
from annotation.services.submissions import Asked, JudgementKind, submission_settle
from annotation.task_forms import PairForm
from modelhub.errors import ApplicationError
from modelhub.prepared import Prepared, row_insert


def pair_submit(
    *,
    assignment: Assignment,
    better: str | None,
    degree: int,
    unsafe: Sequence[str] = (),
    rationale: str = "",
    active_s: float = 0.0,
) -> Submission:
    """Store a choice between two answers. See submission_settle.

    better: the uid of the better one; None, with degree 0, is a tie.
    degree: annotation.models.Degree. unsafe: uids, where the project asks for them.
    An unsafe answer may be called the better one: that is strange, and what was meant.
    """
    return submission_settle(
        PAIR,
        assignment=assignment,
        judgement={"better": better, "degree": degree, "unsafe": unsafe},
        rationale=rationale,
        active_s=active_s,
    ).submission


def _check(asked: Asked[PairForm], judgement: dict[str, Any]) -> dict[str, Any]:
    better, degree, unsafe = (judgement[name] for name in ("better", "degree", "unsafe"))
    if len(asked.shown) != 2:
        raise ApplicationError(
            gettext("This task has %(number)s answers, not two.") % {"number": len(asked.shown)}
        )
    if degree not in Degree.values:
        raise ApplicationError(
            gettext("degree is 0 to 4; got %(degree)s.") % {"degree": degree}, {"field": "degree"}
        )
    if (better is None) != (degree == Degree.TIE):
        raise ApplicationError(
            gettext("A tie has degree 0 and no better answer; a choice has both."),
            {"field": "better"},
        )
    if better is None and not asked.form.ties:
        raise ApplicationError(gettext("This project asks for a choice."), {"field": "better"})
    for field, uids in (("better", [better] if better else []), ("unsafe", unsafe)):
        for uid in uids:
            if uid not in asked.shown:
                raise ApplicationError(
                    gettext("%(uid)s is not an answer of this task.") % {"uid": uid},
                    {"field": field},
                )
    if unsafe and not asked.form.safety_labels:
        raise ApplicationError(
            gettext("This project asks for no safety labels."), {"field": "unsafe"}
        )
    if len(set(unsafe)) != len(unsafe):
        raise ApplicationError(gettext("The same answer twice."), {"field": "unsafe"})
    return {"better": better, "degree": int(degree), "unsafe": sorted(unsafe)}


def _keep(submission: Submission, judgement: dict[str, Any]) -> None:
    chosen = judgement["better"] or min(submission.shown_order)
    (other,) = (uid for uid in submission.shown_order if uid != chosen)
    ids = dict(_KEYS.rows(one=chosen, other=other))
    row_insert(
        Comparison(
            submission=submission,
            better_id=ids[chosen],
            worse_id=ids[other],
            degree=judgement["degree"],
            unsafe=judgement["unsafe"],
        )
    )


_KEYS = Prepared(
    lambda one, other: (
        Candidate.objects.filter(uid__in=[one, other]).order_by().values_list("uid", "pk")
    ),
    texts=("one", "other"),
)


PAIR: JudgementKind[PairForm] = JudgementKind(
    kind=Task.Kind.PAIR, check=_check, keep=_keep, rows=(Comparison,)
)
