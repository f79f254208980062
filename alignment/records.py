"""Rows of the files that improving and evaluating write, beside demonstrations.jsonl.

Plain Python, standard library only: pages and reports read them without a training library.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """An answer that rejection sampling looked at: a line of scores.jsonl.

    Sorted by prompt, then source, then index.
    """

    prompt_id: str
    source: str  # "candidates", or the input "pool_1", "pool_2", … it came from
    index: int  # of the candidate; in a pool, its place among the prompt's rows
    score: float | None  # the reward model's; None: too long to be scored
    tokens: int  # of the answer, its end included
    finish_reason: str
    kept: bool


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
