"""Rows ↔ Parquet, a row group at a time. Loaded where it is used: Arrow takes 40 MB."""

from collections.abc import Iterable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from modelhub.ml.records import RecordError, chunked

ROWS_A_GROUP = 1000
_MAX_GROUP_BYTES = 1 << 30  # of a file from elsewhere, unpacked
_ROWS_A_READ = 100

_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_MESSAGES = pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))
_CANDIDATE = pa.struct(
    [
        ("id", _TEXT),
        ("text", _TEXT),
        ("finish_reason", _TEXT),
        ("token_count", pa.int64()),
        ("model_version", _TEXT),
    ]
)


_CONVERSATIONAL, _STANDARD = (_MESSAGES, _MESSAGES), (_TEXT, _TEXT)
_FLAG, _NUMBER, _INTEGER = pa.bool_(), pa.float64(), pa.int64()
_ORIGIN = [
    ("split", _TEXT),
    ("tags", _TEXTS),
    ("batch", _TEXT),
    ("annotator", _TEXT),
    ("is_simulated", _FLAG),
    ("source", _TEXT),
    ("weight", _NUMBER),
]
_DEGREE = [("degree", _INTEGER), ("margin", _NUMBER)]
_SAFETY = [("chosen_unsafe", _FLAG), ("rejected_unsafe", _FLAG)]
_MORE_OF_KIND = {"pair": _DEGREE + _SAFETY, "dialogue": _DEGREE}
_ROW_HEAD = [
    ("prompt_id", _TEXT),
    ("messages", _MESSAGES),
    ("split", _TEXT),
    ("tags", _TEXTS),
    ("batch", _TEXT),
]
_ROW_END = [("active_s", _NUMBER), ("rationale", _TEXT), ("guideline", _INTEGER)]
_WHOSE = [("annotator", _TEXT), ("is_simulated", _FLAG)]
_SOURCE = [("source", _TEXT), ("weight", _NUMBER)]
# Columns that say something of some rows alone; older files do not have them at all.
NEWER = ("source", "weight", "kind", "degree", "unsafe", "diff")


def schema_of(layout: str, kind: str) -> pa.Schema:
    """The columns of a layout, of a kind of task. Raises KeyError for a layout that is not."""
    more = _MORE_OF_KIND.get(kind, []) if layout in _PAIRS else []
    return pa.schema(_SCHEMAS[layout] + more)


def _pairs(prompt: pa.DataType, answer: pa.DataType) -> list[tuple[str, pa.DataType]]:
    return [
        ("prompt", prompt),
        ("chosen", answer),
        ("rejected", answer),
        ("ranking_id", _TEXT),
        ("prompt_id", _TEXT),
        ("chosen_id", _TEXT),
        ("rejected_id", _TEXT),
        ("chosen_model_version", _TEXT),
        ("rejected_model_version", _TEXT),
        ("tiers_apart", _INTEGER),
        ("both_unacceptable", _FLAG),
        ("pairs_of_ranking", _INTEGER),
        *_ORIGIN,
    ]


def _unpaired(prompt: pa.DataType, answer: pa.DataType) -> list[tuple[str, pa.DataType]]:
    return [
        ("prompt", prompt),
        ("completion", answer),
        ("label", _FLAG),
        ("rating_id", _TEXT),
        ("prompt_id", _TEXT),
        ("candidate_id", _TEXT),
        ("model_version", _TEXT),
        ("overall", _INTEGER),
        ("flags", _TEXTS),
        *_ORIGIN,
    ]


def _completions(prompt: pa.DataType, answer: pa.DataType) -> list[tuple[str, pa.DataType]]:
    return [
        ("prompt", prompt),
        ("completion", answer),
        ("demonstration_id", _TEXT),
        ("prompt_id", _TEXT),
        ("candidate_id", _TEXT),
        ("turn", _INTEGER),
        ("started_from", _TEXT),
        *_ORIGIN,
    ]


