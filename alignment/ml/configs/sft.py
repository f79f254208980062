"""Settings of supervised fine-tuning. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import dtype_check, positive_check
from modelhub.ml.configs import require


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Fine-tune a policy on demonstrations. Reads `base` and `demonstrations`; writes `model`."""

    PROGRAM: ClassVar[str] = "sft"
    epochs: int = 2
    lr: float = 2e-5
    lr_final_share: float = 0.1
    warmup_share: float = 0.03
    weight_decay: float = 0.0
    examples_per_step: int = 8
    budget_tokens: int = 4096  # of one packed row; memory, not the result, depends on it
    max_tokens: int = 1024  # prompt + answer; longer examples are left out and counted, never cut
    max_grad_norm: float = 1.0
    lora_rank: int = 0  # 0 trains every weight; more trains an adapter that is merged at the end
    lora_alpha: float = 32.0
    # Of the products; weights are trained in float32. bfloat16 hides a short run's small updates of
    # the weights from itself: take it for adapters and long runs.
    dtype: str = "float32"
    gradient_checkpointing: bool = False
    checkpoint_every_steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        positive_check(self, "epochs", "lr", "examples_per_step", "budget_tokens", "max_tokens")
        positive_check(self, "max_grad_norm", "checkpoint_every_steps")
        require(self.lora_rank >= 0, self.PROGRAM, "lora_rank", self.lora_rank, "0 or more")
        dtype_check(self)
