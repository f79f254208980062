"""Settings that the methods which learn from preferences have in common. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.adapters import AdapterSettings
from alignment.ml.configs.checks import DTYPES, OPTIMIZERS, positive_check
from modelhub.ml.configs import choices_check, one_of, require


@dataclass(frozen=True, kw_only=True)
class PreferenceSettings(AdapterSettings):
    """How a policy is trained on judged answers, whatever the loss."""

    PROGRAM: ClassVar[str] = ""
    # An answer is weighed against another, or against the reference: by one and the same model.
    dropout: ClassVar[float] = 0.0
    epochs: int = 1
    lr: float = 1e-6  # peak, after warm-up
    lr_final_share: float = 0.1  # of the peak, at the end of the cosine
    warmup_share: float = 0.1  # of all steps
    weight_decay: float = 0.0
    # The moments in 8 bits, in paged memory, or both, are for NVIDIA GPUs.
    optimizer: str = one_of(OPTIMIZERS, "adamw")
    budget_tokens: int = 4096  # of one packed row; memory, not the result, depends on it
    max_tokens: int = 1024  # prompt + answer; longer ones are left out and counted, never cut
    max_grad_norm: float = 1.0
    # Of the products; weights are trained in float32.
    dtype: str = one_of(DTYPES, "float32")
    gradient_checkpointing: bool = False
    checkpoint_every_steps: int = 20
    evaluate_every_steps: int = 0  # on the validation split; 0: not while it trains
    bootstrap_samples: int = 2000
    loss_rise_limit: float = 10.0  # stop when the loss stays so many times its level; 0: never
    grad_norm_rise_limit: float = 100.0  # the same of the gradient's norm, before it is clipped
    seed: int = 0

    def preference_check(self) -> None:
        """Raise ConfigError naming the first field that does not fit."""

        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        choices_check(self)
        positive_check(self, "epochs", "lr", "budget_tokens", "max_tokens", "max_grad_norm")
        positive_check(self, "checkpoint_every_steps", "bootstrap_samples")
        for field in ("lr_final_share", "warmup_share"):
            check(0 <= getattr(self, field) <= 1, field, "0 to 1")
        for field in ("weight_decay", "evaluate_every_steps"):
            check(getattr(self, field) >= 0, field, "0 or more")
        for field in ("loss_rise_limit", "grad_norm_rise_limit"):
            value = getattr(self, field)
            check(value == 0 or value > 1, field, "more than 1, or 0 for no limit")
        check(self.lora_dropout == 0, "lora_dropout", "0: answers are compared under one model")
        self.adapter_check(self.PROGRAM)
