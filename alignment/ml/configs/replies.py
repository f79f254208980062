"""Settings of what asks a model questions, whatever they are. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import DTYPES, positive_check
from modelhub.ml.configs import ENGINES, GenerateConfig, choices_check, one_of, require


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Which model answers, by which engine, and how much room it has."""

    PROGRAM: ClassVar[str] = ""
    max_tokens: int = 512  # of a reply
    max_context_tokens: int = 4096  # question + reply; what is longer is left out
    # auto takes vllm where it is installed; openai asks the endpoint named below.
    engine: str = one_of(ENGINES, "auto")
    # auto: bfloat16 where the device multiplies in it, float32 elsewhere.
    dtype: str = one_of(DTYPES, "auto")
    seed: int = 0
    endpoint_url: str = ""  # with engine "openai": base URL ending in /v1
    endpoint_model: str = ""
    endpoint_key_variable: str = ""  # name of the environment variable that holds the key

    def sampling_of(
        self, *, temperatures: tuple[float, ...], chunk_samples: int, top_p: float = 1.0
    ) -> GenerateConfig:
        """How replies are drawn, one a question. Raises ConfigError for what no engine takes."""
        choices_check(self)
        return GenerateConfig(
            engine=self.engine,
            samples=1,
            temperatures=temperatures,
            top_p=top_p,
            max_tokens=self.max_tokens,
            max_context_tokens=self.max_context_tokens,
            seed=self.seed,
            chunk_samples=chunk_samples,
            dtype=self.dtype,
            endpoint_url=self.endpoint_url,
            endpoint_model=self.endpoint_model,
            endpoint_key_variable=self.endpoint_key_variable,
        )


@dataclass(frozen=True, kw_only=True)
class RetrySettings(EngineSettings):
    """The same where a reply of no use is asked for again."""

    # How often at most, and at which temperatures.
    temperatures: tuple[float, ...] = (0.0, 0.7, 1.0)
    chunk_samples: int = 128  # questions asked, and kept after a kill, together

    def sampling(self) -> GenerateConfig:
        """How replies are drawn. Raises ConfigError for what no engine takes."""
        positive_check(self, "max_tokens", "max_context_tokens", "chunk_samples")
        tries = len(self.temperatures)
        require(1 <= tries <= 10, self.PROGRAM, "temperatures", tries, "1 to 10 of them")
        return self.sampling_of(temperatures=self.temperatures, chunk_samples=self.chunk_samples)
