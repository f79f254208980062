"""Texts as they come: plain text, JSON Lines, Parquet, also .gz and .zst → documents, as a stream.

A file that cannot be read is named with line and byte, and nothing is made of it. Memory is that of
one document, or one row group of Parquet.
"""

import io
import json
import re
import shutil
import tempfile
import typing
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from modelhub.ml.configs import RefusedError
from modelhub.ml.corpora.configs import ImportCorpusConfig
from modelhub.ml.corpora.documents import Document
from modelhub.ml.records import json_strict, not_json

_ENDINGS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
_UTF8_BOM = b"\xef\xbb\xbf"
# Packed text is a twentieth of itself at best; of a bomb of one byte again and again a thousandth.
_MOST_UNPACKED = 200  # bytes of a packed one, beyond the first so many:
_FREE_BYTES = 64 << 20
_MAX_GROUP_BYTES = 4 << 30  # of a Parquet file from elsewhere, unpacked
_BATCH_ROWS = 256


class SourceError(RefusedError):
    """A file was refused: its name, the line (from 1) or row, the byte (from 0), and why."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file: its name in messages and ids, and how to open its bytes."""

    name: str
    open: Callable[[], IO[bytes]]


def source_format(name: str, asked: str) -> tuple[str, str | None]:
    """("text", "jsonl" or "parquet", compression or None) of a file by its name.

    Raises SourceError for a name that tells neither where nothing is asked.
    """
    ending = Path(name).suffix.lower()
    compression = _COMPRESSED.get(ending)
    if compression:
        ending = Path(Path(name).stem).suffix.lower()
    found = _ENDINGS.get(ending) if asked == "auto" else asked
    if found is None:
        known = ", ".join(_ENDINGS)
        raise SourceError(f"{name}: the name ends in none of {known}; say its format")
    return found, compression


def source_documents(source: Source, config: ImportCorpusConfig) -> Iterator[Document]:
    """Yield a file's documents. Raises SourceError at the first place that cannot be read."""
    kind, compression = source_format(source.name, config.format)
    counted = _Counted(source.open())
    with closing(counted), closing(_unpacked(counted, compression)) as file:
        if kind == "parquet":
            yield from _parquet_documents(source.name, file, compression, config)
            return
        packed = counted if compression else None
        lines = _lines(source.name, file, config.max_document_characters, packed)
        read = _jsonl_documents if kind == "jsonl" else _text_documents
        yield from read(source.name, lines, config)


