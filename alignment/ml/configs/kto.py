"""Settings of Kahneman-Tversky optimisation. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import positive_check
from alignment.ml.configs.preference import PreferenceSettings
from modelhub.ml.configs import require

# What the classes' weights are best in proportion to: λ_D·n_D / (λ_U·n_U), arXiv:2402.01306, eq. 8.
BALANCE = (1.0, 1.5)


@dataclass(frozen=True, kw_only=True)
class KtoConfig(PreferenceSettings):
    """Train a policy on answers that are desirable or not, each by itself. Reads `base` (an adapter
    with `base_base`), `ratings` or `rankings` or both; writes `model`, or `adapter`."""

    PROGRAM: ClassVar[str] = "kto"
    lr: float = 5e-6  # peak, after warm-up
    beta: float = 0.1  # how dear it is to leave the reference
    desirable_weight: float = 1.0  # λ_D
    undesirable_weight: float = 1.0  # λ_U
    balance: bool = False  # raise the weight of the class that weighs too little, if one does
    desirable_from: float = 5.0  # rating, 1 to 7, of an answer to be like
    undesirable_to: float = 3.0  # of one to be unlike; between the two nothing is learnt
    annotator_weights: bool = False  # count a row by the weight it carries
    examples_per_step: int = 32  # answers, about; all of a prompt are in one step
    kl_limit: float = 0.0  # nats an answer: stop when z0 stays above it; 0: never

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        positive_check(self, "beta", "desirable_weight", "undesirable_weight")
        check(self.examples_per_step > 1, "examples_per_step", "more than 1: both classes")
        check(1 <= self.undesirable_to <= 7, "undesirable_to", "1 to 7")
        check(
            self.undesirable_to < self.desirable_from <= 7,
            "desirable_from",
            f"more than undesirable_to ({self.undesirable_to:g}), 7 at most",
        )
        check(self.kl_limit >= 0, "kl_limit", "0 or more")
        self.preference_check()
