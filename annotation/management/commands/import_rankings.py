"""`manage.py import_rankings PROJECT FILE`: exported rankings as a dataset of their own."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.models import Project
from annotation.services.datasets import preference_dataset_import
from modelhub.errors import ApplicationError


class Command(BaseCommand):
    help = "Take in a file of the `rankings` layout (JSON Lines or Parquet): all of it or nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="uid or name of the project")
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        name, path = options["project"], options["file"]
        projects = list(Project.objects.filter(uid=name) or Project.objects.filter(name=name)[:2])
        if len(projects) != 1:
            raise CommandError(
                f"{'No' if not projects else 'More than one'} project {name!r}; give its uid."
            )
        try:
            with path.open("rb") as file:
                dataset = preference_dataset_import(
                    project=projects[0], lines=file, name=path.name, created_by=None
                )
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}.") from error
        except ApplicationError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{dataset} holds {dataset.counts['used']} rankings")
