"""Settings of reward-model training. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import dtype_check, positive_check
from modelhub.ml.configs import require


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Train a reward model on rankings. Reads `base` (a policy, or a reward model to go on from)
    and `rankings` (rankings.jsonl); writes output `model`."""

    PROGRAM: ClassVar[str] = "reward"
    epochs: int = 1
    lr: float = 9e-6  # peak, after warm-up
    head_lr: float = 0.0  # peak of the score head, which starts from nothing; 0 takes `lr`
    lr_final_share: float = 0.1  # of the peak, at the end of the cosine
    warmup_share: float = 0.03  # of all steps
    weight_decay: float = 0.0
    rankings_per_step: int = 8  # about; all rankings of the same answers are in one step
    budget_tokens: int = 4096  # of one packed row; memory, not the result, depends on it
    max_tokens: int = 1024  # prompt + answer; longer rankings are left out and counted, never cut
    max_grad_norm: float = 1.0
    center_weight: float = 0.0  # c · mean(score²): keeps scores near 0 (Eisenstein et al. 2023)
    margin: float = 0.0  # how far apart the scores of a pair should be at least, in nats
    frozen_layers: int = 0  # the embedding and this many layers above it stay the base's: cheaper
    dtype: str = "float32"  # of the products; weights are trained in float32
    gradient_checkpointing: bool = False
    checkpoint_every_steps: int = 20
    evaluate_every_steps: int = 0  # on validation rankings; 0: at the end alone
    bootstrap_samples: int = 2000
    # Candidate batches whose held-out rankings are the test: a round's own; none takes all.
    held_out_batches: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        positive_check(self, "epochs", "lr", "rankings_per_step", "budget_tokens", "max_tokens")
        positive_check(self, "max_grad_norm", "checkpoint_every_steps", "bootstrap_samples")
        for field in ("head_lr", "weight_decay", "center_weight", "margin", "frozen_layers"):
            value = getattr(self, field)
            require(value >= 0, self.PROGRAM, field, value, "0 or more")
        for field in ("lr_final_share", "warmup_share"):
            value = getattr(self, field)
            require(0 <= value <= 1, self.PROGRAM, field, value, "0 to 1")
        dtype_check(self)
