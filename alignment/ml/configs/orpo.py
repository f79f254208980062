"""Settings of odds ratio preference optimisation. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import positive_check
from alignment.ml.configs.preference import PreferenceSettings


@dataclass(frozen=True, kw_only=True)
class OrpoConfig(PreferenceSettings):
    """Fine-tune on the best answers of rankings and turn from the others, with no reference. Reads
    `base` (an adapter with `base_base`) and `rankings`; writes `model`, or `adapter`."""

    PROGRAM: ClassVar[str] = "orpo"
    lr: float = 8e-6  # peak, after warm-up
    odds_weight: float = 0.1  # λ: of the odds ratio's loss, beside fine-tuning's
    annotator_weights: bool = False  # count a ranking by the weight its row carries
    rankings_per_step: int = 32  # about; all rankings of the same answers are in one step

    def __post_init__(self) -> None:
        positive_check(self, "odds_weight", "rankings_per_step")
        self.preference_check()
