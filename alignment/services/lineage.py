"""Whether the snapshots of a lineage still are what they were."""

from alignment.selectors.lineage import version_lineage
from annotation.services.datasets import preference_dataset_verify
from modelhub.models import ModelVersion
from modelhub.selectors.lineage import Difference


def snapshots_compare(*, version: ModelVersion) -> list[Difference]:
    """What differs between the snapshots upstream of a version and the rows they were made of.

    settings.LINEAGE_CHECKS: the hub compares artifacts, runs and versions with what their manifests
    say of their origin; what a snapshot was made of only its project knows.
    """
    found = []
    for dataset in version_lineage(version=version).datasets():
        try:
            preference_dataset_verify(dataset=dataset)
        except (ValueError, OSError) as error:
            found.append(Difference(subject=str(dataset), message=str(error)))
    return found
