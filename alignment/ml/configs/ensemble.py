"""Settings of taking several reward models as one. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import dtype_check, positive_check
from alignment.ml.configs.reward import COMBINATIONS
from modelhub.ml.configs import require

WEIGHT_AVERAGE = "weight_average"


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Take reward models as one. Reads `reward_1`, `reward_2`, … (runs of other seeds, or one model
    of several heads), and `rankings` (to be tested on the held-out ones), `tasks` (tasks.jsonl, to
    be scored), or both; writes `scores` (scores.jsonl) of the tasks, and `model` where the weights
    are averaged."""

    PROGRAM: ClassVar[str] = "reward_ensemble"
    combine: str = "mean"  # of the members' scores: mean, worst, uncertain; or weight_average
    uncertainty_weight: float = 0.5  # w, for "uncertain": mean - w · variance
    budget_tokens: int = 8192
    max_tokens: int = 2048
    bootstrap_samples: int = 2000
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        positive_check(self, "budget_tokens", "max_tokens", "bootstrap_samples")
        ways = (*COMBINATIONS, WEIGHT_AVERAGE)
        require(self.combine in ways, self.PROGRAM, "combine", self.combine, " or ".join(ways))
        weight = self.uncertainty_weight
        require(weight >= 0, self.PROGRAM, "uncertainty_weight", weight, "0 or more")
        dtype_check(self)
