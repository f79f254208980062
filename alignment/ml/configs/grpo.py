"""Settings of group relative policy optimisation. Standard library only."""

from dataclasses import dataclass
from typing import Any, ClassVar

from alignment.ml.configs.checks import positive_check
from alignment.ml.configs.online import KL_ESTIMATORS, KL_PLACES, GroupSettings
from modelhub.ml.configs import one_of

GRPO_LOSSES = ("grpo", "dapo", "dr_grpo")
REWARD_SCALES = ("group", "batch", "none")


@dataclass(frozen=True, kw_only=True)
class GrpoConfig(GroupSettings):
    """Improve a policy by clipped updates of its tokens, an answer's advantage its score among the
    others to its prompt. Reads `base` (the policy), `prompts`, and what rewards it: `reward`, or
    `reward` and `safety` (reward models), or `references` for a checker. May read `reference` (the
    policy that KL is counted from; else `base`) and `evaluation_prompts`, never trained on. Writes
    output `model`, or `adapter`."""

    PROGRAM: ClassVar[str] = "grpo"
    samples: int = 8  # answers to each prompt, two at least: each is weighed against the others
    # How tokens count: "grpo" each answer alike, "dapo" each token alike, "dr_grpo" each token
    # alike and by max_tokens, so that no length is favoured
    loss: str = one_of(GRPO_LOSSES, "dapo")
    scale_rewards: str = one_of(REWARD_SCALES, "group")  # whose deviation they are divided by
    cliprange: float = 0.2  # of a token's ratio, downwards
    cliprange_high: float = 0.2  # upwards; DAPO's clip-higher takes 0.28
    kl_coef: float = 0.0  # β, of the KL from the reference; 0: it is counted, and does nothing
    kl_in: str = one_of(KL_PLACES, "loss")  # where the KL counts
    # In the loss k2 or k3; in the reward k1 (log-ratio) or k3.
    kl_estimator: str = one_of(KL_ESTIMATORS, "k3")

    def __post_init__(self) -> None:
        self.group_check()
        positive_check(self, "cliprange", "cliprange_high")


# Named after who published them; what their papers leave to the size of the model is left out.
PRESETS: dict[str, dict[str, Any]] = {
    # Shao et al. 2024 (arXiv:2402.03300), section 4.2: 64 answers a prompt, β 0.04, one update.
    "GRPO": {
        "samples": 64,
        "prompts_per_step": 16,
        "max_tokens": 1024,
        "loss": "grpo",
        "scale_rewards": "group",
        "kl_in": "loss",
        "kl_estimator": "k3",
        "kl_coef": 0.04,
        "iterations": 1,
        "lr": 1e-6,
    },
    # Liu et al. 2025 (arXiv:2503.20783): no deviation, no length, no KL.
    "Dr. GRPO": {"loss": "dr_grpo", "scale_rewards": "none", "kl_coef": 0.0, "lr": 1e-6},
    # Yu et al. 2025 (arXiv:2503.14476): tokens alike, clip-higher, no KL; prompts that tell nothing
    # make room for others, ten times at most.
    "DAPO": {
        "samples": 16,
        "loss": "dapo",
        "scale_rewards": "group",
        "cliprange": 0.2,
        "cliprange_high": 0.28,
        "equal_groups": "drop",
        "redraws": 10,
        "kl_coef": 0.0,
        "lr": 1e-6,
    },
}
