"""Ratings: each answer by itself, from 1 to 7, with the project's flags."""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext

from annotation.models import Assignment, Rating, Submission, Task
from annotation.services.documents import document_judgement_hand_down
from annotation.services.submissions import Asked, JudgementKind, submission_settle
from annotation.task_forms import RatingForm
from modelhub.errors import ApplicationError

WORST, BEST = 1, 7


def rating_submit(
    *,
    assignment: Assignment,
    ratings: Mapping[str, Mapping[str, Any]],
    rationale: str = "",
    active_s: float = 0.0,
) -> Submission:
    """Store the ratings of a task's answers. See submission_settle.

    ratings: {candidate uid: {"overall": 1 to 7, "flags": [names of the project's form]}}, each
    answer once.
    """
    return submission_settle(
        RATING,
        assignment=assignment,
        judgement={"ratings": ratings},
        rationale=rationale,
        active_s=active_s,
    ).submission


def _check(asked: Asked[RatingForm], judgement: dict[str, Any]) -> dict[str, Any]:
    ratings = judgement["ratings"]
    known = {flag.name for flag in asked.form.flags}
    for uid in ratings:
        if uid not in asked.shown:
            raise ApplicationError(
                gettext("%(uid)s is not an answer of this task.") % {"uid": uid},
                {"field": "ratings"},
            )
    for uid in asked.shown:
        if uid not in ratings:
            raise ApplicationError(
                gettext("%(uid)s is not rated.") % {"uid": uid}, {"field": "ratings"}
            )
        overall, flags = ratings[uid]["overall"], ratings[uid]["flags"]
        if not isinstance(overall, int) or not WORST <= overall <= BEST:
            raise ApplicationError(
                gettext("overall is %(worst)s to %(best)s; got %(overall)s.")
                % {"worst": WORST, "best": BEST, "overall": overall},
                {"field": f"ratings.{uid}.overall"},
            )
        for flag in flags:
            if flag not in known:
                raise ApplicationError(
                    gettext("There is no flag %(flag)s.") % {"flag": f"{flag!r:.60}"},
                    {"field": f"ratings.{uid}.flags"},
                )
        if len(set(flags)) != len(flags):
            raise ApplicationError(
                gettext("The same flag twice."), {"field": f"ratings.{uid}.flags"}
            )
    return {
        "ratings": {
            uid: {"overall": ratings[uid]["overall"], "flags": sorted(ratings[uid]["flags"])}
            for uid in sorted(ratings)
        }
    }


def _keep(submission: Submission, judgement: dict[str, Any]) -> None:
    Rating.objects.create(submission=submission, ratings=judgement["ratings"])
    document_judgement_hand_down(submission=submission)


RATING: JudgementKind[RatingForm] = JudgementKind(
    kind=Task.Kind.RATING, check=_check, keep=_keep, rows=(Rating,)
)
