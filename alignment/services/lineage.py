"""Whether a lineage still is what it was."""

import json

from alignment.selectors.lineage import Node
from annotation.models import PreferenceDataset
from annotation.services.datasets import preference_dataset_verify
from modelhub.ml.manifest import IntegrityError
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.storage import artifact_verify, run_folder


def lineage_verify(*, root: Node) -> int:
    """Check everything a lineage is made of; returns how many artifacts were read, byte for byte.

    Weights, tokenizers and chat templates are read against their manifests, snapshots against
    their rows, and each run's configuration (its seed is in it) against the one its program was
    given. Raises IntegrityError naming the first thing that has changed.
    """
    checked: set[int] = set()

    def check(artifact: Artifact, owner: str) -> None:
        if artifact.pk in checked:
            return
        checked.add(artifact.pk)
        try:
            artifact_verify(artifact)
        except IntegrityError as error:
            raise IntegrityError(f"{owner}: {error}") from error

    for node in root.walk():
        subject = node.subject
        if isinstance(subject, ModelVersion):
            check(subject.artifact, str(subject))
            _template_check(subject)
        elif isinstance(subject, PreferenceDataset):
            check(subject.artifact, str(subject))
            try:
                preference_dataset_verify(dataset=subject)
            except ValueError as error:
                raise IntegrityError(f"{subject}: {error}") from error
        elif isinstance(subject, Run):
            _config_check(subject)
            # What it read stands above it in the lineage, under a better name.
            for made in subject.outputs.select_related("artifact"):
                check(made.artifact, f"{made.role} of {subject}")
        elif isinstance(subject, Artifact):
            check(subject, str(subject))
    return len(checked)


def _config_check(run: Run) -> None:
    """The row's configuration and inputs against the ones its program read."""
    try:
        given = json.loads((run_folder(run) / "config.json").read_text())
    except FileNotFoundError:
        return  # its directory was cleaned away; the row alone says what it was given
    except ValueError as error:
        raise IntegrityError(f"{run}: config.json is not JSON") from error
    if given["config"] != run.config or given["program"] != run.program:
        raise IntegrityError(f"{run}: its configuration has changed since it ran")
    inputs = {one.role: one.artifact.sha256 for one in run.inputs.select_related("artifact")}
    if {role: one["sha256"] for role, one in given["inputs"].items()} != inputs:
        raise IntegrityError(f"{run}: its inputs have changed since it ran")


def _template_check(version: ModelVersion) -> None:
    """The row's chat template against the one the run that made the version reported."""
    if version.run is None or version.run.result is None:
        return
    reported = version.run.result.get("chat_template")
    if reported is not None and reported != version.chat_template:
        raise IntegrityError(f"{version}: its chat template has changed since it was registered")
