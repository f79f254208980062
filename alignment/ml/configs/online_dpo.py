"""Settings of online DPO. Standard library only."""

from dataclasses import dataclass
from typing import Any, ClassVar

from alignment.ml.configs.checks import positive_check
from alignment.ml.configs.online import OnlineSettings
from modelhub.ml.configs import one_of, require

ONLINE_DPO_LOSSES = ("sigmoid", "hinge", "ipo")


@dataclass(frozen=True, kw_only=True)
class OnlineDpoConfig(OnlineSettings):
    """Improve a policy by DPO on pairs of its own answers, the better and the worse of a prompt by
    what rewards them. Reads `base` (the policy), `prompts`, and `reward`, or `reward` and `safety`
    (reward models), or `references` for a checker. May read `reference` (the policy that it is kept
    near; else `base`) and `evaluation_prompts`, never trained on. Writes
    output `model`, or `adapter`."""

    PROGRAM: ClassVar[str] = "online_dpo"
    samples: int = 2  # answers to each prompt; of more than two the best and the worst are a pair
    loss: str = one_of(ONLINE_DPO_LOSSES, "sigmoid")
    beta: float = 0.1  # how dear it is to leave the reference; ipo's τ
    iterations: int = 1  # passes over a step's pairs

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        self.online_check()
        positive_check(self, "beta", "iterations")
        check(self.samples >= 2, "samples", "2 or more: an answer is weighed against another")
        check(
            not self.whiten_scores and self.reward_scale > 0,
            "whiten_scores" if self.whiten_scores else "reward_scale",
            "false: a pair's order is all that counts" if self.whiten_scores else "more than 0",
        )


# Named after who published them; what their papers leave to the size of the model is left out.
PRESETS: dict[str, dict[str, Any]] = {
    # Guo et al. 2024 (arXiv:2402.04792), appendix: two answers, β 0.1, batches of 128.
    "OAIF": {"samples": 2, "loss": "sigmoid", "beta": 0.1, "prompts_per_step": 128, "lr": 5e-7},
    # Dong et al. 2024 (arXiv:2405.07863): the best and the worst of eight.
    "best and worst of eight": {"samples": 8, "loss": "sigmoid", "beta": 0.1, "lr": 5e-7},
}
