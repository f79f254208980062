"""Settings of direct preference optimisation. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.preference import PreferenceSettings
from alignment.ml.configs.reward import DEGREE_MARGINS
from modelhub.ml.configs import choices_check, one_of, require

DPO_LOSSES = ("sigmoid", "conservative", "robust", "hinge", "ipo")
SMOOTHED = ("conservative", "robust")  # label smoothing does nothing for the others
WITH_MARGIN = ("sigmoid", "hinge")


@dataclass(frozen=True, kw_only=True)
class DpoConfig(PreferenceSettings):
    """Train a policy on rankings without a reward model. Reads `base` (an adapter with `base_base`)
    and `rankings`; writes `model`, or `adapter`."""

    PROGRAM: ClassVar[str] = "dpo"
    loss: str = one_of(DPO_LOSSES, "sigmoid")
    beta: float = 0.1  # how dear it is to leave the reference; ipo's τ
    label_smoothing: float = 0.0  # the chance that a label is wrong: conservative and robust
    # By degree of preference, for sigmoid and hinge.
    degree_margin: str = one_of(DEGREE_MARGINS, "none")
    annotator_weights: bool = False  # count a ranking by the weight its row carries
    rankings_per_step: int = 16  # about; all rankings of the same answers are in one step

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        choices_check(self)
        check(self.beta > 0, "beta", "more than 0")
        check(self.rankings_per_step > 0, "rankings_per_step", "more than 0")
        if self.loss in SMOOTHED:
            # At one half every label says nothing, above it the opposite of what was said.
            check(0 < self.label_smoothing < 0.5, "label_smoothing", "more than 0, less than 0.5")
        else:
            check(
                self.label_smoothing == 0,
                "label_smoothing",
                f"0: it does nothing to {self.loss}; take loss conservative or robust",
            )
        if self.loss not in WITH_MARGIN:
            check(self.degree_margin == "none", "degree_margin", f"none: {self.loss} has no margin")
        self.preference_check()
