"""Settings of critique and revision. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.replies import RetrySettings
from modelhub.ml.configs import require

MAX_PRINCIPLES_CHARS = 4000


@dataclass(frozen=True, kw_only=True)
class ReviseConfig(RetrySettings):
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
    temperatures: tuple[float, ...] = (0.7, 1.0)

    def __post_init__(self) -> None:
        fits = bool(self.principles.strip()) and len(self.principles) <= MAX_PRINCIPLES_CHARS
        wanted = f"1 to {MAX_PRINCIPLES_CHARS} characters"
        require(fits, self.PROGRAM, "principles", f"{self.principles[:40]}…", wanted)
        require(1 <= self.revisions <= 10, self.PROGRAM, "revisions", self.revisions, "1 to 10")
        self.sampling()

    @property
    def constitution(self) -> list[str]:
        """Its principles, each by itself."""
        return [line.strip() for line in self.principles.splitlines() if line.strip()]
