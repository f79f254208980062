"""Where files lie: artifacts in a content-addressed store, runs in directories of their own.

    ARTIFACTS_DIR/<sha256 of the manifest>/  manifest.json and the files it lists; never changed but
                                             for its time: when it was stored, or last found stored
    ARTIFACTS_DIR/.tmp-<random>/             one being written, or left by a process that was killed
    ARTIFACTS_DIR/.lock                      held while content is placed, found or removed
    RUNS_DIR/<run uid>/                      see modelhub/ml/rundir.py
    SERVERS_DIR/<server uid>/                see modelhub/ml/serve.py

Folders are 0700 and files 0600. `Artifact.uri` is "local:<sha256>": a name, not a path, so that the
data folder can move and another store can be added beside this one.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from modelhub.ml.manifest import (
    MANIFEST_NAME,
    IntegrityError,
    folder_sync,
    manifest_sha256,
    manifest_verify,
    manifest_write,
    path_sync,
)
from modelhub.models import Artifact, Run, Server

logger = logging.getLogger(__name__)

LOCAL_SCHEME = "local"
LOG_NAME = "log.txt"
# Stored content may be about to be registered for so long, and is not collected meanwhile.
GRACE_S = 3600.0
_TEMPORARY_PREFIX = ".tmp-"
_LOCK_NAME = ".lock"
_RESOLVED_NAME = "resolved.json"  # as modelhub/ml/rundir.py calls it


@dataclass(frozen=True, kw_only=True)
class StoredContent:
    """What the store says of a folder it has taken in."""

    sha256: str
    uri: str
    manifest: dict[str, Any]
    size_bytes: int


def content_put(*, folder: Path, link: bool = False) -> StoredContent:
    """Take a folder's files into the store, whole or not at all; the same content twice is one.

    The files are copied, or hard-linked with `link` (then nobody may write to them again), hashed
    as they lie in the store, synced and renamed into place. A manifest.json in the folder is
    written anew, keeping what a run says in it of how it made the files. Content that is already
    there is verified; if it has been damaged, the good files replace it. For GRACE_S no collection
    takes the content, whether it was there already or not: time to register it.
    Raises IntegrityError for an empty folder and for links and other things that are no plain
    files.
    """
    root = _folder_make(settings.ARTIFACTS_DIR)
    temporary = root / f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    temporary.mkdir(mode=0o700)
    try:
        _tree_copy(folder, temporary, link=link)
        sha256 = manifest_write(temporary, _origin_of(folder))
        (temporary / MANIFEST_NAME).chmod(0o600)
        manifest = json.loads((temporary / MANIFEST_NAME).read_text())
        manifest.pop("tensors", None)  # thousands of a large model: the file alone has them
        if not manifest["files"]:
            raise IntegrityError(f"{folder.name} holds no files")
        folder_sync(temporary)
        _place(temporary, root / sha256, sha256)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return StoredContent(
        sha256=sha256,
        uri=f"{LOCAL_SCHEME}:{sha256}",
        manifest=manifest,
        size_bytes=sum(file["bytes"] for file in manifest["files"].values()),
    )


def artifact_folder(artifact: Artifact) -> Path:
    """The folder of an artifact's files. Raises IntegrityError for an address it does not know."""
    scheme, _, name = artifact.uri.partition(":")
    if scheme != LOCAL_SCHEME or name != artifact.sha256 or not _is_sha256(name):
        raise IntegrityError(f"artifact {artifact.sha256[:12]} has an unknown address")
    return Path(settings.ARTIFACTS_DIR) / name


def artifact_verify(artifact: Artifact) -> None:
    """Hash every file of an artifact. Raises IntegrityError naming the first that has changed."""
    where = f"artifact {artifact.sha256[:12]}"
    if manifest_sha256(artifact.manifest) != artifact.sha256:
        raise IntegrityError(f"{where}: the manifest in the database has changed")
    try:
        manifest_verify(artifact_folder(artifact), artifact.sha256)
    except IntegrityError as error:
        raise IntegrityError(f"{where}: {error}") from error


