"""Settings of rejection sampling. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import CHECKERS, DTYPES, positive_check
from modelhub.ml.configs import choices_check, one_of, require


@dataclass(frozen=True, kw_only=True)
class RejectionConfig:
    """Score samples and keep each prompt's best. Reads `reward` (a reward model), or `references`
    for a checker, or both; `prompts`, `candidates`, and any `pool_1`, `pool_2`, … (the bests of
    earlier rounds); writes output `demonstrations` (demonstrations.jsonl) with its scores."""

    PROGRAM: ClassVar[str] = "rejection"
    # A function that tells right from wrong: a wrong answer is never kept. With a reward model too,
    # that chooses among the right ones.
    checker: str = one_of(CHECKERS, "", is_open=True)
    keep: int = 1  # best answers kept of each prompt
    finished_only: bool = True  # an answer cut off by the length limit is never kept
    # Of answers this much alike (share of their 5-character pieces in common) one is kept; 1: only
    # of those that are the same but for case and spaces.
    alike: float = 1.0
    gain_floor: float = 0.0  # how far above its prompt's mean score an answer is at least; 0: any
    budget_tokens: int = 8192
    max_tokens: int = 2048
    dtype: str = one_of(DTYPES, "float32")

    def __post_init__(self) -> None:
        positive_check(self, "keep", "budget_tokens", "max_tokens")
        require(0 < self.alike <= 1, self.PROGRAM, "alike", self.alike, "more than 0, at most 1")
        require(self.gain_floor >= 0, self.PROGRAM, "gain_floor", self.gain_floor, "0 or more")
        choices_check(self)
