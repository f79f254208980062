"""Artifacts come into the hub here, and never change afterwards; that is looked after."""

import logging
import time
from datetime import timedelta
from pathlib import Path

from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext

from modelhub import storage
from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.manifest import IntegrityError
from modelhub.models import Artifact, ModelVersion
from modelhub.selectors.lineage import (
    Difference,
    lineage_nodes,
    lineage_verify,
    version_lineage,
)

logger = logging.getLogger(__name__)


def artifact_store(*, folder: Path, kind: str) -> Artifact:
    """Copy a folder into the store and return its row; the same files again return the same row.

    Call it outside a transaction where the files are large: hashing them must not hold the
    database's write lock. Raises ApplicationError naming a file that cannot be stored.
    """
    try:
        content = storage.content_put(folder=folder)
    except IntegrityError as error:
        raise ApplicationError(
            gettext("The files cannot be stored: %(error)s.") % {"error": error}
        ) from error
    return artifact_register(content=content, kind=kind)


def artifact_register(*, content: storage.StoredContent, kind: str) -> Artifact:
    """The row of stored content. Raises ConflictError if it is already known as another kind."""
    if kind not in Artifact.Kind.values:
        raise ApplicationError(
            gettext("There is no artifact kind %(kind)s.") % {"kind": f"{kind!r}"},
            {"field": "kind"},
        )
    artifact, _ = Artifact.objects.get_or_create(
        sha256=content.sha256,
        defaults={
            "kind": kind,
            "uri": content.uri,
            "manifest": content.manifest,
            "size_bytes": content.size_bytes,
        },
    )
    if not storage.artifact_folder(artifact).is_dir():
        # A collection of garbage took the files between their storing and this row.
        artifact.delete()
        raise ConflictError(
            gettext("The files were removed as unused just now. Store them again."),
            {"sha256": artifact.sha256},
        )
    if artifact.damage:
        # Storing has just found these files good, or put good ones in their place.
        _found_whole(artifact)
    if artifact.kind != kind:
        raise ConflictError(
            gettext("These files are already stored as %(kept)s, not as %(kind)s.")
            % {"kept": artifact.kind, "kind": kind},
            {"sha256": artifact.sha256},
        )
    return artifact


def artifact_verify(*, artifact: Artifact) -> None:
    """Hash every file of an artifact, and forget damage that is no longer there.

    Raises IntegrityError naming the first file that has changed.
    """
    storage.artifact_verify(artifact)
    if artifact.damage:
        _found_whole(artifact)


def version_lineage_verify(*, version: ModelVersion) -> list[Difference]:
    """What differs upstream of a version; damage that is no longer there is forgotten."""
    differences = lineage_verify(version=version)
    damaged = {one.artifact.pk for one in differences if one.artifact is not None}
    for node in lineage_nodes(version_lineage(version=version)):
        if node.artifact.damage and node.artifact.pk not in damaged:
            _found_whole(node.artifact)
    return differences


def _found_whole(artifact: Artifact) -> None:
    artifact.damage, artifact.verified_at = "", timezone.now()
    Artifact.objects.filter(pk=artifact.pk).update(damage="", verified_at=artifact.verified_at)


def artifacts_scrub(*, seconds: float, older_than: timedelta = timedelta(hours=20)) -> int:
    """Hash artifacts that were not hashed for so long, the longest first, for about so many
    seconds; keep what was found changed, and log it. Returns how many were hashed.

    A little at a time, so that each is looked at once a day and nothing waits for that.
    """
    deadline = time.monotonic() + seconds
    before = timezone.now() - older_than
    due = Artifact.objects.filter(Q(verified_at=None) | Q(verified_at__lt=before))
    count = 0
    for artifact in due.order_by(F("verified_at").asc(nulls_first=True), "pk").iterator(100):
        claimed = timezone.now()
        row = Artifact.objects.filter(pk=artifact.pk)
        if not row.filter(verified_at=artifact.verified_at).update(verified_at=claimed):
            continue  # another scrub has it, or it is gone
        damage = ""
        try:
            storage.artifact_verify(artifact)
        except (IntegrityError, OSError) as error:
            damage = str(error)
        # Neither what was deleted meanwhile is damaged, nor what was repaired.
        is_there = row.filter(verified_at=claimed).update(damage=damage[:2000])
        if damage and is_there:
            logger.error("%s is damaged: %s", artifact, damage)
        count += 1
        if time.monotonic() > deadline:
            break
    return count
