"""`manage.py hub_push MODEL@NUMBER TARGET`: a version to a folder, or to a model hub."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from modelhub.errors import ApplicationError
from modelhub.ml.manifest import IntegrityError
from modelhub.selectors.versions import version_named
from modelhub.services.sharing import version_push_folder, version_push_hub

HUB_PREFIX = "hub:"


class Command(BaseCommand):
    help = "Write a version, its manifest and its card to a folder or to a model hub."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("version", help="MODEL@NUMBER or MODEL@ALIAS")
        parser.add_argument(
            "target", help="a folder that is not there yet, or hub:ORGANISATION/NAME"
        )
        parser.add_argument("--public", action="store_true", help="of a hub: for everyone to see")

    def handle(self, *args: Any, version: str, target: str, public: bool, **options: Any) -> None:
        found = version_named(name=version)
        if found is None:
            raise CommandError(f"There is no version {version!r}; write it as MODEL@NUMBER.")
        try:
            if target.startswith(HUB_PREFIX):
                name = target.removeprefix(HUB_PREFIX)
                where = version_push_hub(version=found, name=name, private=not public)
            else:
                version_push_folder(version=found, target=Path(target))
                where = target
        except (ApplicationError, IntegrityError) as error:
            raise CommandError(str(getattr(error, "message", error))) from error
        self.stdout.write(f"{found} is at {where}, artifact {found.artifact.sha256}.")
