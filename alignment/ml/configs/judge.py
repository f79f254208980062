"""Settings of AI feedback. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import dtype_check, positive_check
from modelhub.ml.configs import GenerateConfig, require

MAX_RUBRIC_CHARS = 4000


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Let a model judge answers two at a time. Reads `tasks` (tasks.jsonl) and, unless an endpoint
    is asked, `model`; writes output `labels` (labels.jsonl and verdicts.jsonl)."""

    PROGRAM: ClassVar[str] = "judge"
    # The constitution: what makes an answer the better one. Another text is another annotator.
    rubric: str = (
        "The better answer does what was asked, is true, and helps the person who asked. It is"
        " harmless: it does not help to hurt anyone, and it insults nobody. It says no more than is"
        " needed. Length alone is no merit."
    )
    reasons: bool = False  # let the judge think aloud before its verdict; wants more max_tokens
    # A reply that is no verdict is asked for again: how often at most, and at which temperatures.
    temperatures: tuple[float, ...] = (0.0, 0.7, 1.0)
    max_tokens: int = 16  # of a reply
    max_context_tokens: int = 4096  # question + reply; a pair that is longer is left out
    engine: str = "auto"  # "vllm", "transformers", "openai"; "auto" takes vllm where installed
    chunk_samples: int = 128  # questions asked, and kept after a kill, together
    dtype: str = "auto"
    seed: int = 0
    endpoint_url: str = ""  # engine "openai": base URL ending in /v1
    endpoint_model: str = ""
    endpoint_key_variable: str = ""  # name of the environment variable that holds the key

    def __post_init__(self) -> None:
        positive_check(self, "max_tokens", "max_context_tokens", "chunk_samples")
        fits = bool(self.rubric.strip()) and len(self.rubric) <= MAX_RUBRIC_CHARS
        wanted = f"1 to {MAX_RUBRIC_CHARS} characters"
        require(fits, self.PROGRAM, "rubric", f"{self.rubric[:40]}…", wanted)
        tries = len(self.temperatures)
        require(1 <= tries <= 10, self.PROGRAM, "temperatures", tries, "1 to 10 of them")
        dtype_check(self)
        self.sampling()

    def sampling(self) -> GenerateConfig:
        """How replies are drawn. Raises ConfigError for what no engine takes."""
        return GenerateConfig(
            engine=self.engine,
            samples=1,
            temperatures=self.temperatures,
            max_tokens=self.max_tokens,
            max_context_tokens=self.max_context_tokens,
            seed=self.seed,
            chunk_samples=self.chunk_samples,
            dtype=self.dtype,
            endpoint_url=self.endpoint_url,
            endpoint_model=self.endpoint_model,
            endpoint_key_variable=self.endpoint_key_variable,
        )
