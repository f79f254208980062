"""A corpus as files: Parquet shards of documents, and of what was measured of each beside them.

    CORPUS/ documents-00000.parquet  id, text, source, language, licence
            signals-00000.parquet    one row a document, in the same order; may be absent

Shards hold row groups of at most GROUP_DOCUMENTS documents or about GROUP_CHARACTERS characters, so
that reading and writing take the same memory whatever the corpus is. Arrow is loaded where it is
used: it takes 40 MB.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhub.ml.configs import RefusedError

if typing.TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_DOCUMENTS = 1000
GROUP_CHARACTERS = 4_000_000
SHARD_CHARACTERS = 256_000_000
COLUMNS = ("id", "text", "source", "language", "licence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text. `source` names where it is from; `language` is an ISO 639 code, "" if not known."""

    id: str
    text: str
    source: str = ""
    language: str = ""
    licence: str = ""


class CorpusError(RefusedError):
    """A folder is no corpus, or a file of it cannot be read; the message names it."""


def documents_read(folder: Path) -> Iterator[Document]:
    """Yield a corpus's documents in order; one row group is in memory.

    Raises CorpusError naming the shard that is missing a column or cannot be read.
    """
    for shard in corpus_shards(folder):
        yield from shard_documents(shard)


def shard_documents(shard: Path) -> Iterator[Document]:
    """Yield the documents of one shard; see `documents_read`."""
    for group in _groups(shard, COLUMNS):
        yield from (Document(**row) for row in group.to_pylist())


