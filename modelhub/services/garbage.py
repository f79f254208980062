"""Removing what the hub can do without, so that a kill at any point leaves it consistent.

Rows first, in one transaction a version; the files when that is final. A process killed between
the two leaves files that nothing names: the next collection finds and removes them. Files are
renamed out of sight before they are removed, so none is ever seen half gone; what is left of those
`storage.orphans_sweep` takes away.
"""

import logging
from collections.abc import Iterator
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from modelhub import storage
from modelhub.models import Artifact, Model, ModelVersion, RunOutput
from modelhub.selectors.garbage import artifacts_kept, garbage_plan, versions_kept
from modelhub.services.history import act_record

logger = logging.getLogger(__name__)

# Something refers to a row since it was asked: Django has seen that, or the database alone.
_REFERRED = (ProtectedError, IntegrityError)


def garbage_collect(*, older_than: timedelta, actor: User | None) -> Iterator[tuple[str, int]]:
    """Remove what `garbage_plan` names now; yield (what, bytes freed) of each as it is gone.

    Each version is asked about again under its model's lock: what has come to be referred to since
    stays. Any number of collections may run at once.
    """
    plan = garbage_plan(older_than=older_than)
    for version in plan.versions:
        sha256, size = version.artifact.sha256, version.artifact.size_bytes
        removed, freed = _version_remove(version, actor)
        if freed:
            storage.content_remove(sha256)
        if removed:
            yield str(version), size if freed else 0
    for artifact in plan.artifacts:
        if _artifact_remove(artifact):
            storage.content_remove(artifact.sha256)
            yield str(artifact), artifact.size_bytes
    for name, size in storage.contents_unnamed():
        storage.content_remove(name)
        yield f"files {name[:12]}", size


def _version_remove(version: ModelVersion, actor: User | None) -> tuple[bool, bool]:
    """Remove a version's row, and its artifact's where nothing else keeps that.

    Returns whether the version went, and whether its artifact did.
    """
    try:
        with transaction.atomic():
            model = Model.objects.select_for_update().get(pk=version.model_id)
            found = ModelVersion.objects.filter(pk=version.pk)
            if versions_kept(found) or not found.delete()[0]:
                return False, False
            act_record(actor=actor, subject=model, text=f"v{version.number} removed: unused")
            return True, _artifact_remove(version.artifact)
    except _REFERRED as error:
        logger.info("%s stays: %s", version, error)
        return False, False


def _artifact_remove(artifact: Artifact) -> bool:
    """Remove an artifact's row and its makers' mention of it, unless something keeps it."""
    try:
        with transaction.atomic():
            if artifacts_kept([artifact.pk], versions_going=set()):
                return False
            RunOutput.objects.filter(artifact=artifact).delete()
            return Artifact.objects.filter(pk=artifact.pk).delete()[0] > 0
    except _REFERRED as error:
        logger.info("%s stays: %s", artifact, error)
        return False
