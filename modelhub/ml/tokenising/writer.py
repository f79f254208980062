"""Writes a file of a token set, whole or not at all.

    NAME.ds            tokens, uint16 or uint32, little-endian; datatrove's layout, byte for byte
    NAME.ds.index      end of each document, uint64, in tokens
    NAME.ds.metadata   tokenizer|bytes of a token, tokens, tokens for people
    NAME.ds.documents  Parquet: id and source of each document
    NAME.ds.sums       blake2b-64 of every MiB of NAME.ds: which part of a damaged file is meant

The metadata is written last: a file with it is whole.
"""

from __future__ import annotations

import hashlib
import os
import typing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelhub.ml.configs import RefusedError

if typing.TYPE_CHECKING:
    import pyarrow.parquet as pq

SUM_BLOCK_BYTES = 1 << 20
SUM_BYTES = 8


class DamagedError(RefusedError):
    """A file of a token set is not as it was written; the message names it and the byte."""


class TokenFileWriter:
    """One NAME.ds and what lies beside it. Memory is that of one `add`, whatever the file is."""

    def __init__(
        self, path: Path, *, dtype: type[np.uint16] | type[np.uint32], tokenizer: str
    ) -> None:
        """`tokenizer`: its name, for the metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path, self._dtype, self._tokenizer = (
            path,
            np.dtype(dtype).newbyteorder("<"),
            tokenizer,
        )
        self._schema = pa.schema([("id", pa.string()), ("source", pa.string())])
        self._documents: pq.ParquetWriter = pq.ParquetWriter(
            beside(path, "documents"), self._schema, compression="zstd"
        )
        self._tokens_file = path.open("wb")
        self._index_file = beside(path, "index").open("wb")
        self.tokens = self.documents = 0

    def add(
        self,
        tokens: NDArray[np.unsignedinteger],
        lengths: NDArray[np.int64],
        names: Sequence[tuple[str, str]],
    ) -> None:
        """Documents one behind the other: tokens of all, length of each, (id, source) of each."""
        import pyarrow as pa

        tokens.astype(self._dtype, copy=False).tofile(self._tokens_file)
        (self.tokens + np.cumsum(lengths)).astype("<u8").tofile(self._index_file)
        ids, sources = zip(*names, strict=True) if names else ((), ())
        self._documents.write_table(pa.table([ids, sources], schema=self._schema))
        self.tokens += len(tokens)
        self.documents += len(lengths)

    def close(self) -> None:
        """Sum, sync and say that the file is whole."""
        self._documents.close()
        for file in (self._tokens_file, self._index_file):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        beside(self._path, "sums").write_bytes(b"".join(sums_read(self._path)))
        temporary = beside(self._path, "metadata.tmp")
        temporary.write_text(
            f"{self._tokenizer}|{self._dtype.itemsize}\n{self.tokens}\n{tokens_told(self.tokens)}"
        )
        temporary.replace(beside(self._path, "metadata"))


def beside(path: Path, what: str) -> Path:
    """NAME.ds.WHAT."""
    return path.with_name(f"{path.name}.{what}")


def dtype_for(vocabulary: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest type that holds every token."""
    return np.uint16 if vocabulary <= 1 << 16 else np.uint32


def tokens_told(tokens: int) -> str:
    """Three figures and a unit, as datatrove tells it: "1.50 MT"."""
    exponent = max(0, len(str(tokens)) - 1)
    unit = exponent // 3
    return f"{tokens / 1000**unit:.{2 - exponent % 3}f} {' kMGTPEZY'[unit].strip()}T"


def sums_read(path: Path) -> list[bytes]:
    """blake2b-64 of every MiB of a file."""
    found = []
    with path.open("rb") as file:
        while block := file.read(SUM_BLOCK_BYTES):
            found.append(hashlib.blake2b(block, digest_size=SUM_BYTES).digest())
    return found


def tokens_verify(folder: Path) -> int:
    """Read a token set whole and compare its sums. Returns how many files it has.

    Raises DamagedError, naming the file and the bytes, at the first part that differs.
    """
    paths = sorted(folder.glob("*.ds"))
    for path in paths:
        sums = beside(path, "sums")
        if not sums.is_file():
            raise DamagedError(f"{sums.name} is missing: {path.name} cannot be checked")
        stored, found = sums.read_bytes(), sums_read(path)
        wanted = [stored[at : at + SUM_BYTES] for at in range(0, len(stored), SUM_BYTES)]
        for number, (one, other) in enumerate(zip(wanted, found, strict=False)):
            if one != other:
                first = number * SUM_BLOCK_BYTES
                last = min(first + SUM_BLOCK_BYTES, path.stat().st_size) - 1
                raise DamagedError(f"{path.name} is damaged between bytes {first} and {last}")
        if len(wanted) != len(found):
            raise DamagedError(
                f"{path.name} ends at byte {path.stat().st_size}, in part {len(found)} of "
                f"{len(wanted)} of {SUM_BLOCK_BYTES} bytes"
            )
    return len(paths)
