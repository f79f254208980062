"""Settings of taking several reward models as one. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import DTYPES, positive_check
from alignment.ml.configs.reward import COMBINATIONS
from modelhub.ml.configs import choices_check, one_of, require

WEIGHT_AVERAGE = "weight_average"


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Take reward models as one. Reads `reward_1`, `reward_2`, … (runs of other seeds, or one model
    of several heads), and `rankings` (to be tested on the held-out ones), `tasks` (tasks.jsonl, to
    be scored), or both; writes `scores` (scores.jsonl) of the tasks, and `model` where the weights
    are averaged."""

    PROGRAM: ClassVar[str] = "reward_ensemble"
    # Of the members' scores; or weight_average: of the members themselves.
    combine: str = one_of((*COMBINATIONS, WEIGHT_AVERAGE), "mean")
    uncertainty_weight: float = 0.5  # w, for "uncertain": mean - w · variance
    budget_tokens: int = 8192
    max_tokens: int = 2048
    bootstrap_samples: int = 2000
    dtype: str = one_of(DTYPES, "float32")
    seed: int = 0

    def __post_init__(self) -> None:
        positive_check(self, "budget_tokens", "max_tokens", "bootstrap_samples")
        weight = self.uncertainty_weight
        require(weight >= 0, self.PROGRAM, "uncertainty_weight", weight, "0 or more")
        choices_check(self)
