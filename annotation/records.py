"""The rows of a frozen snapshot: all that training knows of what people said.

Plain Python, standard library only: `alignment.ml` reads these on machines with no database.
"""

from dataclasses import dataclass
from typing import Any

RANKINGS_NAME = "rankings.jsonl"  # of the file in a snapshot


@dataclass(frozen=True, kw_only=True)
class RankedCandidate:
    """A candidate inside a ranking row."""

    id: str
    text: str
    finish_reason: str
    token_count: int | None
    model_version: str | None  # uid of the version that wrote it


@dataclass(frozen=True, kw_only=True)
class RankingRecord:
    """One accepted ranking. Rows of a snapshot are sorted by `id`, candidates by their id."""

    id: str  # uid of the submission
    prompt_id: str
    messages: list[dict[str, str]]
    split: str  # "train", "validation", "held_out"
    tags: list[str]
    batch: str | None  # uid of the candidate batch: which round's distribution it is
    candidates: list[dict[str, Any]]  # RankedCandidate as JSON
    tiers: list[list[str]]  # candidate ids, best first; one list is a tie
    unacceptable: list[str]
    annotator: str  # pseudonym
    is_simulated: bool
    shown_order: list[str]
    active_s: float
    rationale: str
    guideline: int | None  # its number
