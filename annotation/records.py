"""The rows of a frozen snapshot: all that training knows of what people said.

Plain Python, standard library only: `alignment.ml` reads these on machines with no database.
"""

from dataclasses import dataclass, field
from typing import Any

# The file in a snapshot: of what compares answers, of what rates each alone, of what was written.
RANKINGS_NAME = "rankings.jsonl"
RATINGS_NAME = "ratings.jsonl"
DEMONSTRATIONS_NAME = "demonstrations.jsonl"
KINDS = ("ranking", "pair", "edit", "dialogue")  # of which a snapshot holds rankings
SOURCES = ("person", "simulated", "model", "product")

_AT_NEED = {"written": "unless default"}


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
    """One accepted comparison of answers to one prompt: a ranking, or what can be told as one.

    Rows of a snapshot are sorted by `id`, candidates by their id. What comes after `guideline` is
    written only where it says something, so that a ranking's row is the same in every release.
    """

    id: str  # uid of the submission; of a dialogue, with the turn's number behind it
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
    source: str = field(default="", metadata=_AT_NEED)  # whose: if not as is_simulated says
    weight: float = field(default=1.0, metadata=_AT_NEED)  # how far the annotator is relied on
    kind: str = field(default="ranking", metadata=_AT_NEED)  # of the task: one of KINDS
    # A choice between two: 1 negligibly better or unsure, 2 slightly, 3 better, 4 significantly.
    degree: int | None = field(default=None, metadata=_AT_NEED)  # 0 a tie; None: not asked
    # Ids of those that were called unsafe; None: not asked.
    unsafe: list[str] | None = field(default=None, metadata=_AT_NEED)
    # An edit's words: [["=", kept], ["-", taken out], ["+", put in], …].
    diff: list[list[str]] | None = field(default=None, metadata=_AT_NEED)

    @property
    def judged_by(self) -> str:
        """Whose judgement it is: one of SOURCES."""
        return source_told(self.source, self.is_simulated)


@dataclass(frozen=True, kw_only=True)
class RatingRecord:
    """One accepted rating of one answer by itself. Sorted by `id`."""

    id: str  # uid of the submission and, behind it, the answer's id
    rating_id: str  # uid of the submission
    prompt_id: str
    messages: list[dict[str, str]]
    split: str
    tags: list[str]
    batch: str | None
    candidate: dict[str, Any]  # RankedCandidate as JSON
    overall: int  # 1 to 7
    flags: list[str]
    annotator: str
    is_simulated: bool
    source: str  # one of SOURCES
    weight: float
    shown_order: list[str]
    active_s: float
    rationale: str
    guideline: int | None


@dataclass(frozen=True, kw_only=True)
class DemonstrationRecord:
    """One accepted demonstration: an answer that a person wrote. Sorted by `id`."""

    id: str  # uid of the submission
    prompt_id: str
    messages: list[dict[str, str]]
    split: str
    tags: list[str]
    batch: str | None
    candidate: dict[str, Any]  # RankedCandidate as JSON: what was written
    started_from: str | None  # id of the model's answer that was written on from
    turns: list[dict[str, str]]  # what follows: [{"user", "text"}, …]
    annotator: str
    is_simulated: bool
    source: str
    weight: float
    active_s: float
    rationale: str
    guideline: int | None


def source_told(source: str, is_simulated: bool) -> str:
    """The source that a row tells: its own, or what `is_simulated` alone says."""
    return source or ("simulated" if is_simulated else "person")