def signals_read(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the signals of a corpus, a row group's at a time. No columns named: all of them.

    Raises CorpusError for a corpus without signals.
    """
    for shard in corpus_shards(folder):
        yield from shard_signals(shard, columns)


def shard_signals(shard: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the signals of one shard's documents; see `signals_read`."""
    yield from _groups(signals_shard(shard), columns)


def rows_read(folder: Path) -> Iterator[tuple[Document, dict[str, Any]]]:
    """Yield each document with its signals."""
    for shard in corpus_shards(folder):
        yield from shard_rows(shard)


def shard_rows(shard: Path) -> Iterator[tuple[Document, dict[str, Any]]]:
    """Yield each document of one shard with its signals."""
    for documents, signals in zip(_groups(shard, COLUMNS), shard_signals(shard), strict=True):
        rows = zip(documents.to_pylist(), signals.to_pylist(), strict=True)
        yield from ((Document(**row), measured) for row, measured in rows)


def documents_at(folder: Path, places: Sequence[int]) -> list[Document]:
    """The documents at these places (from 0) of the corpus, in the order asked.

    Only the row groups that hold one are read. Raises IndexError for a place beyond the end.
    """
    rows = _rows_at(corpus_shards(folder), places, list(COLUMNS))
    return [Document(**row) for row in rows]


def signals_at(folder: Path, places: Sequence[int]) -> list[dict[str, Any]]:
    """What was measured of the documents at these places; see `documents_at`."""
    return _rows_at([signals_shard(shard) for shard in corpus_shards(folder)], places, None)


def _rows_at(
    shards: Sequence[Path], places: Sequence[int], columns: list[str] | None
) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    wanted = sorted(set(places))
    start = 0
    for shard in shards if wanted else ():
        file = _open(shard)
        for number in range(file.num_row_groups):
            end = start + file.metadata.row_group(number).num_rows
            here = [place for place in wanted if start <= place < end]
            if here:
                table = file.read_row_group(number, columns=columns)
                rows = table.take([place - start for place in here]).to_pylist()
                found |= dict(zip(here, rows, strict=True))
            start = end
    missing = [place for place in wanted if place not in found]
    if missing:
        raise IndexError(f"the corpus has {start} documents, none at place {missing[0]}")
    return [found[place] for place in places]


def documents_count(folder: Path) -> int:
    """How many documents a corpus has, from the ends of its files alone."""
    return sum(map(shard_count, corpus_shards(folder)))


def shard_count(shard: Path) -> int:
    """How many documents a shard has, from the end of its file alone."""
    return int(_open(shard).metadata.num_rows)


def corpus_shards(folder: Path) -> list[Path]:
    """The document shards in order. Raises CorpusError if there is none."""
    shards = sorted(folder.glob("documents-*.parquet"))
    if not shards:
        raise CorpusError(f"{folder.name} is no corpus: it holds no documents-*.parquet")
    return shards


def signals_shard(shard: Path) -> Path:
    """The file of what was measured of a shard's documents."""
    return shard.with_name(shard.name.replace("documents-", "signals-"))


def has_signals(folder: Path) -> bool:
    return all(signals_shard(shard).exists() for shard in corpus_shards(folder))


class CorpusWriter:
    """Writes shards. Use as a context: leaving it closes the last ones.

    With `signals_schema` every document is given with its signals. A corpus may be empty: it has
    one shard without rows. Of a corpus that several write, each a `part` by its number, the shards
    stand in the order of the parts; an empty part has none.
    """

    def __init__(
        self,
        folder: Path,
        signals_schema: pa.Schema | None = None,
        *,
        shard_characters: int = SHARD_CHARACTERS,
        part: int | None = None,
    ) -> None:
        self._folder = folder
        self._part = part
        self._signals_schema = signals_schema
        self._shard_characters = shard_characters
        self._documents: list[Document] = []
        self._signals: list[Mapping[str, Any]] = []
        self._group_characters = 0
        self._written_characters = 0  # to the shard that is open
        self._shards = 0
        self._open: list[pq.ParquetWriter] = []

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and (self._documents or not (self._shards or self._part is not None)):
            self._group_write()
        self._shard_close()

    def add(self, document: Document, signals: Mapping[str, Any] | None = None) -> None:
        self._documents.append(document)
        if self._signals_schema is not None:
            if signals is None:
                raise ValueError(f"document {document.id!r} was given without its signals")
            self._signals.append(signals)
        self._group_characters += len(document.text)
        is_full = len(self._documents) >= GROUP_DOCUMENTS
        if is_full or self._group_characters >= GROUP_CHARACTERS:
            self._group_write()

    def _group_write(self) -> None:
        import pyarrow as pa

        if not self._open:
            self._shard_open()
        columns = {name: [getattr(one, name) for one in self._documents] for name in COLUMNS}
        self._open[0].write_table(pa.table(columns, schema=documents_schema()))
        if self._signals_schema is not None:
            signals = pa.Table.from_pylist(self._signals, schema=self._signals_schema)
            self._open[1].write_table(signals)
        self._written_characters += self._group_characters
        self._documents, self._signals, self._group_characters = [], [], 0
        if self._written_characters >= self._shard_characters:
            self._shard_close()

    def _shard_open(self) -> None:
        import pyarrow.parquet as pq

        part = "" if self._part is None else f"{self._part:05d}-"
        shard = self._folder / f"documents-{part}{self._shards:05d}.parquet"
        self._open = [pq.ParquetWriter(shard, documents_schema(), compression="zstd")]
        if self._signals_schema is not None:
            self._open.append(
                pq.ParquetWriter(signals_shard(shard), self._signals_schema, compression="zstd")
            )
        self._shards += 1
        self._written_characters = 0

    def _shard_close(self) -> None:
        for writer in self._open:
            writer.close()
        self._open = []


def documents_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(name, pa.string(), nullable=False) for name in COLUMNS])


def _groups(path: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    file = _open(path)
    for name in columns or ():
        if name not in file.schema_arrow.names:
            raise CorpusError(f"{path.name}: no column {name!r}")
    for number in range(file.num_row_groups):
        try:
            yield file.read_row_group(number, columns=list(columns) if columns else None)
        except OSError as error:  # Arrow's word for damaged bytes
            raise CorpusError(f"{path.name}, row group {number}: {error}") from error


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise CorpusError(f"{path.name} is not there") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise CorpusError(f"{path.name} is not a Parquet file: {error}") from error