def orphans_sweep(*, older_than_s: float = GRACE_S) -> int:
    """Remove what killed processes left half-written in the store. Returns how many folders."""
    removed = 0
    for folder in Path(settings.ARTIFACTS_DIR).glob(f"{_TEMPORARY_PREFIX}*"):
        try:
            age_s = time.time() - folder.stat().st_mtime
        except FileNotFoundError:
            continue  # its writer has just finished
        if age_s > older_than_s:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def contents_unnamed(*, older_than_s: float = GRACE_S) -> list[tuple[str, int]]:
    """(name, bytes) of what lies in the store and no artifact names, largest first.

    What is younger may be about to be registered. One query.
    """
    names = {path.name for path in Path(settings.ARTIFACTS_DIR).glob("*") if _is_sha256(path.name)}
    names -= set(Artifact.objects.filter(sha256__in=names).values_list("sha256", flat=True))
    found = []
    for name in names:
        folder = Path(settings.ARTIFACTS_DIR) / name
        try:
            if _age_s(folder) <= older_than_s:
                continue
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        except FileNotFoundError:
            continue  # another collection has just removed it
        found.append((name, size))
    return sorted(found, key=lambda one: (-one[1], one[0]))


def content_remove(sha256: str, *, older_than_s: float = GRACE_S) -> bool:
    """Remove stored files that no artifact names: out of sight at once, then file by file.

    Returns whether it did. Files that an artifact names stay, and so do those that were stored, or
    found stored, within `older_than_s`: somebody is about to name them.
    """
    if not _is_sha256(sha256):
        return False
    folder = Path(settings.ARTIFACTS_DIR) / sha256
    aside = folder.with_name(f"{_TEMPORARY_PREFIX}removed-{uuid.uuid4().hex}")
    with _store_locked():
        try:
            # Asked again under the lock: whoever stores these files now has not found them yet.
            if _age_s(folder) <= older_than_s or Artifact.objects.filter(sha256=sha256).exists():
                return False
            folder.rename(aside)
        except FileNotFoundError:
            return False
        path_sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)
    return True


def run_folder(run: Run) -> Path:
    """The run's directory. It may not exist yet, or lie on another machine."""
    return Path(settings.RUNS_DIR) / run.uid


def run_folder_make(run: Run) -> Path:
    """The run's directory, made if need be, readable by its owner alone."""
    return _folder_make(_folder_make(settings.RUNS_DIR) / run.uid)


def server_folder(server: Server) -> Path:
    """The server's directory. It may lie on another machine."""
    return Path(settings.SERVERS_DIR) / server.uid


def server_folder_make(server: Server) -> Path:
    """The server's directory, made if need be, readable by its owner alone."""
    return _folder_make(_folder_make(settings.SERVERS_DIR) / server.uid)


def folder_remove(folder: Path) -> None:
    """Remove a folder and all below it."""
    shutil.rmtree(folder)


def run_log_tail(run: Run, *, max_bytes: int = 16_384) -> str:
    """The end of what the program printed, as text without control characters; "" without a log."""
    return _log_tail(run_folder(run) / LOG_NAME, max_bytes)


def server_log_tail(server: Server, *, max_bytes: int = 16_384) -> str:
    """The end of what the server printed, as `run_log_tail` gives a run's."""
    return _log_tail(server_folder(server) / LOG_NAME, max_bytes)


def _log_tail(log: Path, max_bytes: int) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            tail = file.read(max_bytes)
    except OSError:
        return ""
    if size > max_bytes:
        tail = tail.partition(b"\n")[2] or tail
    # A progress bar rewrites its line with carriage returns: the last writing is the one to show.
    lines = [
        line.rstrip("\r").rsplit("\r", 1)[-1]
        for line in tail.decode("utf-8", "replace").split("\n")
    ]
    return "".join(c for c in "\n".join(lines) if c in "\n\t" or c.isprintable())


def run_told(run: Run, name: str) -> Any:
    """What a JSON file in the run's directory says, which its program replaces as it works; None
    where there is none yet, or the directory lies on another machine."""
    try:
        return json.loads((run_folder(run) / name).read_bytes())
    except (OSError, ValueError):
        return None


