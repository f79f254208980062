"""Answers that people write: how long one may be, and where it is kept."""

from typing import Any

from django.utils.translation import gettext

from annotation.models import Candidate, Submission
from modelhub.errors import ApplicationError

MAX_TEXT_CHARS = 50_000  # a draft of it still fits into one save (assignments.MAX_DRAFT_BYTES)


def writing_check(text: str, field: str) -> str:
    """The text. Raises ApplicationError if it is empty, too long, or holds what no answer does."""
    if not text.strip():
        raise ApplicationError(gettext("There is nothing written."), {"field": field})
    if len(text) > MAX_TEXT_CHARS:
        raise ApplicationError(
            gettext("A text is at most %(max_text_chars)s characters; this has %(number)s.")
            % {"max_text_chars": MAX_TEXT_CHARS, "number": len(text)},
            {"field": field},
        )
    if "\x00" in text:
        raise ApplicationError(gettext("A text holds no NUL characters."), {"field": field})
    return text


def writing_keep(*, submission: Submission, text: str, written: dict[str, Any]) -> Candidate:
    """A candidate of the task's prompt that the annotator wrote; `written` says in what way.

    Written again by the same person for the same task it is the same candidate.
    """
    written = {**written, "submission": submission.uid}
    same = Candidate.objects.filter(
        prompt=submission.task.prompt_id,
        author=submission.annotator.user_id,
        batch=None,
        text=text,
    )
    for one in same:
        if one.decoding == written:
            return one
    return Candidate.objects.create(
        prompt_id=submission.task.prompt_id,
        text=text,
        author_id=submission.annotator.user_id,
        decoding=written,
        finish_reason="stop",
    )
