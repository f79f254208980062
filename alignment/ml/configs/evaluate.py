"""Settings of comparing two policies. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import DTYPES, positive_check
from modelhub.ml.configs import choices_check, one_of


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Compare two policies on held-out prompts. Reads `before`, `after` (policies), `reward`,
    `prompts`, `candidates_before`, `candidates_after`; writes `evaluation` (samples.jsonl)."""

    PROGRAM: ClassVar[str] = "evaluate"
    budget_tokens: int = 8192
    max_tokens: int = 2048
    bootstrap_samples: int = 2000
    dtype: str = one_of(DTYPES, "float32")
    seed: int = 0

    def __post_init__(self) -> None:
        positive_check(self, "budget_tokens", "max_tokens", "bootstrap_samples")
        choices_check(self)
