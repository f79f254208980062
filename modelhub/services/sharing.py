"""A version to a folder or a model hub, and back, byte for byte.

A pushed folder is the artifact as it lies in the store (safetensors, JSON, text) with README.md
beside it. Its manifest.json names each file by sha256, and the artifact is named by the manifest's
own hash: pulled anywhere, unchanged files are the same artifact.
"""

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.utils.translation import gettext

from modelhub import storage
from modelhub.cards import card_markdown, card_read
from modelhub.errors import ApplicationError
from modelhub.ml.adapter_directory import adapter_directory_check, is_adapter
from modelhub.ml.configs import RefusedError
from modelhub.ml.manifest import MANIFEST_NAME, IntegrityError, folder_sync, manifest_verify
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.pinned import file_open, pinned
from modelhub.ml.records import json_strict
from modelhub.ml.template_check import template_check
from modelhub.models import Artifact, ModelVersion
from modelhub.selectors.lineage import version_lineage
from modelhub.selectors.versions import artifact_evaluations
from modelhub.services.artifacts import artifact_store, artifact_verify
from modelhub.services.history import act_record
from modelhub.services.imports import HUB_ID, import_path
from modelhub.services.versions import (
    model_get_or_create,
    model_name_check,
    model_version_register,
)

README = "README.md"
# More than this is carried by hub_push and hub_pull: a page's request ends after 30 s, in which
# it is copied once and hashed twice.
PAGE_BYTES = 512 << 20
_LEFT_AFTER_S = 86_400.0  # no push takes so long: what is older, a killed one left
_FOLDER = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")


def version_push(
    *, version: ModelVersion, target: str, to_hub: bool, private: bool, actor: User
) -> str:
    """Push a version from its page: to a folder below settings.EXPORT_DIR, or to the model hub.

    Returns where it is now; the act is kept in the version's history. Raises ApplicationError for
    a name that is none, for one that is taken, for a version too large to wait for, for one whose
    bytes have changed, and with what the hub answered.
    """
    _page_size_check(
        version.artifact.size_bytes, f"hub_push {version.model.name}@{version.number} TARGET"
    )
    if to_hub:
        if not HUB_ID.fullmatch(target) or ".." in target:
            raise ApplicationError(
                gettext("%(target)s is no hub id such as organisation/model.")
                % {"target": f"{target!r}"},
                {"field": "target"},
            )
    elif not _FOLDER.fullmatch(target):
        raise ApplicationError(
            gettext("%(target)s cannot name a folder: use letters, digits, dots, - and _.")
            % {"target": f"{target!r}"},
            {"field": "target"},
        )
    try:
        if to_hub:
            where = version_push_hub(version=version, name=target, private=private)
        else:
            folder = Path(settings.EXPORT_DIR) / target
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _killed_sweep(folder.parent)
            version_push_folder(version=version, target=folder)
            where = str(folder)
    except (IntegrityError, OSError) as error:
        raise ApplicationError(
            gettext("%(version)s cannot be pushed: %(error)s")
            % {"version": version, "error": error}
        ) from error
    act_record(actor=actor, subject=version, text=f"pushed to {where}"[:1000])
    return where


def version_pull(*, location: str, model: str, role: str, actor: User) -> ModelVersion:
    """Take in, from its page, a pushed folder below an import folder; the act is kept.

    Raises ApplicationError for a place elsewhere, for a folder too large to wait for, and for all
    that `version_pull_folder` refuses.
    """
    folder = import_path(location, wants_folder=True)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    _page_size_check(size, f"hub_pull {folder} {model}")
    model_name_check(model)
    try:
        with pinned(folder) as held:
            version = version_pull_folder(folder=held, model=model, role=role, name=str(folder))
    except RefusedError as error:
        raise ApplicationError(str(error), {"field": "location"}) from error
    act_record(actor=actor, subject=version, text=f"pulled from {folder}"[:1000])
    return version


def _killed_sweep(root: Path) -> None:
    """Remove what killed pushes left half-written."""
    for aside in root.glob(".*.tmp-????????"):
        try:
            age_s = time.time() - aside.stat().st_mtime
        except FileNotFoundError:
            continue  # its push has just ended
        if age_s > _LEFT_AFTER_S:
            shutil.rmtree(aside, ignore_errors=True)


