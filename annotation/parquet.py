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


def _pair_schema(prompt: pa.DataType, answer: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            ("prompt", prompt),
            ("chosen", answer),
            ("rejected", answer),
            ("ranking_id", _TEXT),
            ("prompt_id", _TEXT),
            ("chosen_id", _TEXT),
            ("rejected_id", _TEXT),
            ("chosen_model_version", _TEXT),
            ("rejected_model_version", _TEXT),
            ("tiers_apart", pa.int64()),
            ("both_unacceptable", pa.bool_()),
            ("pairs_of_ranking", pa.int64()),
            ("split", _TEXT),
            ("tags", _TEXTS),
            ("batch", _TEXT),
            ("annotator", _TEXT),
            ("is_simulated", pa.bool_()),
        ]
    )


SCHEMAS = {
    "trl": _pair_schema(_MESSAGES, _MESSAGES),
    "trl-text": _pair_schema(_TEXT, _TEXT),
    "rankings": pa.schema(
        [
            ("id", _TEXT),
            ("prompt_id", _TEXT),
            ("messages", _MESSAGES),
            ("split", _TEXT),
            ("tags", _TEXTS),
            ("batch", _TEXT),
            ("candidates", pa.list_(_CANDIDATE)),
            ("tiers", pa.list_(_TEXTS)),
            ("unacceptable", _TEXTS),
            ("annotator", _TEXT),
            ("is_simulated", pa.bool_()),
            ("shown_order", _TEXTS),
            ("active_s", pa.float64()),
            ("rationale", _TEXT),
            ("guideline", pa.int64()),
        ]
    ),
}


def row_groups_write(
    file: IO[bytes], rows: Iterable[dict[str, Any]], *, layout: str
) -> Iterator[int]:
    """Write the rows of a layout; yields the size of each row group once it is in the file.

    The file is whole when the iterator has ended: Parquet's index comes last.
    """
    schema = SCHEMAS[layout]
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for chunk in chunked(rows, ROWS_A_GROUP):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
            yield len(chunk)


def rows_read(file: IO[bytes], *, layout: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row) of a Parquet file in a layout. Raises RecordError.

    The file says itself how large it will be in memory; one that says too much is refused.
    """
    schema = SCHEMAS[layout]
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
                yield number, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecordError(name, 1, "", f"not a Parquet file that reads: {error}") from error


def _schema_check(given: pa.Schema, wanted: pa.Schema, name: str) -> None:
    for field in wanted.names:
        if given.names.count(field) != 1:
            raise RecordError(name, 1, field, "no such column, or more than one")
    for field in given.names:
        if field not in wanted.names:
            raise RecordError(name, 1, field, "unknown column")
        if given.field(field).type != wanted.field(field).type:
            raise RecordError(name, 1, field, f"wanted a column of {wanted.field(field).type}")
