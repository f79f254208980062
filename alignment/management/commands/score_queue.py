"""`manage.py score_queue`: order a project's queue by what reward models doubt."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from alignment.services.ensembles import queue_score_request
from annotation.models import Project
from modelhub.errors import ApplicationError
from modelhub.selectors.versions import version_named
from modelhub.tasks import ring_queued_runs


class Command(BaseCommand):
    help = (
        "Let reward models score the answers of a project's open tasks; those they are least sure "
        "of come first where the project's queue is ordered by doubt."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="its uid")
        parser.add_argument("versions", nargs="+", help="MODEL@NUMBER, a reward model each")

    def handle(self, *args: Any, project: str, versions: list[str], **options: Any) -> None:
        found = Project.objects.filter(uid=project).first()
        if found is None:
            raise CommandError(f"There is no project {project!r}.")
        named = {name: version_named(name=name) for name in versions}
        for name, version in named.items():
            if version is None:
                raise CommandError(f"There is no version {name!r}; write it as MODEL@NUMBER.")
        try:
            run = queue_score_request(
                project=found, versions=[one for one in named.values() if one is not None]
            )
        except ApplicationError as error:
            raise CommandError(error.message) from error
        ring_queued_runs.delay_on_commit()
        self.stdout.write(f"Queued as run {run.uid}.")
