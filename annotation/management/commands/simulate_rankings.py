"""`manage.py simulate_rankings BATCH`: let programs rank a batch, marked as such."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.models import CandidateBatch
from annotation.services.simulated import simulated_rankings_submit
from modelhub.errors import ApplicationError


class Command(BaseCommand):
    help = "Rank the open tasks of a batch with simulated annotators; every label is marked."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("batch", help="uid of the candidate batch")
        parser.add_argument("--annotators", type=int, default=3)
        parser.add_argument("--noise", type=float, default=0.5, help="in spreads (default 0.5)")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *args: Any, **options: Any) -> None:
        batch = CandidateBatch.objects.select_related("project").filter(uid=options["batch"])
        found = batch.first()
        if found is None:
            raise CommandError(f"There is no batch {options['batch']}.")
        try:
            count = simulated_rankings_submit(
                project=found.project,
                batch=found,
                annotators=options["annotators"],
                noise=options["noise"],
                seed=options["seed"],
            )
        except ApplicationError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{count} simulated rankings of {found}")
