"""Settings of comparing two policies. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import dtype_check, positive_check


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Compare two policies on held-out prompts. Reads `before`, `after` (policies), `reward`,
    `prompts`, `candidates_before`, `candidates_after`; writes `evaluation` (samples.jsonl)."""

    PROGRAM: ClassVar[str] = "evaluate"
    budget_tokens: int = 8192
    max_tokens: int = 2048
    bootstrap_samples: int = 2000
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        positive_check(self, "budget_tokens", "max_tokens", "bootstrap_samples")
        dtype_check(self)
