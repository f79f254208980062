"""Settings of reward-model training. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.adapters import AdapterSettings
from alignment.ml.configs.checks import DTYPES, OPTIMIZERS, positive_check
from alignment.ml.configs.splits import SplitSettings
from modelhub.ml.configs import choices_check, one_of, require

# Of negligibly better or unsure, slightly better, better, significantly better: Touvron et al. 2023
# (arXiv:2307.09288), Table 27, in nats.
DEGREE_MARGINS: dict[str, tuple[float, float, float, float]] = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "small": (0.0, 1 / 3, 2 / 3, 1.0),
    "large": (0.0, 1.0, 2.0, 3.0),
}
COMBINATIONS = ("mean", "worst", "uncertain")


@dataclass(frozen=True, kw_only=True)
class RewardConfig(AdapterSettings, SplitSettings):
    """Train a reward model on rankings. Reads `base` (a policy, or a reward model to go on from)
    and `rankings` (rankings.jsonl), and if given `demonstrations` (whose mean score becomes 0) and
    `policy` (which must lay out chats as `base` does); writes output `model`, or `adapter`, which
    has the head in it."""

    PROGRAM: ClassVar[str] = "reward"
    epochs: int = 1
    lr: float = 9e-6  # peak, after warm-up
    head_lr: float = 0.0  # peak of the score head, which starts from nothing; 0 takes `lr`
    lr_final_share: float = 0.1  # of the peak, at the end of the cosine
    warmup_share: float = 0.03  # of all steps
    weight_decay: float = 0.0
    # The moments in 8 bits, in paged memory, or both, are for NVIDIA GPUs.
    optimizer: str = one_of(OPTIMIZERS, "adamw")
    rankings_per_step: int = 8  # about; all rankings of the same answers are in one step
    budget_tokens: int = 4096  # of one packed row; memory, not the result, depends on it
    max_tokens: int = 1024  # prompt + answer; longer rankings are left out and counted, never cut
    max_grad_norm: float = 1.0
    # What is learnt
    pairwise: bool = False  # each pair an example of its own: to compare with, it overfits
    margin: float = 0.0  # how far apart the scores of a pair should be at least, in nats
    # On top, by degree of preference: Llama 2's small or large ones.
    degree_margin: str = one_of(DEGREE_MARGINS, "none")
    soft_labels: bool = False  # several rankings of the same answers are one, by shares of votes
    label_smoothing: float = 0.0  # the chance that a label is the wrong way round
    annotator_weights: bool = False  # count a ranking by the weight its row carries
    center_weight: float = 0.0  # c · mean(score²): keeps scores near 0 (Eisenstein et al. 2023)
    safety_weight: float = 0.0  # of Llama 2's auxiliary loss on the answers' safety labels
    leave_out_unsafe_won: bool = False  # pairs in which an unsafe answer beat a safe one
    # What is trained
    reward_token: bool = False  # read scores at a <|reward|> token added to the vocabulary
    # The token that fine-tuning adds behind a session, for a policy that it will have made: added
    # to the vocabulary here too, so that PPO can have its answers read by their own tokens.
    end_of_session: str = ""
    heads: int = 1  # more are an ensemble on one backbone, each on a bootstrap of the prompts
    # Of the heads' scores; uncertain is mean - w · variance.
    combine: str = one_of(COMBINATIONS, "mean")
    uncertainty_weight: float = 0.5  # w, for "uncertain"
    frozen_layers: int = 0  # the embedding and this many layers above it stay the base's: cheaper
    # Of the products; weights are trained in float32.
    dtype: str = one_of(DTYPES, "float32")
    gradient_checkpointing: bool = False
    # When to look, keep and stop
    checkpoint_every_steps: int = 20  # a killed run goes on from its newest checkpoint
    evaluate_every_steps: int = 0  # on validation rankings; 0: at the end alone
    loss_rise_limit: float = 10.0  # stop when the loss has risen so many times; 0: never
    grad_norm_rise_limit: float = 50.0  # the same for the gradient's norm, above max_grad_norm
    bootstrap_samples: int = 2000
    # Candidate batches whose held-out rankings are the test: a round's own; none takes all.
    held_out_batches: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        choices_check(self)
        self.split_check(self.PROGRAM)
        positive_check(self, "epochs", "lr", "rankings_per_step", "budget_tokens", "max_tokens")
        positive_check(self, "max_grad_norm", "checkpoint_every_steps", "bootstrap_samples")
        for field in ("head_lr", "weight_decay", "center_weight", "margin", "frozen_layers"):
            check(getattr(self, field) >= 0, field, "0 or more")
        for field in ("safety_weight", "uncertainty_weight"):
            check(getattr(self, field) >= 0, field, "0 or more")
        for field in ("loss_rise_limit", "grad_norm_rise_limit"):
            value = getattr(self, field)
            check(value == 0 or value > 1, field, "more than 1, or 0 for no limit")
        for field in ("lr_final_share", "warmup_share"):
            check(0 <= getattr(self, field) <= 1, field, "0 to 1")
        # At one half every label says nothing, above it the opposite of what was said.
        check(0 <= self.label_smoothing < 0.5, "label_smoothing", "0 or more, less than 0.5")
        check(not (self.pairwise and self.soft_labels), "soft_labels", "false with pairwise")
        check(1 <= self.heads <= 16, "heads", "1 to 16")
        check(self.combine == "mean" or self.heads > 1, "combine", "mean for a single head")
        self.adapter_check(self.PROGRAM)
        self.undropped_check(self.PROGRAM)
        check(not (self.adapter and self.frozen_layers), "frozen_layers", "0 with an adapter")
        check(
            not (self.reward_token and self.publish == "adapter"),
            "reward_token",
            "false where the adapter is published by itself: the token is one of the base's rows",
        )
