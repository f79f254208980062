"""`manage.py hub_pull SOURCE MODEL`: what was pushed back into the hub, byte for byte."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from modelhub.errors import ApplicationError
from modelhub.management.commands.hub_push import HUB_PREFIX
from modelhub.services.sharing import version_pull_folder, version_pull_hub


class Command(BaseCommand):
    help = "Take in what hub_push has written, as a version, every file verified."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "source", help="a folder with its manifest.json, or hub:ORGANISATION/NAME"
        )
        parser.add_argument("model", help="name in the hub; an existing one gets a new version")
        parser.add_argument("--role", default="", help="base, policy, reward or critic")

    def handle(self, *args: Any, source: str, model: str, role: str, **options: Any) -> None:
        try:
            if source.startswith(HUB_PREFIX):
                name = source.removeprefix(HUB_PREFIX)
                found = version_pull_hub(name=name, model=model, role=role)
            else:
                found = version_pull_folder(folder=Path(source), model=model, role=role)
        except ApplicationError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{found} is artifact {found.artifact.sha256}.")
