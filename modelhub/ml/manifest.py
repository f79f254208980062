"""Manifests: the sha256 and size of every file of an artifact, and how it was made.

Standard library only. The artifact's name is the hash of its manifest, so it covers the bytes, and
for what a run has made also the program, its configuration, inputs and source files ("origin").
Beside that lie hashes of single tensors ("tensors"), which the files' own hashes cover: they are
no part of the name.

safetensors has no checksum of its own: a flipped bit or a zeroed page loads silently with wrong
numbers. So every load goes through `manifest_verify`.

By hand: `python -m modelhub.ml.manifest FOLDER` writes a folder's manifest and prints its name.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelhub.ml.configs import RefusedError
from modelhub.ml.records import json_canonical
from modelhub.ml.tensors import SUFFIX, tensors_changed, tensors_hash

MANIFEST_NAME = "manifest.json"
_BLOCK_BYTES = 1 << 20
_ABSENT = object()


class IntegrityError(RefusedError):
    """A file is not what its manifest says; the message names it."""


def file_sha256(path: Path, beat: Callable[[], None] | None = None) -> str:
    """Hexadecimal sha256 of a file's bytes. `beat` is called after every mebibyte."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            if beat is not None:
                beat()
    return digest.hexdigest()


def folder_sync(folder: Path) -> None:
    """fsync every file and folder below `folder`, and itself: after this it survives power loss."""
    for path in [*folder.rglob("*"), folder]:
        path_sync(path)


def path_sync(path: Path) -> None:
    """fsync a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def manifest_build(folder: Path, beat: Callable[[], None] | None = None) -> dict[str, Any]:
    """The manifest of a folder: {"files": {name: {"sha256", "bytes"}}}, without manifest.json.

    beat: called all along, for whoever takes a long silence for a hang.
    Raises IntegrityError for anything that is not a plain file (a link could point anywhere).
    """
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise IntegrityError(f"{name} is not a plain file")
        if path.is_file() and name != MANIFEST_NAME:
            files[name] = {"sha256": file_sha256(path, beat), "bytes": path.stat().st_size}
    return {"files": files}


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """The artifact's name: sha256 of the canonical JSON of its manifest, but for "tensors"."""
    named = {part: value for part, value in manifest.items() if part != "tensors"}
    return hashlib.sha256(json_canonical(named).encode()).hexdigest()


def manifest_write(
    folder: Path, origin: Mapping[str, Any] | None = None, *, with_tensors: bool = True
) -> str:
    """Write the folder's manifest.json and return the artifact's name.

    `origin` says how the files were made: {"program", "config", "inputs": {role: sha256},
    "sources": {module: sha256}}. "tensors" has the hash of every tensor of safetensors files:
    {file: {name: {"sha256", "dtype", "shape", "bytes"}}}; it costs a second reading of them.
    """
    manifest = manifest_build(folder)
    names = [name for name in manifest["files"] if name.endswith(SUFFIX)]
    if names and with_tensors:
        manifest["tensors"] = {name: tensors_hash(folder / name) for name in names}
    if origin is not None:
        manifest["origin"] = dict(origin)
    (folder / MANIFEST_NAME).write_text(json_canonical(manifest))
    return manifest_sha256(manifest)


def manifest_verify(
    folder: Path, sha256: str | None = None, beat: Callable[[], None] | None = None
) -> None:
    """Check every file of an artifact against its manifest, and the manifest against its name.

    beat: as for `manifest_build`. Raises IntegrityError naming the first file that is missing,
    added or changed.
    """
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
    except FileNotFoundError as error:
        raise IntegrityError(f"{folder.name} has no {MANIFEST_NAME}") from error
    except ValueError as error:
        raise IntegrityError(f"{folder.name}/{MANIFEST_NAME} is not JSON") from error
    if sha256 is not None and manifest_sha256(manifest) != sha256:
        raise IntegrityError(f"{MANIFEST_NAME} is not the one of artifact {sha256[:12]}")
    listed: dict[str, Any] = manifest["files"]
    found = manifest_build(folder, beat)["files"]
    for name in files_changed(listed, found):
        if name not in found:
            raise IntegrityError(f"{name} is missing")
        if name not in listed:
            raise IntegrityError(f"{name} is not in the manifest")
        where = _tensors_named(folder / name, manifest.get("tensors", {}).get(name))
        raise IntegrityError(f"{name} has changed: its sha256 is not the manifest's{where}")


def files_changed(listed: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Names of the files that are missing, added or changed between two manifests' "files"."""
    return sorted(
        name
        for name in listed.keys() | found.keys()
        if listed.get(name, _ABSENT) != found.get(name, _ABSENT)
    )


def _tensors_named(path: Path, known: Mapping[str, Any] | None) -> str:
    """Which tensors of a changed file are not those that were stored, where that is known."""
    if not known:
        return ""
    changed = tensors_changed(dict(known), tensors_hash(path))
    if not changed:
        return " (in its header; every tensor is as it was)"
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f" (tensor {changed[0]}{more})"


def tensors_are_listed(folder: Path) -> bool:
    """Whether the manifest has hashes of tensors, or there are none to have."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    return "tensors" in manifest or not any(name.endswith(SUFFIX) for name in manifest["files"])


def manifest_tensors(folder: Path) -> dict[str, dict[str, Any]]:
    """Every tensor of an artifact's folder, by name: as its manifest has them, or hashed now."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    listed = manifest.get("tensors")
    if listed is None:
        files = (name for name in manifest["files"] if name.endswith(SUFFIX))
        listed = {name: tensors_hash(folder / name) for name in files}
    return {name: one for file in listed.values() for name, one in file.items()}


if __name__ == "__main__":
    print(manifest_write(Path(sys.argv[1])))
