"""All kinds of judgements, and submitting one by its task's kind."""

from collections.abc import Mapping
from typing import Any

from annotation.models import Assignment
from annotation.services.demonstrations import DEMONSTRATION
from annotation.services.dialogues import DIALOGUE
from annotation.services.edits import EDIT
from annotation.services.pairs import PAIR
from annotation.services.rankings import RANKING
from annotation.services.ratings import RATING
from annotation.services.submissions import JudgementKind, Settled, submission_settle

KINDS: Mapping[str, JudgementKind[Any]] = {
    one.kind: one for one in (DEMONSTRATION, RANKING, PAIR, RATING, EDIT, DIALOGUE)
}


def judgement_submit(
    *,
    assignment: Assignment,
    judgement: dict[str, Any],
    rationale: str = "",
    active_s: float = 0.0,
    first_move_s: float | None = None,
) -> Settled:
    """Store a judgement, in the form its task's kind has. See submission_settle."""
    return submission_settle(
        KINDS[assignment.task.kind],
        assignment=assignment,
        judgement=judgement,
        rationale=rationale,
        active_s=active_s,
        first_move_s=first_move_s,
    )
