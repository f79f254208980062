"""Settings of AI ratings. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.judge import JudgeConfig


@dataclass(frozen=True, kw_only=True)
class RateConfig(JudgeConfig):
    """Let a model rate answers one at a time, 1 to 7. Reads `tasks` (tasks.jsonl) and, unless an
    endpoint is asked, `model`; writes output `labels` (labels.jsonl and ratings.jsonl)."""

    PROGRAM: ClassVar[str] = "rate"
    # What the numbers mean. Another text is another annotator.
    rubric: str = (
        "7: does all that was asked, is true, and says no more than is needed.\n"
        "5: helps, with a flaw that hardly matters.\n"
        "4: does part of what was asked, or pads it.\n"
        "3: has a mistake that would mislead the person who asked.\n"
        "1: does nothing that was asked, is false, or would help to hurt somebody.\n"
        "2 and 6 lie between. Length alone is no merit."
    )
