"""`manage.py run_import`: take back a folder of `run_export` that a program has finished."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from modelhub.errors import ApplicationError
from modelhub.exports import run_import


class Command(BaseCommand):
    help = "Take a finished run's folder back: outputs, curves, result, and the version they make."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)

    def handle(self, *args: Any, folder: Path, **options: Any) -> None:
        try:
            run = run_import(folder=folder)
        except ApplicationError as error:
            raise CommandError(error.message) from error
        versions = ", ".join(str(version) for version in run.versions.select_related("model"))
        self.stdout.write(f"{run} has {run.status}{f': {versions}' if versions else ''}.")
