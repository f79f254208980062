"""Edits: one of the answers made better. The edited one is better than the original."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext

from annotation.identity import identity_restore
from annotation.models import Assignment, Candidate, Comparison, Degree, Edit, Submission, Task
from annotation.services.submissions import Asked, JudgementKind, submission_settle
from annotation.services.writings import writing_check, writing_keep
from annotation.task_forms import EditForm
from annotation.word_diff import changed_share, words_diff
from modelhub.errors import ApplicationError

# Nobody was asked how much better it is. Exports leave the degree of an edit out.
EDIT_DEGREE = Degree.BETTER


def edit_submit(
    *,
    assignment: Assignment,
    original: str,
    text: str,
    rationale: str = "",
    active_s: float = 0.0,
) -> Submission:
    """Store a better version of one of a task's answers. See submission_settle.

    original: the uid of that answer. The text becomes a candidate, by its writer, with the words
    that changed and a Comparison of it over the original.
    """
    return submission_settle(
        EDIT,
        assignment=assignment,
        judgement={"original": original, "text": text},
        rationale=rationale,
        active_s=active_s,
    ).submission


def edit_check(shown: Sequence[str], judgement: Mapping[str, str]) -> dict[str, str]:
    """An edit of one of the answers shown, in its one form, names that were hidden put back.

    Raises ApplicationError naming the field.
    """
    original, text = judgement["original"], writing_check(judgement["text"], "text")
    if original not in shown:
        raise ApplicationError(
            gettext("%(original)s is not an answer of this task.") % {"original": original},
            {"field": "original"},
        )
    before = Candidate.objects.get(uid=original).text
    text = identity_restore(text, original=before)
    if text.strip() == before.strip():
        raise ApplicationError(gettext("Nothing was changed."), {"field": "text"})
    return {"original": original, "text": text}


def edit_keep(submission: Submission, judgement: Mapping[str, str]) -> None:
    """Make the rows of an edit: the new candidate, what changed, and that it is the better one."""
    original = Candidate.objects.get(uid=judgement["original"])
    candidate = writing_keep(
        submission=submission, text=judgement["text"], written={"edited_from": original.uid}
    )
    diff = words_diff(original.text, candidate.text)
    Edit.objects.create(
        submission=submission,
        original=original,
        candidate=candidate,
        diff=diff,
        changed_share=changed_share(diff),
    )
    Comparison.objects.create(
        submission=submission, better=candidate, worse=original, degree=EDIT_DEGREE
    )


def _check(asked: Asked[EditForm], judgement: dict[str, Any]) -> dict[str, Any]:
    return edit_check(asked.shown, judgement)


EDIT: JudgementKind[EditForm] = JudgementKind(
    kind=Task.Kind.EDIT, check=_check, keep=edit_keep, rows=(Edit, Comparison)
)
