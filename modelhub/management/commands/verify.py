"""`manage.py verify`: is everything in the hub still what it was?"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from modelhub import storage
from modelhub.ml.manifest import IntegrityError
from modelhub.ml.tokenising.writer import DamagedError, tokens_verify
from modelhub.models import Artifact, ModelVersion
from modelhub.selectors.versions import version_named
from modelhub.services.artifacts import artifact_verify, version_lineage_verify


class Command(BaseCommand):
    help = "Hash every artifact, or all that one version was made of; name what has changed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("version", nargs="?", help="MODEL@NUMBER; without it, every artifact")

    def handle(self, *args: Any, version: str | None, **options: Any) -> None:
        problems = artifacts_check() if version is None else version_check(version)
        for problem in problems:
            self.stderr.write(problem)
        if problems:
            raise CommandError(f"{len(problems)} difference(s) found.")
        self.stdout.write("Everything is as it was.")


def artifacts_check() -> list[str]:
    """What is wrong with the bytes of any artifact, one sentence each."""
    problems = []
    for artifact in Artifact.objects.order_by("pk").iterator():
        try:
            artifact_verify(artifact=artifact)
        except (IntegrityError, OSError) as error:
            problems.append(f"{artifact.kind}: {error}{damage_told(artifact)}")
    return problems


def damage_told(artifact: Artifact) -> str:
    """Which part of a token set is damaged, where its own sums tell; else nothing."""
    if artifact.kind != Artifact.Kind.TOKENS:
        return ""
    try:
        tokens_verify(storage.artifact_folder(artifact))
    except (DamagedError, OSError) as error:
        return f" ({error})"
    return ""


def version_check(name: str) -> list[str]:
    """What differs upstream of the version "model@number"."""
    version: ModelVersion | None = version_named(name=name)
    if version is None:
        raise CommandError(f"There is no version {name!r}; write it as MODEL@NUMBER.")
    return [
        f"{found.subject}: {found.message}" for found in version_lineage_verify(version=version)
    ]
