"""Settings of ghost attention. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import OWN_ENGINES
from modelhub.ml.configs import SAMPLING_DTYPES, GenerateConfig, choices_check, one_of, require


@dataclass(frozen=True, kw_only=True)
class GhostAttentionConfig:
    """Write dialogues that keep to an instruction. Reads `model` (an adapter with `model_base`) and
    `prompts` (dialogues, of which the user's turns are taken); writes output `demonstrations`."""

    PROGRAM: ClassVar[str] = "ghost_attention"
    # "Always answer in French." Each dialogue takes one, by its id and the seed.
    instructions: tuple[str, ...]
    least_turns: int = 2  # of the user; a shorter dialogue has no later turn to keep to it in
    engine: str = one_of(OWN_ENGINES, "auto")  # auto takes vllm where it is installed
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256  # of an answer
    max_context_tokens: int = 2048  # of a dialogue; longer ones are left out and counted
    dtype: str = one_of(SAMPLING_DTYPES, "auto")  # auto: bfloat16 where the device multiplies in it
    seed: int = 0

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        check(
            bool(self.instructions) and all(one.strip() for one in self.instructions),
            "instructions",
            "one or more, none of them empty",
        )
        check(self.least_turns >= 2, "least_turns", "2 or more")
        choices_check(self)
        self.sampling()

    def sampling(self) -> GenerateConfig:
        """How one turn is sampled. Raises ConfigError for what cannot be."""
        return GenerateConfig(
            engine=self.engine,
            samples=1,
            temperatures=(self.temperature,),
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            max_context_tokens=self.max_context_tokens,
            dtype=self.dtype,
            seed=self.seed,
        )
