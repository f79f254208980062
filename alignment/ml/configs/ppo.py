"""Settings of PPO. Standard library only."""

from dataclasses import dataclass
from typing import Any, ClassVar

from alignment.ml.configs.checks import positive_check
from alignment.ml.configs.online import OnlineSettings
from alignment.ml.configs.splits import SplitSettings
from modelhub.ml.configs import one_of, require


@dataclass(frozen=True, kw_only=True)
class PpoConfig(OnlineSettings, SplitSettings):
    """Improve a policy by proximal policy optimisation. Reads `base` (the policy), `prompts`, and
    what rewards it: `reward`, or `reward` and `safety` (reward models), or `references` for a
    checker. May read `reference` (the policy that KL is counted from; else `base`), `pretraining`
    (a corpus, texts.jsonl or conversations, for `ptx_coef`) and `evaluation_prompts`, never trained
    on. Writes output `model`, or `adapter`."""

    PROGRAM: ClassVar[str] = "ppo"
    whiten_rewards: bool = False  # tokens' rewards to variance 1 over a step, KL included

    # KL from the reference
    kl_coef: float = 0.05  # β, at every token
    kl_estimator: str = one_of(("k1", "k3"), "k1")  # k1 is the log-ratio; k3 is never negative
    # adaptive steers β towards kl_target (Ziegler et al. 2019).
    kl_controller: str = one_of(("fixed", "adaptive"), "fixed")
    kl_target: float = 6.0  # nats an answer
    kl_horizon: float = 10_000.0  # answers
    target_kl: float = 0.0  # approximate KL of a minibatch that ends a step's updates; 0: none

    # Updates of actor and critic; `lr` is the actor's
    ppo_epochs: int = 4  # passes over a step's answers
    cliprange: float = 0.2
    cliprange_value: float = 0.2  # 0 clips nothing
    gamma: float = 1.0
    lam: float = 0.95
    critic_lr: float = 9e-6
    critic_warmup_steps: int = 0  # steps in which the critic alone learns
    ema_decay: float = 0.0  # of the published average of the actor's weights; 0: the last weights
    ptx_coef: float = 0.0  # γ of PPO-ptx: weight of the loss on pretraining examples
    ptx_per_answer: float = 1.0  # pretraining examples for each answer

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        self.online_check()
        self.split_check(self.PROGRAM)
        positive_check(self, "kl_target", "kl_horizon", "ppo_epochs", "cliprange", "critic_lr")
        positive_check(self, "ptx_per_answer")
        for field in ("kl_coef", "target_kl", "cliprange_value", "critic_warmup_steps", "ptx_coef"):
            check(getattr(self, field) >= 0, field, "0 or more")
        for field in ("gamma", "lam"):
            check(0 <= getattr(self, field) <= 1, field, "0 to 1")
        check(0 <= self.ema_decay < 1, "ema_decay", "0 or more, less than 1")
        check(
            self.kl_controller == "fixed" or self.kl_coef > 0,
            "kl_coef",
            "more than 0: an adaptive controller multiplies it",
        )


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
