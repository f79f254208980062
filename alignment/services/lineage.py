"""Whether a lineage still is what it was."""

from alignment.selectors.lineage import version_lineage
from annotation.services.datasets import preference_dataset_verify
from modelhub.models import ModelVersion
from modelhub.selectors import lineage as hub_lineage
from modelhub.selectors.lineage import Difference


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
