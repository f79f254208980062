"""Demonstrations: the ideal answer, written by a person."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext

from annotation.identity import identity_restore
from annotation.models import Assignment, Candidate, Demonstration, Submission, Task
from annotation.services.submissions import Asked, JudgementKind, submission_settle
from annotation.services.writings import writing_check, writing_keep
from annotation.task_forms import DemonstrationForm
from modelhub.errors import ApplicationError


def demonstration_submit(
    *,
    assignment: Assignment,
    text: str,
    started_from: str | None = None,
    turns: Sequence[Mapping[str, str]] = (),
    rationale: str = "",
    active_s: float = 0.0,
) -> Submission:
    """Store an answer to a task's prompt, which becomes a candidate. See submission_settle.

    started_from: the uid of the task's candidate that was written on from; None is from nothing.
    turns: what follows, [{"user", "text"}, …], where the project asks for several answers.
    """
    return submission_settle(
        DEMONSTRATION,
        assignment=assignment,
        judgement={"text": text, "started_from": started_from, "turns": turns},
        rationale=rationale,
        active_s=active_s,
    ).submission


def _check(asked: Asked[DemonstrationForm], judgement: dict[str, Any]) -> dict[str, Any]:
    started_from, turns = judgement["started_from"], judgement["turns"]
    if started_from is not None and asked.form.start == "nothing":
        raise ApplicationError(
            gettext("This project asks for answers written from nothing."),
            {"field": "started_from"},
        )
    if started_from is not None and started_from not in asked.shown:
        raise ApplicationError(
            gettext("%(started_from)s is not a draft of this task.")
            % {"started_from": started_from},
            {"field": "started_from"},
        )
    if started_from is None and asked.form.start == "draft" and asked.shown:
        raise ApplicationError(
            gettext("This project asks to start from a draft."), {"field": "started_from"}
        )
    if 1 + len(turns) > asked.form.turns:
        raise ApplicationError(
            gettext("This project asks for at most %(turns)s answers.")
            % {"turns": asked.form.turns},
            {"field": "turns"},
        )
    text = writing_check(judgement["text"], "text")
    if started_from is not None:
        text = identity_restore(text, original=Candidate.objects.get(uid=started_from).text)
    return {
        "text": text,
        "started_from": started_from,
        "turns": [
            {name: writing_check(turn[name], f"turns[{place}].{name}") for name in ("user", "text")}
            for place, turn in enumerate(turns)
        ],
    }


def _keep(submission: Submission, judgement: dict[str, Any]) -> None:
    started_from = None
    if judgement["started_from"] is not None:
        started_from = Candidate.objects.get(uid=judgement["started_from"])
    candidate = writing_keep(
        submission=submission,
        text=judgement["text"],
        written={"started_from": judgement["started_from"]},
    )
    Demonstration.objects.create(
        submission=submission,
        candidate=candidate,
        started_from=started_from,
        turns=judgement["turns"],
    )


DEMONSTRATION: JudgementKind[DemonstrationForm] = JudgementKind(
    kind=Task.Kind.DEMONSTRATION, check=_check, keep=_keep, rows=(Demonstration,)
)
