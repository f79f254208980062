"""Artifacts come into the hub here, and never change afterwards."""

from pathlib import Path

from django.utils.translation import gettext

from modelhub import storage
from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.manifest import IntegrityError
from modelhub.models import Artifact


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
    if artifact.kind != kind:
        raise ConflictError(
            gettext("These files are already stored as %(kept)s, not as %(kind)s.")
            % {"kept": artifact.kind, "kind": kind},
            {"sha256": artifact.sha256},
        )
    return artifact
