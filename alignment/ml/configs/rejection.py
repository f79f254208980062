"""Settings of rejection sampling. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import dtype_check, positive_check


@dataclass(frozen=True, kw_only=True)
class RejectionConfig:
    """Score samples and keep each prompt's best. Reads `reward` (a reward model), `prompts`,
    `candidates`, and any `pool_1`, `pool_2`, … (the bests of earlier rounds); writes output
    `demonstrations` (demonstrations.jsonl) with its scores."""

    PROGRAM: ClassVar[str] = "rejection"
    keep: int = 1  # best answers kept of each prompt
    finished_only: bool = True  # an answer cut off by the length limit is never kept
    budget_tokens: int = 8192
    max_tokens: int = 2048
    dtype: str = "float32"

    def __post_init__(self) -> None:
        positive_check(self, "keep", "budget_tokens", "max_tokens")
        dtype_check(self)
