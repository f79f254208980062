"""`manage.py seed_showcase`: a project with weeks of invented work, to look at every page."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from annotation.services.showcase import showcase_create
from modelhub.errors import ApplicationError


class Command(BaseCommand):
    help = "Make a project with some weeks of work by invented people, for a look around."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("owner", help="user name of whoever is to manage it")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *args: Any, **options: Any) -> None:
        owner = User.objects.filter(username=options["owner"]).first()
        if owner is None:
            raise CommandError(f"There is no user {options['owner']}.")
        try:
            project = showcase_create(owner=owner, seed=options["seed"])
        except ApplicationError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{project}: {reverse('project_detail', args=[project.uid])}")
