"""Whether a lineage still is what it was."""

import json

from alignment.selectors.lineage import Node, version_lineage
from annotation.models import PreferenceDataset
from annotation.services.datasets import preference_dataset_verify
from modelhub.ml.manifest import IntegrityError
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.selectors import lineage as hub_lineage
from modelhub.selectors.lineage import Difference
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


def version_differences(*, version: ModelVersion) -> list[Difference]:
    """All that differs upstream of a version: the hub's part, and the snapshots' rows.

    The hub compares artifacts, runs and versions with what their manifests say of their origin;
    what a snapshot was made of only its project knows. Reads every byte upstream.
    """
    found = hub_lineage.lineage_verify(version=version)
    for dataset in version_lineage(version=version).datasets():
        try:
            preference_dataset_verify(dataset=dataset)
        except (ValueError, OSError) as error:
            found.append(Difference(subject=str(dataset), message=str(error)))
    return found


def _origin_check(run: Run) -> None:
    """As `_config_check`, from the origin that the names of the run's outputs cover."""
    for made in run.outputs.select_related("artifact"):
        origin = made.artifact.manifest.get("origin")
        if not isinstance(origin, dict):
            continue
        if origin.get("config") != run.config or origin.get("program") != run.program:
            raise IntegrityError(f"{run}: its configuration has changed since it ran")
        inputs = {one.role: one.artifact.sha256 for one in run.inputs.select_related("artifact")}
        if origin.get("inputs") != inputs:
            raise IntegrityError(f"{run}: its inputs have changed since it ran")


def _config_check(run: Run) -> None:
    """The row's configuration and inputs against the ones its program read."""
    try:
        given = json.loads((run_folder(run) / "config.json").read_text())
    except FileNotFoundError:
        _origin_check(run)  # its directory was cleaned away
        return
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
