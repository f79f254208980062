"""Settings of supervised fine-tuning. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from alignment.ml.configs.adapters import AdapterSettings
from alignment.ml.configs.checks import DTYPES, OPTIMIZERS, positive_check
from alignment.ml.configs.splits import SplitSettings
from modelhub.ml.configs import choices_check, one_of, require

LOSS_TURNS = ("written", "every", "last")


@dataclass(frozen=True, kw_only=True)
class SftConfig(AdapterSettings, SplitSettings):
    """Fine-tune a policy on conversations. Reads `base` (an adapter with `base_base`) and
    `demonstrations`, with any `demonstrations_2`, …, and may read `reward`, a reward model by which
    the step that is published is chosen; writes `model`, or `adapter`."""

    PROGRAM: ClassVar[str] = "sft"
    # Published recipes, by the name that `preset` takes; settings beside it win.
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Touvron et al. 2023 (arXiv:2307.09288), section 3.1.
        "llama-2": {
            "epochs": 2,
            "lr": 2e-5,
            "warmup_share": 0.0,
            "weight_decay": 0.1,
            "examples_per_step": 64,
            "budget_tokens": 4096,
            "max_tokens": 4096,
            "loss_turns": "every",
            "end_of_session": "<|end_of_session|>",
            "sample_every_steps": 100,
        },
        # Ouyang et al. 2022 (arXiv:2203.02155), appendix C.1: their 1.3B and 6B models.
        "instructgpt": {
            "epochs": 16,
            "lr": 9.65e-6,
            "warmup_share": 0.0,
            "examples_per_step": 32,
            "max_tokens": 2048,
            "dropout": 0.2,
            "sample_every_steps": 100,
        },
    }
    epochs: int = 2
    lr: float = 2e-5
    lr_final_share: float = 0.1
    warmup_share: float = 0.03
    weight_decay: float = 0.0
    examples_per_step: int = 8
    budget_tokens: int = 4096  # of one packed row; memory, not the result, depends on it
    max_tokens: int = 1024  # prompt + answer; longer examples are left out and counted, never cut
    max_grad_norm: float = 1.0
    # Turns with a loss: "written" (the demonstration's own), "every" assistant's, or the "last".
    loss_turns: str = one_of(LOSS_TURNS, "written")
    # A token that is learnt behind every conversation that ended, added to the vocabulary if it is
    # new there, such as <|end_of_session|>; empty: none.
    end_of_session: str = ""
    dropout: float = 0.0  # of what each attention and MLP adds to the residual stream
    # The moments in 8 bits, in paged memory, or both, are for NVIDIA GPUs.
    optimizer: str = one_of(OPTIMIZERS, "adamw")
    # Of the products; weights are trained in float32. bfloat16 hides a short run's small updates of
    # the weights from itself: take it for adapters and long runs.
    dtype: str = one_of(DTYPES, "float32")
    gradient_checkpointing: bool = False
    checkpoint_every_steps: int = 20
    # On the validation split; 0: before and after training alone. With a reward model the step of
    # these whose answers it likes best is published.
    evaluate_every_steps: int = 0
    evaluate_at_most: int = 200  # conversations of a split that are read, the first by id
    sample_every_steps: int = 0  # greedy answers to fixed prompts, into the log; 0: none
    sample_prompts: int = 3
    sample_tokens: int = 48  # of such an answer
    choice_tokens: int = 256  # of an answer by which a reward model chooses the published step
    bootstrap_samples: int = 2000
    loss_rise_limit: float = 10.0  # stop when the loss stays so many times its level; 0: never
    grad_norm_rise_limit: float = 100.0  # the same of the gradient's norm, before it is clipped
    seed: int = 0

    def __post_init__(self) -> None:
        choices_check(self)
        positive_check(self, "epochs", "lr", "examples_per_step", "budget_tokens", "max_tokens")
        positive_check(self, "max_grad_norm", "checkpoint_every_steps", "evaluate_at_most")
        positive_check(self, "sample_prompts", "sample_tokens", "choice_tokens")
        positive_check(self, "bootstrap_samples")
        self.split_check(self.PROGRAM)

        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        for field in ("lr_final_share", "warmup_share"):
            check(0 <= getattr(self, field) <= 1, field, "0 to 1")
        for field in (
            "weight_decay",
            "evaluate_every_steps",
            "sample_every_steps",
            "loss_rise_limit",
            "grad_norm_rise_limit",
        ):
            check(getattr(self, field) >= 0, field, "0 or more")
        check(0 <= self.dropout < 1, "dropout", "0 to less than 1")
        self.adapter_check(self.PROGRAM)
