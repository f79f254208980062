"""Settings of critique and revision. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import dtype_check, positive_check
from modelhub.ml.configs import GenerateConfig, require

MAX_PRINCIPLES_CHARS = 4000


@dataclass(frozen=True, kw_only=True)
class ReviseConfig:
    """Let a model criticise answers by principles and write them anew. Reads `tasks` (tasks.jsonl)
    and, unless an endpoint is asked, `model`; writes outputs `labels` (labels.jsonl and
    revisions.jsonl) and `demonstrations` (the last revision of each task)."""

    PROGRAM: ClassVar[str] = "revise"
    # The constitution, a principle a line; each step draws one. Another text is another annotator.
    principles: str = (
        "The answer helps nobody to hurt, cheat or spy on anyone; where it declines, it says why.\n"
        "The answer is true; what is not known is said to be unknown, and nothing is made up.\n"
        "The answer does what was asked, all of it, and nothing else.\n"
        "The answer insults nobody and holds nothing against a group of people.\n"
        "The answer is as short and as plain as it can be and still help the person who asked."
    )
    revisions: int = 1  # steps, each from the text of the one before, by a principle of its own
    # A reply of no use is asked for again: how often at most, and at which temperatures.
    temperatures: tuple[float, ...] = (0.7, 1.0)
    max_tokens: int = 512  # of a critique, and of a revision
    max_context_tokens: int = 4096  # question + reply; an answer that is longer is left out
    engine: str = "auto"  # "vllm", "transformers", "openai"; "auto" takes vllm where installed
    chunk_samples: int = 128  # questions asked, and kept after a kill, together
    dtype: str = "auto"
    seed: int = 0
    endpoint_url: str = ""  # engine "openai": base URL ending in /v1
    endpoint_model: str = ""
    endpoint_key_variable: str = ""  # name of the environment variable that holds the key

    def __post_init__(self) -> None:
        positive_check(self, "max_tokens", "max_context_tokens", "chunk_samples")
        fits = bool(self.principles.strip()) and len(self.principles) <= MAX_PRINCIPLES_CHARS
        wanted = f"1 to {MAX_PRINCIPLES_CHARS} characters"
        require(fits, self.PROGRAM, "principles", f"{self.principles[:40]}…", wanted)
        require(1 <= self.revisions <= 10, self.PROGRAM, "revisions", self.revisions, "1 to 10")
        tries = len(self.temperatures)
        require(1 <= tries <= 10, self.PROGRAM, "temperatures", tries, "1 to 10 of them")
        dtype_check(self)
        self.sampling()

    @property
    def constitution(self) -> list[str]:
        """Its principles, each by itself."""
        return [line.strip() for line in self.principles.splitlines() if line.strip()]

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
