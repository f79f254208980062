"""Settings of PPO. Standard library only."""

from dataclasses import dataclass
from typing import Any, ClassVar

from alignment.ml.configs.checks import dtype_check, optimizer_name_check, positive_check
from modelhub.ml.configs import require


@dataclass(frozen=True, kw_only=True)
class PpoConfig:
    """Improve a policy by proximal policy optimisation. Reads `base` (the policy), `prompts`, and
    what rewards it: `reward`, or `reward` and `safety` (reward models), or `references` for a
    checker. May read `reference` (the policy that KL is counted from; else `base`), `pretraining`
    (texts.jsonl or demonstrations.jsonl, for `ptx_coef`) and `evaluation_prompts`, never trained
    on. Writes output `model`."""

    PROGRAM: ClassVar[str] = "ppo"

    # What is drawn
    epochs: int = 1  # times each prompt is used
    prompts_per_step: int = 16
    samples: int = 4  # answers to each prompt; they share its tokens everywhere
    max_tokens: int = 128  # of an answer
    max_context_tokens: int = 2048  # prompt + answer; a longer prompt is an error that names it
    temperature: float = 1.0  # of the draws, and of every log-probability
    engine: str = "auto"  # "vllm", "transformers"; "auto" takes vllm where installed
    sampler_dtype: str = "float32"  # of the engine's weights; rounded stochastically to bfloat16
    canary_tolerance: float = (
        0.0  # nats a token by which engine and trainer may differ; 0: by dtype
    )

    # What is rewarded
    checker: str = ""  # a function that tells right from wrong ("gsm8k", "exact"), not a model
    reward_scale: float = 1.0  # scores are multiplied by it, then shifted
    reward_shift: float = 0.0
    reward_clip: float = 0.0  # scores are kept within ± this; 0 clips nothing
    whiten_scores: bool = False  # answers' scores to mean 0, variance 1 over a step (Llama 2)
    whiten_rewards: bool = False  # tokens' rewards to variance 1 over a step, KL included
    missing_eos_penalty: float = 0.0  # taken from the score of an answer that did not end
    safety_threshold: float = 0.15  # below it an answer's safety is its reward (Llama 2)

    # KL from the reference
    kl_coef: float = 0.05  # β, at every token
    kl_estimator: str = "k1"  # "k1" (log-ratio) or "k3" (never negative)
    kl_controller: str = "fixed"  # "adaptive" steers β towards kl_target (Ziegler et al. 2019)
    kl_target: float = 6.0  # nats an answer
    kl_horizon: float = 10_000.0  # answers
    kl_limit: float = 0.0  # nats an answer at which the run stops early; 0: no limit
    target_kl: float = 0.0  # approximate KL of a minibatch that ends a step's updates; 0: none

    # Tripwires: the run fails, and nothing of it is published
    rise_factor: float = 10.0  # of value loss and gradient norms over their level; 0: off
    entropy_floor: float = 0.0  # nats a token under which the policy has collapsed; 0: off

    # Updates
    ppo_epochs: int = 4  # passes over a step's answers
    minibatches: int = 1  # updates in a pass; prompts are dealt out, their answers stay together
    cliprange: float = 0.2
    cliprange_value: float = 0.2  # 0 clips nothing
    gamma: float = 1.0
    lam: float = 0.95
    lr: float = 1e-6  # the actor's, constant behind the warm-up
    critic_lr: float = 9e-6
    warmup_steps: int = 0  # from a tenth of the rate, in a line
    critic_warmup_steps: int = 0  # steps in which the critic alone learns
    optimizer: str = "adamw"  # or "adamw_8bit", "paged_adamw", "paged_adamw_8bit" on a GPU
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0  # of the actor and of the critic, each; 0 clips nothing
    ema_decay: float = 0.0  # of the published average of the actor's weights; 0: the last weights
    ptx_coef: float = 0.0  # γ of PPO-ptx: weight of the loss on pretraining examples
    ptx_per_answer: float = 1.0  # pretraining examples for each answer

    # How it runs
    lora_rank: int = 0  # 0 trains every weight; more trains adapters of actor and critic
    lora_alpha: float = 32.0
    budget_tokens: int = 4096  # of one packed row; memory, not the result, depends on it
    dtype: str = "float32"  # of the products; weights are trained in float32
    gradient_checkpointing: bool = False
    checkpoint_every_steps: int = 10
    evaluation_samples: int = 4  # answers to each evaluation prompt, before and after
    bootstrap_samples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        positive_check(self, "epochs", "prompts_per_step", "samples", "max_tokens", "temperature")
        positive_check(self, "kl_target", "kl_horizon", "ppo_epochs", "minibatches", "cliprange")
        positive_check(self, "lr", "critic_lr", "adam_epsilon", "ptx_per_answer", "lora_alpha")
        positive_check(self, "budget_tokens", "checkpoint_every_steps", "evaluation_samples")
        positive_check(self, "bootstrap_samples")
        for field in (
            "canary_tolerance",
            "rise_factor",
            "entropy_floor",
            "reward_clip",
            "missing_eos_penalty",
            "kl_coef",
            "kl_limit",
            "target_kl",
            "cliprange_value",
            "warmup_steps",
            "critic_warmup_steps",
            "weight_decay",
            "max_grad_norm",
            "ptx_coef",
            "lora_rank",
        ):
            check(getattr(self, field) >= 0, field, "0 or more")
        for field in ("gamma", "lam", "safety_threshold"):
            check(0 <= getattr(self, field) <= 1, field, "0 to 1")
        for field in ("ema_decay", "adam_beta2"):
            check(0 <= getattr(self, field) < 1, field, "0 or more, less than 1")
        check(
            self.max_context_tokens > self.max_tokens, "max_context_tokens", "more than max_tokens"
        )
        check(
            self.engine in ("auto", "vllm", "transformers"), "engine", "auto, vllm or transformers"
        )
        check(self.kl_estimator in ("k1", "k3"), "kl_estimator", "k1 or k3")
        check(self.kl_controller in ("fixed", "adaptive"), "kl_controller", "fixed or adaptive")
        check(
            self.minibatches <= self.prompts_per_step,
            "minibatches",
            "at most prompts_per_step: a prompt's answers are not parted",
        )
        check(self.sampler_dtype in ("bfloat16", "float32"), "sampler_dtype", "float32 or bfloat16")
        check(
            self.kl_controller == "fixed" or self.kl_coef > 0,
            "kl_coef",
            "more than 0: an adaptive controller multiplies it",
        )
        optimizer_name_check(self)
        dtype_check(self)


