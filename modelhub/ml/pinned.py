"""A file or folder held fast: no link on the way to it, whatever is put in its place later.

A path that was looked at and is opened afterwards may lead elsewhere by then, if somebody who may
write to a folder on the way has put a link there. Here every folder of the path is opened from the
one before it. Linux.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from modelhub.ml.configs import RefusedError

_ADVICE = "give the path it leads to"
_SPECIAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextlib.contextmanager
def pinned(path: Path) -> Iterator[Path]:
    """A path, of this process alone, to what `path` names now, as long as the context lasts.

    Raises RefusedError naming the first part that is a link, is not there or is no folder.
    """
    descriptor = _opened(path)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def place_given(location: str) -> Path:
    """Where a run's configuration says something lies.

    Of a run that a worker has started the service has followed every link below an import folder:
    one that is there by now leads somewhere nobody has looked. By hand links are one's own.
    """
    path = Path(location)
    return path if os.environ.get("RONDO_PARENT_PID") else path.resolve()


def special_kind(path: Path) -> str:
    """ "a pipe", "a socket" or "a device"; "" of a file or a folder. What it is, is not opened: a
    pipe would be waited for without end, and a device may never end."""
    return _SPECIAL.get(stat.S_IFMT(path.stat().st_mode), "")


def file_open(path: Path) -> IO[bytes]:
    """A plain file for reading; the last part of its path, too, is no link. Of others as `pinned`.

    Raises RefusedError for what is no plain file: a pipe would be waited for without end.
    """
    with pinned(path) as held:
        if not held.is_file():
            raise RefusedError(f"{path} is no plain file")
        return held.open("rb")


def _opened(path: Path) -> int:
    """A descriptor that names the file or folder and reads nothing of it."""
    first, *parts = path.absolute().parts
    descriptor = os.open(first, os.O_PATH | os.O_DIRECTORY)
    for number, part in enumerate(parts, start=1):
        above = descriptor
        kind = os.O_DIRECTORY if number < len(parts) else 0
        so_far = Path(first, *parts[:number])
        try:
            if part == "..":
                raise RefusedError(f"{path}: write it without ..")
            descriptor = os.open(part, os.O_PATH | os.O_NOFOLLOW | kind, dir_fd=above)
        except FileNotFoundError as error:
            raise RefusedError(f"{so_far} is not there") from error
        except NotADirectoryError as error:  # what it says of a link, too
            raise RefusedError(f"{so_far} is no folder, or a link: {_ADVICE}") from error
        finally:
            os.close(above)
    if stat.S_ISLNK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RefusedError(f"{path} is a link: {_ADVICE}")
    return descriptor
