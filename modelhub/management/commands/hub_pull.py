"""`manage.py hub_pull FOLDER MODEL`: a pushed folder back into the hub, byte for byte."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from modelhub.errors import ApplicationError
from modelhub.services.sharing import version_pull_folder


class Command(BaseCommand):
    help = "Take a folder that hub_push has written in as a version, every file verified."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", help="with its manifest.json")
        parser.add_argument("model", help="name in the hub; an existing one gets a new version")
        parser.add_argument("--role", default="", help="base, policy, reward or critic")

    def handle(self, *args: Any, folder: str, model: str, role: str, **options: Any) -> None:
        try:
            found = version_pull_folder(folder=Path(folder), model=model, role=role)
        except ApplicationError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{found} is artifact {found.artifact.sha256}.")
