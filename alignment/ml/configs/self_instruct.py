"""Settings of Self-Instruct. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import positive_check
from alignment.ml.configs.replies import EngineSettings
from modelhub.ml.configs import GenerateConfig, require


@dataclass(frozen=True, kw_only=True)
class SelfInstructConfig(EngineSettings):
    """Let a model write new prompts after seeds. Reads `seeds` (prompts.jsonl) and, unless an
    endpoint is asked, `model`; writes output `proposals` (proposals.jsonl), for people to accept or
    reject."""

    PROGRAM: ClassVar[str] = "self_instruct"
    wanted: int = 100  # proposals to write; fewer come if `rounds` are over before
    rounds: int = 50  # at most
    questions: int = 8  # asked a round, each with examples of its own, and kept after a kill
    seed_examples: int = 6  # people's prompts shown in a question
    machine_examples: int = 2  # and those written so far; while there are none, people's instead
    alike: float = 0.7  # ROUGE-L from which a prompt is too much like one that is there
    words_min: int = 4  # of a prompt; each Chinese, Japanese or Korean character counts as one
    words_max: int = 150
    # Words that ask for what a model of text cannot see or do.
    refused_words: tuple[str, ...] = (
        "image",
        "images",
        "picture",
        "pictures",
        "graph",
        "graphs",
        "file",
        "files",
        "map",
        "maps",
        "draw",
        "plot",
        "video",
        "图片",
        "图像",
        "视频",
        "画一",
    )
    temperature: float = 0.7
    top_p: float = 0.5

    def __post_init__(self) -> None:
        positive_check(self, "wanted", "rounds", "questions", "seed_examples", "words_min")
        few = self.machine_examples
        require(few >= 0, self.PROGRAM, "machine_examples", few, "0 or more")
        require(0 < self.alike <= 1, self.PROGRAM, "alike", self.alike, "more than 0, at most 1")
        fits = self.words_max >= self.words_min
        require(fits, self.PROGRAM, "words_max", self.words_max, "words_min or more")
        self.sampling()

    def sampling(self) -> GenerateConfig:
        """How replies are drawn. Raises ConfigError for what no engine takes."""
        return self.sampling_of(
            temperatures=(self.temperature,), top_p=self.top_p, chunk_samples=self.questions
        )
