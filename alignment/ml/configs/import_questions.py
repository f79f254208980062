"""Settings of the import of questions with right answers. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.splits import SplitSettings
from modelhub.ml.configs import require


@dataclass(frozen=True, kw_only=True)
class ImportQuestionsConfig(SplitSettings):
    """Bring questions and their right answers in, for a checker to reward. Reads no input; writes
    outputs `prompts` (to train on), `evaluation_prompts` (held out) and `references`."""

    PROGRAM: ClassVar[str] = "import_questions"
    location: str  # a file of JSON lines, .gz or not
    question_field: str = "question"
    answer_field: str = "answer"
    checker: str = "gsm8k"  # every answer must be right by it

    def __post_init__(self) -> None:
        self.split_check(self.PROGRAM)
        for field in ("location", "question_field", "answer_field", "checker"):
            require(bool(getattr(self, field)), self.PROGRAM, field, getattr(self, field), "a name")
