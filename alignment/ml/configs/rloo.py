"""Settings of REINFORCE leave-one-out. Standard library only."""

from dataclasses import dataclass
from typing import Any, ClassVar

from alignment.ml.configs.online import GroupSettings
from modelhub.ml.configs import require


@dataclass(frozen=True, kw_only=True)
class RlooConfig(GroupSettings):
    """Improve a policy by REINFORCE, each answer's baseline the mean of the others to its prompt.
    Reads `base` (the policy), `prompts`, and what rewards it: `reward`, or `reward` and `safety`
    (reward models), or `references` for a checker. May read `reference` (the policy that KL is
    counted from; else `base`) and `evaluation_prompts`, never trained on. Writes
    output `model`, or `adapter`."""

    PROGRAM: ClassVar[str] = "rloo"
    cliprange: float = 0.2  # of an answer's ratio; it binds from the second update of a step on
    normalize_advantages: bool = False  # to mean 0 and deviation 1 over a step

    def __post_init__(self) -> None:
        self.group_check()
        require(self.cliprange > 0, self.PROGRAM, "cliprange", self.cliprange, "more than 0")


# Named after who published them; what their papers leave to the size of the model is left out.
PRESETS: dict[str, dict[str, Any]] = {
    # Ahmadian et al. 2024 (arXiv:2402.14740): four answers a prompt, the KL in the reward.
    "RLOO": {
        "samples": 4,
        "iterations": 1,
        "minibatches": 1,
        "kl_in": "reward",
        "kl_estimator": "k1",
        "kl_coef": 0.03,
        "lr": 1e-6,
    },
}
