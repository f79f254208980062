"""`manage.py export_preferences PROJECT --dataset N --out FOLDER`: a frozen dataset as files."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.exports import FORMATS, dataset_export
from annotation.layouts import LAYOUTS
from annotation.models import PreferenceDataset, Project
from modelhub.errors import ApplicationError


class Command(BaseCommand):
    help = "Write a frozen preference dataset as a folder that datasets.load_dataset opens."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="uid or name of the project")
        parser.add_argument("--dataset", type=int, help="its number; the newest if not given")
        parser.add_argument(
            "--layout", choices=list(LAYOUTS), default="", help="the first of its kind's"
        )
        parser.add_argument("--format", choices=FORMATS, default="jsonl")
        parser.add_argument("--out", type=Path, required=True, help="a folder that is not there")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = self.dataset_find(options["project"], options["dataset"])
        try:
            rows = dataset_export(
                dataset=dataset,
                layout=options["layout"],
                format=options["format"],
                out=options["out"],
            )
        except ApplicationError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{rows} rows of {dataset} written to {options['out']}")

    def dataset_find(self, name: str, number: int | None) -> PreferenceDataset:
        projects = list(Project.objects.filter(uid=name) or Project.objects.filter(name=name)[:2])
        if len(projects) != 1:
            raise CommandError(
                f"{'No' if not projects else 'More than one'} project {name!r}; give its uid."
            )
        datasets = projects[0].datasets.select_related("project", "artifact")
        dataset = (datasets.filter(number=number) if number is not None else datasets).first()
        if dataset is None:
            raise CommandError(f"{projects[0]} has no dataset {number or ''}".strip() + ".")
        return dataset
