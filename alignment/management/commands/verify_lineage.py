"""`manage.py verify_lineage`: is everything a version came from still what it was?"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from modelhub.selectors.lineage import lineage_verify
from modelhub.selectors.versions import version_named


class Command(BaseCommand):
    help = "Check all that a version was made of, down to the rankings; name what has changed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("version", help="MODEL@NUMBER")

    def handle(self, *args: Any, version: str, **options: Any) -> None:
        found = version_named(name=version)
        if found is None:
            raise CommandError(f"There is no version {version!r}; write it as MODEL@NUMBER.")
        differences = lineage_verify(version=found)
        for one in differences:
            self.stderr.write(f"{one.subject}: {one.message}")
        if differences:
            raise CommandError(f"{len(differences)} difference(s) found.")
        self.stdout.write("Everything is as it was.")
