"""`manage.py import_questions`: questions with right answers, for a checker to reward."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from alignment.ml.configs import ImportQuestionsConfig
from modelhub.services.runs import run_create
from modelhub.tasks import ring_queued_runs


class Command(BaseCommand):
    help = (
        "Bring in a file of questions and right answers, a JSON object a line, as GSM8K has them. "
        "The run's prompts, evaluation_prompts and references can then be chosen where PPO, RLOO, "
        "GRPO, online DPO and rejection sampling are launched with a checker."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="JSON lines, .gz or not")
        parser.add_argument("--question-field", default="question")
        parser.add_argument("--answer-field", default="answer")
        parser.add_argument("--checker", default="gsm8k", help="that the answers are right by")

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        if not file.exists():
            raise CommandError(f"There is no file {file}.")
        if not file.is_file():
            raise CommandError(f"{file} is no plain file: save the questions in one, and name it.")
        run = run_create(
            program="import_questions",
            config=ImportQuestionsConfig(
                location=str(file.resolve()),
                question_field=options["question_field"],
                answer_field=options["answer_field"],
                checker=options["checker"],
            ),
            inputs={},
            label=f"questions of {file.name}",
        )
        ring_queued_runs.delay_on_commit()
        self.stdout.write(f"Queued as run {run.uid}.")
