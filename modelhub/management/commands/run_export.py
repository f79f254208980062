"""`manage.py run_export`: a launched run as a folder, for a machine without a database."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from modelhub.errors import ApplicationError
from modelhub.exports import run_export
from modelhub.selectors.runs import run_get


class Command(BaseCommand):
    help = "Write config.json and the inputs of a run that was launched for another machine."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("uid", help="of the run, as its page's address has it")
        parser.add_argument("folder", type=Path, help="new or empty")

    def handle(self, *args: Any, uid: str, folder: Path, **options: Any) -> None:
        run = run_get(uid=uid)
        if run is None:
            raise CommandError(f"There is no run {uid!r}.")
        try:
            run_export(run=run, folder=folder)
        except ApplicationError as error:
            raise CommandError(error.message) from error
        module = settings.RUN_PROGRAMS[run.program]
        command = f".venv/bin/python -m {module} {folder.name}"
        if run.launcher != "python":
            command = (
                f".venv/bin/python -m modelhub.ml.launch {run.launcher} {run.processes}"
                f" {run.strategy} {module} {folder.name}"
            )
        self.stdout.write(f"Take {folder} to the other machine, and there, in Rondo's folder:")
        self.stdout.write(f"    {command}")
        self.stdout.write("When it has its result.json, bring the folder back:")
        self.stdout.write(f"    .venv/bin/python manage.py run_import {folder}")
