"""Rows of the files that improving and evaluating write, beside demonstrations.jsonl.

Plain Python, standard library only: pages and reports read them without a training library.
"""

from dataclasses import dataclass
from typing import Any

TASKS_NAME = "tasks.jsonl"
LABELS_NAME = "labels.jsonl"
PROPOSALS_NAME = "proposals.jsonl"


@dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """An answer that rejection sampling looked at: a line of scores.jsonl.

    Sorted by prompt, then source, then index.
    """

    prompt_id: str
    source: str  # "candidates", or the input "pool_1", "pool_2", … it came from
    index: int  # of the candidate; in a pool, its place among the prompt's rows
    # The reward model's; None: too long to be scored. Of a checker alone 1 for right, 0 for wrong
    score: float | None
    tokens: int | None  # of the answer, its end included; None: no reward model has read it
    finish_reason: str
    kept: bool
    right: bool | None = None  # by the checker; None: there was none


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """A held-out answer of one policy: a line of samples.jsonl.

    Sorted by prompt, then side ("after" before "before"), then index. Log-probabilities are sums
    over the answer's tokens at temperature 1, in nats, and `kl` is the sum over its tokens of
    KL(after‖before) of the next-token distributions; both are taken on `after`'s answers alone.
    """

    prompt_id: str
    side: str  # "before", "after"
    index: int
    text: str
    finish_reason: str
    tokens: int  # of the answer, its end included
    reward: float
    logprob_after: float | None
    logprob_before: float | None
    kl: float | None


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """The answers of one task that waits for judges: a line of tasks.jsonl."""

    prompt_id: str
    messages: list[dict[str, str]]
    candidates: list[dict[str, Any]]  # {"id", "text", "finish_reason"}
    task: str = ""  # its uid, where a judgement of it is wanted
    split: str = "train"  # its prompt's side: "train", "validation" or "held_out"


@dataclass(frozen=True, kw_only=True)
class VerdictRecord:
    """What a judge said of two answers in one order: a line of verdicts.jsonl.

    Sorted by task and pair; the two orders of a pair follow each other.
    """

    task: str
    first: str  # ids of candidates, as the judge saw them
    second: str
    verdict: str  # "a", "b", "tie"; "unread": no reply was a verdict; "too_long": not asked
    reply: str  # the last one
    attempts: int


@dataclass(frozen=True, kw_only=True)
class LabelRecord:
    """A judge's label of one task: a line of labels.jsonl."""

    task: str
    tiers: list[list[str]]  # ids of candidates, best first
    agreed: int  # of its pairs, those judged alike in both orders
    pairs: int


@dataclass(frozen=True, kw_only=True)
class RatedRecord:
    """What a judge said of one answer: a line of ratings.jsonl. Sorted by task and answer."""

    task: str
    candidate: str  # its id
    rating: int | None  # 1 to 7; None: no reply was a rating, or it was not asked
    finish_reason: str  # of the last reply; "too_long": the question had no room
    reply: str  # the last one
    attempts: int


@dataclass(frozen=True, kw_only=True)
class RatingLabelRecord:
    """A judge's ratings of one task: a line of labels.jsonl."""

    task: str
    ratings: dict[str, int]  # id of each candidate → 1 to 7


@dataclass(frozen=True, kw_only=True)
class RevisionRecord:
    """An answer that a model criticised and wrote anew: a line of revisions.jsonl.

    Sorted by task and step; the last revision of a task is its label.
    """

    task: str
    original: str  # id of the candidate that was taken up
    step: int  # from 0; each starts from the text of the one before
    principle: str
    critique: str
    text: str  # the revision
    outcome: str  # "revised", or why the text is none: one of alignment.ml.revise.OUTCOMES
    attempts: int  # of both questions


@dataclass(frozen=True, kw_only=True)
class RevisionLabelRecord:
    """A model's revision of one of a task's answers: a line of labels.jsonl."""

    task: str
    original: str  # id of the candidate
    text: str
    reason: str  # the principles and critiques it came by


@dataclass(frozen=True, kw_only=True)
class MemberScoreRecord:
    """An answer as an ensemble of reward models sees it: a line of scores.jsonl."""

    candidate: str  # its id
    prompt_id: str
    score: float  # the members' combined
    members: list[float]  # each member's own, on a common zero


@dataclass(frozen=True, kw_only=True)
class ProposalRecord:
    """A prompt that a model has written and a person has not seen: a line of proposals.jsonl."""

    text: str
    round: int  # of the run, from 0