class _Counted(io.RawIOBase):
    """A file, and how many bytes were read of it: addresses and stores do not tell."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.taken = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._raw.seekable()

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(place, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def read(self, size: int | None = -1) -> bytes:
        block = self._raw.read(-1 if size is None else size)
        self.taken += len(block)
        return block

    def close(self) -> None:
        self._raw.close()
        super().close()


@dataclass(frozen=True, slots=True)
class _Line:
    number: int  # from 1
    byte: int  # where it begins in the file, unpacked
    text: bytes


def _unpacked(raw: _Counted, compression: str | None) -> IO[bytes]:
    if compression is None:
        return typing.cast(IO[bytes], raw)
    import pyarrow as pa

    stream: IO[bytes] = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression)
    return stream


def _lines(
    name: str, file: IO[bytes], max_characters: int, packed: _Counted | None
) -> Iterator[_Line]:
    """A file's lines, ends included, none longer than a document may be in bytes.

    What unpacks to more than text ever does is refused while it unpacks.

    Arrow's streams read lines slowly, so blocks are cut here.
    """
    limit = 4 * max_characters
    byte, number, rest = 0, 0, b""
    while True:
        try:
            block = file.read(1 << 20)
        except ConnectionError as error:  # no fault of the file's: the run may be tried again
            where = byte + len(rest)
            raise ConnectionError(f"{name}, line {number + 1}, byte {where}: {error}") from error
        except (OSError, EOFError, zlib.error) as error:
            where = byte + len(rest)
            raise SourceError(
                f"{name}, line {number + 1}, byte {where}: cannot be unpacked: {error}"
            ) from error
        parts = (rest + block).split(b"\n") if block else [rest]
        rest = parts.pop() if block else b""
        ends = b"\n" if block else b""
        for text in parts:
            if not block and not text:
                break
            number += 1
            yield _Line(number, byte, text + ends)
            byte += len(text) + len(ends)
        if not block:
            return
        if packed and byte > _FREE_BYTES and byte > _MOST_UNPACKED * packed.taken:
            raise SourceError(
                f"{name}, line {number + 1}, byte {byte}: unpacks to more than {_MOST_UNPACKED} "
                "times its size"
            )
        if len(rest) > limit:
            raise SourceError(
                f"{name}, line {number + 1}, byte {byte}: a line of more than {limit} bytes"
            )


def _decoded(name: str, line: _Line) -> str:
    raw = line.text.removeprefix(_UTF8_BOM) if line.number == 1 else line.text
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        where = line.byte + error.start + len(line.text) - len(raw)
        raise SourceError(
            f"{name}, line {line.number}, byte {where}: not UTF-8: {error.reason}"
        ) from error


def _text_documents(
    name: str, lines: Iterator[_Line], config: ImportCorpusConfig
) -> Iterator[Document]:
    pattern = re.compile(config.pattern) if config.split == "pattern" else None
    held: list[str] = []
    characters, count, was_blank = 0, 0, False

    def document() -> Iterator[Document]:
        nonlocal held, characters, count
        text = "".join(held).strip("\n")
        held, characters = [], 0
        if text.strip():
            place = "" if config.split == "file" else f"#{count}"
            count += 1
            yield _document(config, id=f"{name}{place}", text=text)

    for line in lines:
        text = _decoded(name, line).replace("\r\n", "\n")
        blank = not text.strip()
        begins = (pattern is not None and pattern.search(text) is not None) or (
            config.split == "blank_lines" and was_blank and not blank
        )
        if begins and held:
            yield from document()
        held.append(text)
        characters += len(text)
        was_blank = blank
        if characters > config.max_document_characters:
            raise SourceError(
                f"{name}, line {line.number}, byte {line.byte}: a document of more than "
                f"{config.max_document_characters} characters"
            )
    yield from document()


def _jsonl_documents(
    name: str, lines: Iterator[_Line], config: ImportCorpusConfig
) -> Iterator[Document]:
    for line in lines:
        if not line.text.strip():
            continue
        where = f"{name}, line {line.number}, byte {line.byte}"
        raw = line.text.removeprefix(_UTF8_BOM) if line.number == 1 else line.text
        try:
            value = json_strict(raw)
        except ValueError as error:
            if isinstance(error, json.JSONDecodeError):
                before = len(error.doc[: error.pos].encode()) + len(line.text) - len(raw)
                where = f"{name}, line {line.number}, byte {line.byte + before}"
            else:
                _decoded(name, line)  # names the byte
            reason = not_json(error, is_first=line.number == 1)
            raise SourceError(f"{where}: {reason}") from error
        if not isinstance(value, dict):
            raise SourceError(f"{where}: expected an object, got {type(value).__name__}")
        yield _record_document(value, where, f"{name}#{line.number}", config)


def _parquet_documents(
    name: str, file: IO[bytes], compression: str | None, config: ImportCorpusConfig
) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if compression is not None:
        raise SourceError(f"{name}: a Parquet file is compressed inside; unpack it first")
    if not file.seekable():
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            yield from _parquet_documents(name, typing.cast(IO[bytes], copy), None, config)
        return
    try:
        parquet = pq.ParquetFile(pa.PythonFile(file, mode="r"))
    except ConnectionError:  # no fault of the file's, as above
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{name}: not a Parquet file: {error}") from error
    if config.text_field not in parquet.schema_arrow.names:
        raise SourceError(f"{name}: no column {config.text_field!r}")
    wanted = (config.text_field, config.id_field, "source", "language", "licence", "license")
    columns = [one for one in dict.fromkeys(wanted) if one in parquet.schema_arrow.names]
    row = 0
    for group in range(parquet.num_row_groups):
        size = parquet.metadata.row_group(group).total_byte_size
        if size > _MAX_GROUP_BYTES:
            raise SourceError(f"{name}, row {row}: a row group of {size} bytes")
        try:
            batches = parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns)
            for batch in batches:
                for value in batch.to_pylist():
                    yield _record_document(value, f"{name}, row {row}", f"{name}#{row}", config)
                    row += 1
        except ConnectionError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(f"{name}, row {row}: damaged: {error}") from error


def _record_document(
    value: dict[str, Any], where: str, place: str, config: ImportCorpusConfig
) -> Document:
    text = value.get(config.text_field)
    if not isinstance(text, str):
        raise SourceError(f"{where}: field {config.text_field!r} is {text!r:.60}, wanted text")
    if len(text) > config.max_document_characters:
        raise SourceError(f"{where}: a document of {len(text)} characters")
    given = value.get(config.id_field)
    licence = value.get("licence", value.get("license"))
    language = value.get("language")
    return _document(
        config,
        id=str(given) if isinstance(given, str | int) and given != "" else place,
        text=text,
        language=language if isinstance(language, str) else "",
        licence=licence if isinstance(licence, str) else "",
    )


def _document(
    config: ImportCorpusConfig, *, id: str, text: str, language: str = "", licence: str = ""
) -> Document:
    return Document(
        id=id,
        text=text,
        source=config.source,
        language=language or config.language,
        licence=licence or config.licence,
    )
