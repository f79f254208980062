"""Settings that the methods which learn from answers they draw have in common. Standard library
only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.adapters import AdapterSettings
from alignment.ml.configs.checks import (
    CHECKERS,
    DTYPES,
    OPTIMIZERS,
    OWN_ENGINES,
    positive_check,
)
from modelhub.ml.configs import choices_check, one_of, require

EQUAL_GROUPS = ("keep", "drop")
KL_PLACES = ("reward", "loss")
KL_ESTIMATORS = ("k1", "k2", "k3")


@dataclass(frozen=True, kw_only=True)
class OnlineSettings(AdapterSettings):
    """How a policy draws answers, what scores them, and how a step is taken, whatever the loss."""

    PROGRAM: ClassVar[str] = ""

    # What is drawn
    epochs: int = 1  # times each prompt is used
    prompts_per_step: int = 16
    samples: int = 4  # answers to each prompt; they share its tokens everywhere
    max_tokens: int = 128  # of an answer
    max_context_tokens: int = 2048  # prompt + answer; a longer prompt is an error that names it
    temperature: float = 1.0  # of the draws, and of every log-probability
    # auto takes vllm where it is installed and can: on one process alone.
    engine: str = one_of(OWN_ENGINES, "auto")
    # Of the engine's weights, which are rounded stochastically to bfloat16.
    sampler_dtype: str = one_of(("float32", "bfloat16"), "float32")
    # Nats a token by which engine and trainer may differ; 0: by dtype
    canary_tolerance: float = 0.0

    # What is rewarded
    checker: str = one_of(CHECKERS, "", is_open=True)  # tells right from wrong; no model
    reward_scale: float = 1.0  # scores are multiplied by it, then shifted
    reward_shift: float = 0.0
    reward_clip: float = 0.0  # scores are kept within ± this; 0 clips nothing
    whiten_scores: bool = False  # answers' scores to mean 0, variance 1 over a step (Llama 2)
    missing_eos_penalty: float = 0.0  # taken from the score of an answer that did not end
    safety_threshold: float = 0.15  # below it an answer's safety is its reward (Llama 2)

    # Tripwires
    kl_limit: float = 0.0  # nats an answer at which the run stops early; 0: no limit
    rise_factor: float = 10.0  # of losses and gradient norms over their level: it fails; 0: off
    entropy_floor: float = 0.0  # nats a token under which the policy has collapsed; 0: off

    # Updates
    minibatches: int = 1  # updates in a pass; prompts are dealt out, their answers stay together
    lr: float = 1e-6  # the policy's, constant behind the warm-up
    warmup_steps: int = 0  # from a tenth of the rate, in a line
    # The moments in 8 bits, in paged memory, or both, are for NVIDIA GPUs.
    optimizer: str = one_of(OPTIMIZERS, "adamw")
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0  # of each network; 0 clips nothing

    # How it runs
    budget_tokens: int = 4096  # of one packed row; memory, not the result, depends on it
    # Of the products; weights are trained in float32.
    dtype: str = one_of(DTYPES, "float32")
    gradient_checkpointing: bool = False
    checkpoint_every_steps: int = 10
    evaluation_samples: int = 4  # answers to each evaluation prompt, before and after
    # Steps between scorings of the policy on half of the evaluation prompts: the one that scored
    # best is published, and the other half reports on it. 0: the last one
    evaluate_every_steps: int = 0
    bootstrap_samples: int = 2000
    seed: int = 0

    def online_check(self) -> None:
        """Raise ConfigError naming the first field that does not fit."""

        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        choices_check(self)
        positive_check(self, "epochs", "prompts_per_step", "samples", "max_tokens", "temperature")
        positive_check(self, "minibatches", "lr", "adam_epsilon", "budget_tokens")
        positive_check(self, "checkpoint_every_steps", "evaluation_samples", "bootstrap_samples")
        for field in (
            "canary_tolerance",
            "reward_clip",
            "missing_eos_penalty",
            "kl_limit",
            "rise_factor",
            "entropy_floor",
            "warmup_steps",
            "evaluate_every_steps",
            "weight_decay",
            "max_grad_norm",
        ):
            check(getattr(self, field) >= 0, field, "0 or more")
        check(0 < self.safety_threshold < 1, "safety_threshold", "more than 0, less than 1")
        check(0 <= self.adam_beta2 < 1, "adam_beta2", "0 or more, less than 1")
        check(
            self.max_context_tokens > self.max_tokens, "max_context_tokens", "more than max_tokens"
        )
        check(
            self.minibatches <= self.prompts_per_step,
            "minibatches",
            "at most prompts_per_step: a prompt's answers are not parted",
        )
        self.adapter_check(self.PROGRAM)
        self.undropped_check(self.PROGRAM)
        check(
            not (self.own_tokens and self.engine == "vllm"),
            "engine",
            f"transformers or auto: vLLM serves no {self.adapter} adapter",
        )


@dataclass(frozen=True, kw_only=True)
class GroupSettings(OnlineSettings):
    """How an answer is weighed against the others of its prompt, and kept near the reference."""

    samples: int = 4  # answers to each prompt, two at least: each is weighed against the others
    # Prompts whose answers all have the same score: "keep", or "drop" before the updates.
    equal_groups: str = one_of(EQUAL_GROUPS, "keep")
    # Times that such prompts of a step make room for others (DAPO); what is left of them then is
    # kept or dropped
    redraws: int = 0
    iterations: int = 1  # μ, passes over a step's answers
    target_kl: float = 0.0  # approximate KL of a minibatch that ends a step's updates; 0: none
    kl_coef: float = 0.05  # β, of the KL from the reference; 0: it is counted, and does nothing
    kl_in: str = one_of(KL_PLACES, "reward")  # where the KL counts
    # In the reward k1 (log-ratio) or k3; in the loss k2 or k3.
    kl_estimator: str = one_of(KL_ESTIMATORS, "k1")

    def group_check(self) -> None:
        """Raise ConfigError naming the first field that does not fit."""

        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        self.online_check()
        positive_check(self, "iterations")
        check(self.samples >= 2, "samples", "2 or more: an answer is weighed against the others")
        check(0 <= self.redraws <= 100, "redraws", "0 to 100")
        check(self.target_kl >= 0, "target_kl", "0 or more")
        check(self.kl_coef >= 0, "kl_coef", "0 or more")
        if self.kl_in == "reward":
            check(self.kl_estimator in ("k1", "k3"), "kl_estimator", "k1 or k3 in the reward")
        else:
            check(
                self.kl_estimator in ("k2", "k3"),
                "kl_estimator",
                "k2 or k3 in the loss, where the gradient of k1 is 0 on average",
            )
