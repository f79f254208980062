"""Models from outside come in by a run, like everything else."""

import re
from dataclasses import replace
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext

from modelhub.errors import ApplicationError
from modelhub.ml.configs import ConfigError, ImportModelConfig, config_load
from modelhub.ml.pinned import special_kind
from modelhub.models import Run
from modelhub.packaged import packaged_models
from modelhub.services.runs import run_create
from modelhub.services.versions import (
    model_get_or_create,
    model_name_check,
    model_version_register,
)

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@transaction.atomic
def model_import_request(*, config: ImportModelConfig, requested_by: User | None) -> Run:
    """Queue the import of a folder, a GGUF file or a hub id; its end registers the version.

    Local files are taken from below settings.IMPORT_ROOTS, or from a packaged model, after
    following every link. Raises ApplicationError naming the field it refuses.
    """
    model_name_check(config.model)
    location = config.location
    if config.source == "hub":
        if not HUB_ID.fullmatch(location) or ".." in location:
            raise ApplicationError(
                gettext("%(location)s is no hub id such as organisation/model.")
                % {"location": f"{location!r}"},
                {"field": "location"},
            )
    else:
        location = str(import_path(location, wants_folder=config.source == "directory"))
    return run_create(
        program=config.PROGRAM,
        config=replace(config, location=location),
        inputs={},
        label=f"import {config.model} from {Path(location).name}",
        requested_by=requested_by,
    )


def model_import_finish(*, run: Run) -> None:
    """Register what an import run has brought, inside the transaction that ends the run.

    Raises ApplicationError if the run has no output `model` or its facts do not describe one.
    """
    output = run.outputs.select_related("artifact").filter(role="model").first()
    if output is None or run.result is None:
        raise ApplicationError(gettext("The import has brought no model."))
    try:
        config = config_load(ImportModelConfig, run.config)
    except ConfigError as error:
        raise ApplicationError(str(error)) from error
    model_version_register(
        model=model_get_or_create(name=config.model),
        role=config.role,
        artifact=output.artifact,
        parent=None,
        run=run,
        facts=run.result,
        card=config.card,
    )


def import_path(location: str, *, wants_folder: bool | None = None) -> Path:
    """The file or folder below an import root that a location names, every link followed.

    Raises ApplicationError for what is elsewhere, or is not the one that is wanted.
    """

    def refused(reason: str) -> ApplicationError:
        return ApplicationError(f"{location!r} {reason}.", {"field": "location"})

    if "\x00" in location or location.startswith("~") or "://" in location:
        raise refused("is no path on this server")
    roots = [Path(root).resolve() for root in settings.IMPORT_ROOTS]
    roots += [path.parent for path in packaged_models().values()]
    for root in roots:
        # A relative path is taken from an import root.
        path = (root / location).resolve()
        if path.is_relative_to(root) and path != root and path.exists():
            break
    else:
        # The same answer for what is elsewhere and for what does not exist: no probing of the disk.
        raise refused("is not there, or not below an import folder")
    if kind := special_kind(path):
        raise refused(f"is {kind}: name a file or a folder")
    if wants_folder is not None and path.is_dir() != wants_folder:
        raise refused("is a folder" if path.is_dir() else "is no folder")
    if path.is_dir():
        for inner in path.rglob("*"):
            target = inner.resolve()
            if inner.is_symlink() and not any(target.is_relative_to(root) for root in roots):
                raise refused(f"holds {inner.relative_to(path)}, a link to outside")
    return path