def checkpoint_steps(run: Run) -> list[int]:
    """The steps of a run's checkpoints that are there, the newest first."""
    found = (run_folder(run) / "checkpoints").glob(f"step-*/{MANIFEST_NAME}")
    names = (one.parent.name.removeprefix("step-") for one in found)
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def checkpoint_values(run: Run, step: int) -> dict[str, Any]:
    """What a run's program keeps of its own in a checkpoint (modelhub/ml/checkpoint.py).

    Raises IntegrityError if it cannot be read.
    """
    try:
        described = json.loads((_checkpoint_folder(run, step) / "state.json").read_bytes())
        return dict(described["values"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"the checkpoint of step {step} cannot be read: {error}") from error


def checkpoint_hand_on(run: Run, step: int, *, to: Run) -> None:
    """Give another run a checkpoint to begin with, as links, whatever becomes of the first.

    With it goes what settings left to the machine stood for. Raises IntegrityError if it is gone.
    """
    target = run_folder_make(to)
    checkpoints = _folder_make(target / "checkpoints")
    temporary = checkpoints / f"{_TEMPORARY_PREFIX}{step}"
    try:
        shutil.copytree(_checkpoint_folder(run, step), temporary, copy_function=_link_or_copy)
        resolved = run_folder(run) / _RESOLVED_NAME
        if resolved.exists():
            shutil.copyfile(resolved, target / _RESOLVED_NAME)
        temporary.rename(checkpoints / _checkpoint_folder(run, step).name)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise IntegrityError(f"the checkpoint of step {step} cannot be taken: {error}") from error


def _checkpoint_folder(run: Run, step: int) -> Path:
    return run_folder(run) / "checkpoints" / f"step-{step:08d}"


def _link_or_copy(source: str, target: str) -> None:
    if not _linked(Path(source), Path(target)):
        shutil.copyfile(source, target)


def _folder_make(folder: Path | str) -> Path:
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def _is_sha256(name: str) -> bool:
    return len(name) == 64 and all(c in "0123456789abcdef" for c in name)


def _tree_copy(source: Path, target: Path, *, link: bool) -> None:
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise IntegrityError(f"{name.as_posix()} is not a plain file")
        if path.is_dir():
            (target / name).mkdir(mode=0o700)
        elif name.as_posix() != MANIFEST_NAME:
            if not (link and _linked(path, target / name)):
                shutil.copyfile(path, target / name)
            (target / name).chmod(0o600)


def _origin_of(folder: Path) -> dict[str, Any] | None:
    """How a run says it made the folder; what it says becomes a part of the artifact's name."""
    try:
        origin = json.loads((folder / MANIFEST_NAME).read_text())["origin"]
    except (FileNotFoundError, KeyError):
        return None
    except (ValueError, TypeError) as error:
        raise IntegrityError(f"{folder.name}/{MANIFEST_NAME} is not a manifest") from error
    return dict(origin)


def _linked(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            return False
        raise
    return True


def _place(temporary: Path, final: Path, sha256: str) -> None:
    while True:
        with _store_locked():
            try:
                os.utime(temporary)
                temporary.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                os.utime(final)  # from now on no collection takes it
            else:
                path_sync(final.parent)
                return
        try:
            manifest_verify(final, sha256)
            return
        except IntegrityError as error:
            logger.warning("artifact %s was damaged (%s) and is replaced", sha256[:12], error)
            with contextlib.suppress(FileNotFoundError):  # another writer has just done it
                final.rename(final.with_name(f"{_TEMPORARY_PREFIX}damaged-{uuid.uuid4().hex}"))


@contextlib.contextmanager
def _store_locked() -> Iterator[None]:
    """One at a time, among all processes: content is placed or found, or removed.

    Held for a few system calls and one query; never while files are hashed or copied.
    """
    path = _folder_make(settings.ARTIFACTS_DIR) / _LOCK_NAME
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _age_s(folder: Path) -> float:
    """Seconds since content was stored or found stored. Raises FileNotFoundError."""
    return time.time() - folder.stat().st_mtime
