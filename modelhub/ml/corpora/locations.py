"""Where texts lie: files and folders of this machine, web addresses, object storage → sources."""

import http.client
import io
import os
import stat
import typing
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from modelhub.ml.corpora.readers import Source, SourceError
from modelhub.ml.pinned import file_open, pinned, place_given, special_kind

WEB = ("http", "https")
# fsspec's names. Not `file` and its kin: what of this machine may be read is the importer's to say.
STORES = ("s3", "gs", "gcs", "az", "abfs", "memory")
_TIMEOUT_S = 60


def location_scheme(location: str) -> str:
    """ "https" of an address; "" of a path."""
    scheme, colon, _ = location.partition("://")
    return scheme.lower() if colon else ""


def location_sources(locations: Sequence[str]) -> list[Source]:
    """Every file of the locations, folders walked in the order of their names.

    Raises SourceError for a location that is not there, holds no file, or has a scheme that is not
    allowed.
    """
    found: list[Source] = []
    for location in locations:
        scheme = location_scheme(location)
        if scheme in WEB:
            of_location = [_web_source(location)]
        elif scheme in STORES:
            of_location = list(_store_sources(location))
        elif scheme:
            raise SourceError(f"{location}: no {scheme}:// is read here")
        else:
            of_location = list(_local_sources(place_given(location)))
        if not of_location:
            raise SourceError(f"{location}: holds no file")
        found += of_location
    return found


def _local_sources(path: Path) -> Iterator[Source]:
    """The file, or all below the folder, links and hidden ones passed over."""
    if not path.exists():
        raise SourceError(f"{path.name}: no such file or folder")
    with pinned(path) as held:
        if held.is_file():
            yield _local_source(path, path.name)
            return
        if kind := special_kind(held):
            raise SourceError(
                f"{path.name} is {kind}: texts are read from files and folders. Save what it gives "
                "in a file, and name that"
            )
        folder = os.open(held, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = [
            Path(where) / file
            for where, _folders, files, at in os.fwalk(".", dir_fd=folder)
            for file in files
            if stat.S_ISREG(os.stat(file, dir_fd=at, follow_symlinks=False).st_mode)
        ]
    finally:
        os.close(folder)
    for name in sorted(names):
        if not any(part.startswith(".") for part in name.parts):
            yield _local_source(path / name, name.as_posix())


def _local_source(path: Path, name: str) -> Source:
    # Without following a link: what was listed may have been swapped since.
    return Source(name=name, open=lambda: file_open(path))


def _web_source(address: str) -> Source:
    name = Path(unquote(urlsplit(address).path)).name or urlsplit(address).netloc

    def opened() -> IO[bytes]:
        try:
            reply = urllib.request.urlopen(address, timeout=_TIMEOUT_S)  # noqa: S310
        except urllib.error.HTTPError as error:
            raise SourceError(f"{address}: {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"{address} cannot be reached: {error}") from error
        return typing.cast(IO[bytes], _WebFile(address, reply))

    return Source(name=name, open=opened)


class _WebFile(io.RawIOBase):
    """What an address sends, or ConnectionError where that ends before its end.

    http.client reads an answer that is cut short as if it were whole.
    """

    def __init__(self, address: str, reply: http.client.HTTPResponse) -> None:
        self._address, self._reply = address, reply

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            block = self._reply.read(None if size < 0 else size)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"{self._address} broke off: {error}") from error
        if size and not block and self._reply.length:
            raise ConnectionError(
                f"{self._address} broke off: {self._reply.length} bytes are missing"
            )
        return block

    def close(self) -> None:
        self._reply.close()
        super().close()


def _store_sources(location: str) -> Iterator[Source]:
    try:
        import fsspec
    except ImportError as error:
        raise SourceError(f"{location}: install the s3 extra to read object storage") from error
    scheme = location_scheme(location)
    try:  # fsspec knows no S3://
        files, root = fsspec.core.url_to_fs(scheme + location[len(scheme) :])
    except ImportError as error:
        extra = " (the s3 extra)" if scheme == "s3" else ""
        raise SourceError(f"{location}: {error}{extra}") from error
    try:
        paths = [root] if files.isfile(root) else sorted(files.find(root))
    except (FileNotFoundError, PermissionError) as error:
        raise SourceError(f"{location}: {error}") from error
    except Exception as error:  # each driver has its own: no keys, no connection
        raise ConnectionError(f"{location} cannot be read: {error}") from error
    for path in paths:
        name = path.removeprefix(root).lstrip("/") or Path(path).name

        def opened(path: str = path) -> IO[bytes]:
            file: IO[bytes] = files.open(path, "rb")
            return file

        yield Source(name=name, open=opened)
