"""What somebody said, in the one form in which it is compared, revised, undone and scored."""

from collections.abc import Callable
from typing import Any

from annotation.models import Degree, Submission, Task

Kind = Task.Kind


def judgement_of(submission: Submission) -> dict[str, Any]:
    """The judgement of a submission, as one that is submitted.

    What has no order is sorted, so the same judgement is the same value. At most three queries,
    none where the rows of the kind, and the candidates they name, were fetched with the submission.
    """
    return _READERS[submission.task.kind](submission)


def _ranking(submission: Submission) -> dict[str, Any]:
    ranking = submission.ranking
    return {
        "tiers": [sorted(tier) for tier in ranking.tiers],
        "unacceptable": sorted(ranking.unacceptable),
        **({"rewrite": _edit(submission)} if hasattr(submission, "edit") else {}),
    }


def _pair(submission: Submission) -> dict[str, Any]:
    comparison = submission.comparison
    tie = comparison.degree == Degree.TIE
    return {
        "better": None if tie else comparison.better.uid,
        "degree": comparison.degree,
        "unsafe": sorted(comparison.unsafe),
    }


def _rating(submission: Submission) -> dict[str, Any]:
    return {"ratings": submission.rating.ratings}


def _edit(submission: Submission) -> dict[str, Any]:
    edit = submission.edit
    return {"original": edit.original.uid, "text": edit.candidate.text}


def _demonstration(submission: Submission) -> dict[str, Any]:
    demonstration = submission.demonstration
    started_from = demonstration.started_from
    return {
        "text": demonstration.candidate.text,
        "started_from": started_from.uid if started_from else None,
        "turns": demonstration.turns,
    }


def _dialogue(submission: Submission) -> dict[str, Any]:
    return {"turns": submission.dialogue.turns}


_READERS: dict[str, Callable[[Submission], dict[str, Any]]] = {
    Kind.RANKING: _ranking,
    Kind.PAIR: _pair,
    Kind.RATING: _rating,
    Kind.EDIT: _edit,
    Kind.DEMONSTRATION: _demonstration,
    Kind.DIALOGUE: _dialogue,
}
