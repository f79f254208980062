"""Settings of context distillation. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import DTYPES, positive_check
from modelhub.ml.configs import choices_check, one_of, require


@dataclass(frozen=True, kw_only=True)
class ContextDistillationConfig:
    """Keep the answers written under a pre-prompt that are better than those without. Reads
    `reward`, `prompts`, `candidates` and `candidates_under` (of runs of `generate` without and with
    `pre_prompt`); writes output `demonstrations`, to be learnt without the pre-prompt."""

    PROGRAM: ClassVar[str] = "context_distillation"
    margin: float = 0.0  # in reward, by which an answer must be above the best original
    finished_only: bool = True  # an answer cut off by the length limit is never kept
    budget_tokens: int = 8192
    max_tokens: int = 2048
    dtype: str = one_of(DTYPES, "float32")

    def __post_init__(self) -> None:
        positive_check(self, "budget_tokens", "max_tokens")
        require(self.margin >= 0, self.PROGRAM, "margin", self.margin, "0 or more")
        choices_check(self)