_RANKINGS = [
    ("id", _TEXT),
    *_ROW_HEAD,
    ("candidates", pa.list_(_CANDIDATE)),
    ("tiers", pa.list_(_TEXTS)),
    ("unacceptable", _TEXTS),
    *_WHOSE,
    ("shown_order", _TEXTS),
    *_ROW_END,
    *_SOURCE,
    ("kind", _TEXT),
    ("degree", _INTEGER),
    ("unsafe", _TEXTS),
    ("diff", pa.list_(_TEXTS)),
]
_RATINGS = [
    ("id", _TEXT),
    ("rating_id", _TEXT),
    *_ROW_HEAD,
    ("candidate", _CANDIDATE),
    ("overall", _INTEGER),
    ("flags", _TEXTS),
    *_WHOSE,
    *_SOURCE,
    ("shown_order", _TEXTS),
    *_ROW_END,
]
_DEMONSTRATIONS = [
    ("id", _TEXT),
    *_ROW_HEAD,
    ("candidate", _CANDIDATE),
    ("started_from", _TEXT),
    ("turns", pa.list_(pa.struct([("user", _TEXT), ("text", _TEXT)]))),
    *_WHOSE,
    *_SOURCE,
    *_ROW_END,
]
_PAIRS = ("trl", "trl-text")
_SCHEMAS: dict[str, list[tuple[str, pa.DataType]]] = {
    "trl": _pairs(*_CONVERSATIONAL),
    "trl-text": _pairs(*_STANDARD),
    "trl-unpaired": _unpaired(*_CONVERSATIONAL),
    "trl-unpaired-text": _unpaired(*_STANDARD),
    "trl-completion": _completions(*_CONVERSATIONAL),
    "trl-completion-text": _completions(*_STANDARD),
    "rankings": _RANKINGS,
    "ratings": _RATINGS,
    "demonstrations": _DEMONSTRATIONS,
}


def row_groups_write(
    file: IO[bytes], rows: Iterable[dict[str, Any]], *, layout: str, kind: str = "ranking"
) -> Iterator[int]:
    """Write the rows of a layout; yields the size of each row group once it is in the file.

    The file is whole when the iterator has ended: Parquet's index comes last.
    """
    schema = schema_of(layout, kind)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for chunk in chunked(rows, ROWS_A_GROUP):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
            yield len(chunk)


def rows_read(file: IO[bytes], *, layout: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row) of a Parquet file in a layout. Raises RecordError.

    The file says itself how large it will be in memory; one that says too much is refused.
    """
    schema = schema_of(layout, "ranking")
    try:
        source = pq.ParquetFile(file)
        _schema_check(source.schema_arrow, schema, name)
        groups = range(source.metadata.num_row_groups)
        if any(source.metadata.row_group(n).total_byte_size > _MAX_GROUP_BYTES for n in groups):
            raise RecordError(name, 1, "", f"a row group is larger than {_MAX_GROUP_BYTES} bytes")
        number = 0
        for batch in source.iter_batches(batch_size=_ROWS_A_READ):
            for row in batch.to_pylist():
                number += 1
                # Arrow has a value for every column; a row that says nothing has none there.
                yield number, {k: v for k, v in row.items() if v is not None or k not in NEWER}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecordError(name, 1, "", f"not a Parquet file that reads: {error}") from error


def _schema_check(given: pa.Schema, wanted: pa.Schema, name: str) -> None:
    for field in wanted.names:
        if field in NEWER and field not in given.names:
            continue
        if given.names.count(field) != 1:
            raise RecordError(name, 1, field, "no such column, or more than one")
    for field in given.names:
        if field not in wanted.names:
            raise RecordError(name, 1, field, "unknown column")
        if given.field(field).type != wanted.field(field).type:
            raise RecordError(name, 1, field, f"wanted a column of {wanted.field(field).type}")