# Named after who published them; what their papers leave to the size of the model is left out.
PRESETS: dict[str, dict[str, Any]] = {
    # Ouyang et al. 2022 (arXiv:2203.02155), appendix C.4: 1 inner epoch, minibatches of an eighth
    # of a batch of 512, PPO-ptx with γ = 27.8 and 8 pretraining examples an episode.
    "InstructGPT": {
        "prompts_per_step": 512,
        "samples": 1,
        "ppo_epochs": 1,
        "minibatches": 8,
        "kl_coef": 0.02,
        "lr": 9e-6,
        "critic_lr": 9e-6,
        "warmup_steps": 10,
        "gamma": 1.0,
        "lam": 0.95,
        "cliprange": 0.2,
        "temperature": 1.0,
        "ema_decay": 0.992,
        "ptx_coef": 27.8,
        "ptx_per_answer": 8.0,
    },
    # Touvron et al. 2023 (arXiv:2307.09288), sections 3.2.2 and 3.4: their 7B and 13B models.
    "Llama 2": {
        "prompts_per_step": 512,
        "samples": 1,
        "ppo_epochs": 1,
        "minibatches": 8,
        "kl_coef": 0.01,
        "lr": 1e-6,
        "critic_lr": 1e-6,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-5,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "cliprange": 0.2,
        "whiten_scores": True,
        "safety_threshold": 0.15,
    },
    # Huang et al. 2024 (arXiv:2403.17031), the replication of Stiennon et al. 2020.
    "summarize from feedback": {
        "prompts_per_step": 512,
        "samples": 1,
        "ppo_epochs": 4,
        "minibatches": 1,
        "kl_coef": 0.05,
        "lr": 3e-6,
        "critic_lr": 3e-6,
        "adam_epsilon": 1e-5,
        "missing_eos_penalty": 1.0,
        "temperature": 0.7,
    },
}
