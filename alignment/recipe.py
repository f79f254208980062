"""What a round does, in numbers: chosen in a form, kept with the round, checked before it starts.

Plain Python, standard library only.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from alignment.ml.configs import EvaluateConfig, PpoConfig, RejectionConfig, RewardConfig, SftConfig
from modelhub.ml.configs import (
    ConfigError,
    ConfigT,
    GenerateConfig,
    config_dump,
    config_load,
    require,
)

# The states of a round in which something is done, in the order they are walked.
STAGES = (
    "planned",
    "sampling",
    "annotating",
    "freezing",
    "reward",
    "improving",
    "evaluating",
    "deciding",
)

# What `generate` may not say: what the recipe itself says already, and an endpoint. An endpoint
# serves one model; a round samples from its policies, one of which it makes itself.
_GENERATE_OWN = ("engine", "samples", "temperatures", "max_tokens", "seed")
# Likewise of `ppo`: the recipe says with which engine answers are drawn, and how long they are.
_PPO_OWN = ("engine", "max_tokens", "checker")
IMPROVING = ("rejection", "ppo", "rejection+ppo")
_GENERATE_ENDPOINT = ("endpoint_url", "endpoint_model", "endpoint_key_variable")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One round's settings.

    The dictionaries override fields of the programs' own configurations; all of them are built
    once here, so a recipe that exists can be run. Raises ConfigError naming the field it refuses.
    """

    PROGRAM: ClassVar[str] = "recipe"

    # Which prompts. The round's train prompts are improved on, its held-out ones are tested on.
    prompt_tags: tuple[str, ...] = ()  # prompts with any of these; none takes all
    prompt_limit: int = 0  # at most so many, with the splits' shares kept; 0: no limit

    # Sampling
    engine: str = "auto"
    max_tokens: int = 256  # of an answer
    samples: int = 4  # answers to rank per prompt
    temperatures: tuple[float, ...] = (0.7, 1.0)
    improving_samples: int = 8  # fresh answers per train prompt to choose the best of
    improving_temperatures: tuple[float, ...] = (0.7, 1.0)
    evaluation_samples: int = 2  # per held-out prompt, of the old policy and of the new
    evaluation_temperature: float = 1.0  # at 1 the KL that is measured is the policies' own
    generate: dict[str, Any] = field(default_factory=dict)  # of GenerateConfig

    # Annotating
    overlap: int = 1  # people per task
    minimum_rankings: int = 10  # accepted, of this round's tasks, before it may freeze

    # Reward model
    reward: dict[str, Any] = field(default_factory=dict)  # of RewardConfig
    reward_accuracy_floor: float = 0.5  # held-out pairs ranked right; below it labels are asked for
    reward_above_chance: bool = False  # also ask for labels if the accuracy's interval reaches 0.5

    # Improving
    # How the policy gets better. Llama 2 took rejection sampling up to its fourth version, and from
    # then on PPO from where that ended.
    improving: str = "rejection"  # "rejection", "ppo" or "rejection+ppo"
    keep: int = 1  # best answers kept of each prompt
    pool_earlier_rounds: bool = True  # the bests of all earlier rounds compete too
    rejection: dict[str, Any] = field(default_factory=dict)  # of RejectionConfig
    sft: dict[str, Any] = field(default_factory=dict)  # of SftConfig
    ppo: dict[str, Any] = field(default_factory=dict)  # of PpoConfig

    # Evaluating and deciding
    evaluate: dict[str, Any] = field(default_factory=dict)  # of EvaluateConfig
    kl_limit: float = 30.0  # nats per answer from the old policy; 0: no limit
    human_gates: tuple[str, ...] = ("deciding",)  # stages that only a person ends

    seed: int = 0

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, wanted: str) -> None:
            require(ok, self.PROGRAM, name, getattr(self, name), wanted)

        def ladder_check(name: str) -> None:
            values = getattr(self, name)
            check(
                bool(values) and all(0 <= t <= 5 for t in values),
                name,
                "one or more numbers from 0 to 5",
            )

        check(all(self.prompt_tags), "prompt_tags", "tags that are not empty")
        check(self.prompt_limit >= 0, "prompt_limit", "0 or more")
        check(
            self.engine in ("auto", "vllm", "transformers"),
            "engine",
            "auto, vllm or transformers",
        )
        check(1 <= self.max_tokens <= 100_000, "max_tokens", "1 to 100000")
        # One answer cannot be ranked; more than sixteen nobody ranks with care.
        check(2 <= self.samples <= 16, "samples", "2 to 16")
        ladder_check("temperatures")
        check(1 <= self.improving_samples <= 1024, "improving_samples", "1 to 1024")
        ladder_check("improving_temperatures")
        check(1 <= self.evaluation_samples <= 64, "evaluation_samples", "1 to 64")
        check(0 <= self.evaluation_temperature <= 5, "evaluation_temperature", "0 to 5")
        check(1 <= self.overlap <= 50, "overlap", "1 to 50")
        check(self.minimum_rankings >= 1, "minimum_rankings", "1 or more")
        check(0 <= self.reward_accuracy_floor <= 1, "reward_accuracy_floor", "0 to 1")
        check(self.improving in IMPROVING, "improving", ", ".join(IMPROVING))
        check(1 <= self.keep <= self.improving_samples, "keep", "1 to improving_samples")
        check(self.kl_limit >= 0, "kl_limit", "0 or more")
        check(
            set(self.human_gates) <= set(STAGES)
            and len(set(self.human_gates)) == len(self.human_gates),
            "human_gates",
            f"some of {', '.join(STAGES)}, each once",
        )
        check(abs(self.seed) < 2**31, "seed", "a number below 2^31")
        _own_check("generate", self.generate, _GENERATE_OWN)
        for name in _GENERATE_ENDPOINT:
            if name in self.generate:
                raise ConfigError(f"recipe.generate: {name} cannot be set: a round samples itself")
        _own_check("rejection", self.rejection, ("keep", "checker"))
        _own_check("reward", self.reward, ("held_out_batches",))
        _own_check("ppo", self.ppo, _PPO_OWN)
        self.ranking_config(seed=0)
        self.improving_config(seed=0)
        self.evaluation_sampling_config(seed=0)
        self.reward_config()
        self.rejection_config()
        self.sft_config()
        self.ppo_config()
        ending = self.sft_config().end_of_session
        if self.improving == "rejection+ppo" and self.reward_config().end_of_session != ending:
            raise ConfigError("recipe.reward: end_of_session must be that of sft, before PPO")
        if self.improving == "rejection+ppo" and self.sft_config().publish == "adapter":
            raise ConfigError("recipe.sft: publish must be merged, for PPO goes on from a model")
        if self.improving == "rejection+ppo" and self.ppo_config().publish == "adapter":
            # Its base would be what fine-tuning has made in between, which is no version.
            raise ConfigError("recipe.ppo: publish must be merged behind rejection sampling")
        self.evaluate_config()

    def ranking_config(self, *, seed: int) -> GenerateConfig:
        """Sampling the answers that people rank."""
        return self._generate_config(self.samples, self.temperatures, seed)

    def improving_config(self, *, seed: int) -> GenerateConfig:
        """Sampling the answers that the reward model chooses from."""
        return self._generate_config(self.improving_samples, self.improving_temperatures, seed)

    def evaluation_sampling_config(self, *, seed: int) -> GenerateConfig:
        """Sampling on held-out prompts, the same for the old policy and the new."""
        return self._generate_config(self.evaluation_samples, (self.evaluation_temperature,), seed)

    def reward_config(self) -> RewardConfig:
        """Where PPO follows fine-tuning, the reward model has the token that this adds: it reads
        what the policy writes by the policy's own tokens."""
        ending = self.sft_config().end_of_session if self.improving == "rejection+ppo" else ""
        values = {"seed": self.seed, "end_of_session": ending, **self.reward}
        return _config_build(RewardConfig, values)

    def rejection_config(self) -> RejectionConfig:
        return _config_build(RejectionConfig, {"keep": self.keep, **self.rejection})

    def sft_config(self) -> SftConfig:
        return _config_build(SftConfig, {"seed": self.seed, **self.sft})

    def ppo_config(self) -> PpoConfig:
        context = self.ranking_config(seed=0).max_context_tokens
        values = {"seed": self.seed, "max_context_tokens": context, **self.ppo}
        own = {"engine": self.engine, "max_tokens": self.max_tokens}
        return _config_build(PpoConfig, {**values, **own})

    def evaluate_config(self) -> EvaluateConfig:
        return _config_build(EvaluateConfig, {"seed": self.seed, **self.evaluate})

    def _generate_config(
        self, samples: int, temperatures: tuple[float, ...], seed: int
    ) -> GenerateConfig:
        return _config_build(
            GenerateConfig,
            {
                **self.generate,
                "engine": self.engine,
                "samples": samples,
                "temperatures": temperatures,
                "max_tokens": self.max_tokens,
                "seed": seed,
            },
        )


def recipe_load(values: Mapping[str, Any]) -> Recipe:
    """A recipe from parsed JSON. Raises ConfigError naming the field it refuses."""
    return config_load(Recipe, values)


def recipe_dump(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values; `recipe_load` of it is an equal recipe."""
    return config_dump(recipe)


def _own_check(name: str, overrides: Mapping[str, Any], own: Collection[str]) -> None:
    for key in own:
        if key in overrides:
            raise ConfigError(f"recipe.{name}: {key} is a setting of the recipe itself")


def _config_build(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """The program's configuration, with a refusal that says where in the recipe it is."""
    try:
        return config_load(cls, values)
    except ConfigError as error:
        raise ConfigError(f"recipe.{error}") from error