def _page_size_check(size: int, command: str) -> None:
    if size > PAGE_BYTES:
        raise ApplicationError(
            gettext("It has %(gibibytes)s GiB: run manage.py %(command)s on the server.")
            % {"gibibytes": f"{size / (1 << 30):.1f}", "command": command}
        )


def version_push_folder(*, version: ModelVersion, target: Path) -> None:
    """Write a version to a folder that is not there yet, whole or not at all.

    Every byte is verified before and after. Raises ApplicationError for a folder that is there,
    and IntegrityError for an artifact that has changed.
    """
    if target.exists():
        raise ApplicationError(gettext("%(target)s is there already.") % {"target": target})
    artifact_verify(artifact=version.artifact)
    aside = target.with_name(f".{target.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(storage.artifact_folder(version.artifact), aside)
        manifest_verify(aside, version.artifact.sha256)
        tried = artifact_evaluations(artifact=version.artifact)
        card = card_read(
            version=version, lineage=version_lineage(version=version), evaluations=tried
        )
        if README not in version.artifact.manifest["files"]:
            (aside / README).write_text(card_markdown(card), encoding="utf-8")
        folder_sync(aside)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def version_push_hub(*, version: ModelVersion, name: str, private: bool = True) -> str:
    """Upload a version to `name` ("organisation/model") of settings.MODEL_HUB_ENDPOINT.

    The key is the one the environment's HF_TOKEN holds. Returns the commit's address. Raises
    ApplicationError with what the hub answered.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=settings.MODEL_HUB_ENDPOINT, token=os.environ.get("HF_TOKEN") or None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "version"
        version_push_folder(version=version, target=folder)
        try:
            api.create_repo(name, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=name, folder_path=folder, commit_message=f"Upload {version}"
            )
        except Exception as error:  # the client's transport raises what its own library has
            raise ApplicationError(
                gettext("%(hub)s did not take it: %(error)s")
                % {"hub": settings.MODEL_HUB_ENDPOINT, "error": error}
            ) from error
    return str(done.commit_url)


def version_pull_hub(*, name: str, model: str, role: str = "") -> ModelVersion:
    """Take in what was pushed to `name` ("organisation/model") of settings.MODEL_HUB_ENDPOINT.

    Only what its manifest names is downloaded, and its card. The key is the one the environment's
    HF_TOKEN holds. Raises ApplicationError for a model without a manifest, with what the hub
    answered, and for all that `version_pull_folder` refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RemoteEntryNotFoundError

    if not HUB_ID.fullmatch(name) or ".." in name:
        raise ApplicationError(
            gettext("%(target)s is no hub id such as organisation/model.")
            % {"target": f"{name!r}"},
            {"field": "target"},
        )
    api = HfApi(endpoint=settings.MODEL_HUB_ENDPOINT, token=os.environ.get("HF_TOKEN") or None)
    with tempfile.TemporaryDirectory(dir=settings.DATA_DIR) as scratch:
        folder = Path(scratch) / "hub"
        try:
            manifest = Path(api.hf_hub_download(name, MANIFEST_NAME, local_dir=folder))
            named = json_strict(manifest.read_bytes())
            files = list(named.get("files", ())) if isinstance(named, dict) else []
            api.snapshot_download(
                name, local_dir=folder, allow_patterns=[*map(glob.escape, files), README]
            )
        except RemoteEntryNotFoundError as error:  # a hub out of reach raises its sibling
            raise ApplicationError(
                gettext("%(name)s has no manifest.json: it is a model of others. Import it.")
                % {"name": name}
            ) from error
        except Exception as error:  # as above
            raise ApplicationError(
                gettext("%(hub)s did not give it: %(error)s")
                % {"hub": settings.MODEL_HUB_ENDPOINT, "error": error}
            ) from error
        return version_pull_folder(folder=folder, model=model, role=role, name=name)


def version_pull_folder(
    *, folder: Path, model: str, role: str = "", name: str = ""
) -> ModelVersion:
    """Take a pushed folder in as a version, every file held against its manifest first.

    role: empty takes reward for what scores, policy for what writes. An adapter's base has to be
    here already; its version is the parent. Pulled twice it is the same artifact, in two versions.
    name: what to call the folder in a refusal. Raises ApplicationError naming the file that is
    missing, changed, or is more than a model: a pickle or code of its own is never copied.
    """
    with tempfile.TemporaryDirectory(dir=settings.DATA_DIR) as scratch:
        staged = Path(scratch) / "pulled"
        staged.mkdir()
        try:
            _stage(folder, staged)
            manifest_verify(staged)
            if is_adapter(staged):
                facts, parent = _adapter_facts(staged)
                scores = facts.pop("role") == "reward"
                role = ModelVersion.Role.REWARD if scores else ModelVersion.Role.ADAPTER
            else:
                facts, parent = _model_facts(staged), None
                scores = facts.pop("role") == "reward"
                fitting = ("reward", "critic") if scores else ("policy", "base")
                role = role or fitting[0]
                if role not in fitting:
                    raise RefusedError(f"it cannot be a {role} model, but {' or '.join(fitting)}")
        except (RefusedError, OSError) as error:
            raise ApplicationError(
                gettext("%(folder)s cannot be pulled: %(error)s")
                % {"folder": name or folder, "error": error}
            ) from error
        kind = Artifact.Kind.ADAPTER if is_adapter(staged) else Artifact.Kind.MODEL
        artifact = artifact_store(folder=staged, kind=kind)
    words = ""
    with contextlib.suppress(RefusedError):  # it may have none
        words = _read(folder, README).decode("utf-8")
    return model_version_register(
        model=model_get_or_create(name=model),
        role=role,
        artifact=artifact,
        parent=parent,
        run=None,
        facts=facts,
        card=_without_metadata(words)[:20_000],
    )


def _stage(source: Path, staged: Path) -> None:
    """Copy what the manifest names, and nothing else, following no link."""
    if not (source / MANIFEST_NAME).is_file():
        raise IntegrityError(f"it has no {MANIFEST_NAME}: import it as a folder from elsewhere")
    manifest: Any = json_strict(_read(source, MANIFEST_NAME))
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not files:
        raise IntegrityError(f"{MANIFEST_NAME} names no files")
    for name in files:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or place.as_posix() != name:
            raise IntegrityError(f"{MANIFEST_NAME} names {name!r:.80}, which lies elsewhere")
        path = source / name
        if not path.is_file() or path.resolve() != source.resolve() / name:
            raise IntegrityError(f"{name} is missing, or is no plain file")
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        # Without following a link: the file may have been swapped since it was looked at.
        with file_open(source.resolve() / name) as read, (staged / name).open("xb") as write:
            shutil.copyfileobj(read, write, 1 << 20)
    (staged / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")


def _read(folder: Path, name: str) -> bytes:
    """A file of a folder, no link on the way. Raises RefusedError for one that is not there."""
    with file_open(folder.resolve() / name) as file:
        return file.read()


def _model_facts(folder: Path) -> dict[str, Any]:
    found = model_directory_check(folder)
    if found.chat_template:
        template_check(folder)
    return {
        "role": found.role,
        "architecture": found.architecture,
        "parameters": found.parameters,
        "dtype": found.dtype,
        "context_tokens": found.context_tokens,
        "chat_template": found.chat_template,
    }


def _adapter_facts(folder: Path) -> tuple[dict[str, Any], ModelVersion]:
    found = adapter_directory_check(folder)
    parent = ModelVersion.objects.filter(artifact__sha256=found.base_sha256).order_by("pk").first()
    if parent is None:
        raise RefusedError(
            f"its base, artifact {found.base_sha256[:12]}, is not here: pull it first"
        )
    return {
        "role": found.role,
        "architecture": parent.architecture,
        "parameters": found.parameters,
        "dtype": "float32",
        "context_tokens": parent.context_tokens,
        "chat_template": parent.chat_template,
        "kind": found.kind,
    }, parent


def _without_metadata(text: str) -> str:
    """README.md's words, without the metadata in front."""
    if not text.startswith("---\n"):
        return text
    return text.removeprefix("---\n").partition("\n---\n")[2].strip()
