"""Settings of AI feedback. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.replies import RetrySettings
from modelhub.ml.configs import require

MAX_RUBRIC_CHARS = 4000


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(RetrySettings):
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
    max_tokens: int = 16  # of a reply

    def __post_init__(self) -> None:
        fits = bool(self.rubric.strip()) and len(self.rubric) <= MAX_RUBRIC_CHARS
        wanted = f"1 to {MAX_RUBRIC_CHARS} characters"
        require(fits, self.PROGRAM, "rubric", f"{self.rubric[:40]}…", wanted)
        self.sampling()
