"""JSON Lines records that cross a process boundary, read strictly and written canonically.

Standard library only. A line ends at "\\n" alone: U+2028, U+0085 and their kin are text.
"""

import dataclasses
import itertools
import json
import os
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from modelhub.ml.configs import RefusedError

RecordT = TypeVar("RecordT")
ItemT = TypeVar("ItemT")


class RecordError(RefusedError):
    """A record was refused: which file, line (from 1) and field, and why."""

    def __init__(self, file: str, line: int, field: str, reason: str) -> None:
        at = f", field {field}" if field else ""
        super().__init__(f"{file}, line {line}{at}: {reason}")
        self.file, self.line, self.field, self.reason = file, line, field, reason


def json_canonical(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, no escapes that are not needed.

    Raises ValueError for NaN and infinities.
    """
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def json_strict(text: str | bytes) -> Any:
    """Parse JSON in UTF-8; duplicate keys, NaN, infinities, lone surrogates raise ValueError."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise ValueError("the same key twice")
        return found

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")  # json.loads would guess UTF-16 and UTF-32 too
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeError as error:
        raise ValueError("not valid Unicode") from error
    return value


def not_json(error: ValueError, *, is_first: bool) -> str:
    """Why a line is refused that `json_strict` refused: its column, from 1, where that is known.

    The parser counts lines and columns in what it was given, which is one line of a file.

    is_first: of the file. If it does not even begin as an object, the file is of another format.
    """
    if not isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error}"
    column = min(error.pos, len(error.doc.rstrip("\r\n"))) + 1
    told = f"not JSON at column {column}: {error.msg}"
    if is_first and not error.doc.lstrip().startswith("{"):
        return f"{told}. This is no JSON Lines file, which has an object in every line"
    return told


def lines_read(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, parsed value) of a JSON Lines file; one line is in memory."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, json_strict(line)
            except ValueError as error:
                raise RecordError(path.name, number, "", str(error)) from error


def records_read(path: Path, cls: type[RecordT]) -> Iterator[RecordT]:
    """Yield the records of a file. Raises RecordError at the first that does not fit."""
    for number, value in lines_read(path):
        yield record_load(cls, value, file=path.name, line=number)


def record_load(cls: type[RecordT], value: Any, *, file: str, line: int) -> RecordT:
    """Build one record; unknown and missing fields and wrong types raise RecordError."""
    if not isinstance(value, dict):
        raise RecordError(file, line, "", f"expected an object, got {type(value).__name__}")
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    for name in value:
        if name not in hints:
            raise RecordError(file, line, name, "unknown field")
    for field in fields:
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if field.name not in value:
            if not has_default:
                raise RecordError(file, line, field.name, "missing")
            continue
        if not _fits(value[field.name], hints[field.name]):
            raise RecordError(file, line, field.name, f"unexpected value {value[field.name]!r:.80}")
    try:
        return cls(**value)
    except ValueError as error:
        raise RecordError(file, line, "", str(error)) from error


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        if hint is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if origin is list:
        return isinstance(value, list) and all(_fits(one, arguments[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(one, arguments[1]) for one in value.values())
    return any(
        value is None if option is type(None) else _fits(value, option) for option in arguments
    )


def chunked(items: Iterable[ItemT], size: int) -> Iterator[list[ItemT]]:
    """Yield lists of `size` items, the last one shorter; one list in memory at a time."""
    source = iter(items)
    while chunk := list(itertools.islice(source, size)):
        yield chunk


def record_dump(record: Any) -> dict[str, Any]:
    """A dataclass record as JSON.

    A field whose metadata says {"written": "unless default"} is left out at its default: so a kind
    of record can gain fields and its old rows keep their bytes.
    """
    values = dataclasses.asdict(record)
    for one in dataclasses.fields(record):
        if one.metadata.get("written") == "unless default" and values[one.name] == one.default:
            del values[one.name]
    return values


def records_write(path: Path, records: Iterable[Any]) -> int:
    """Write dataclass records canonically, all or nothing. Returns how many.

    A temporary file is synced and renamed: a reader sees the old file or the whole new one.
    """
    count = 0
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                file.write(json_canonical(record_dump(record)) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


@dataclass(frozen=True, kw_only=True)
class PromptRecord:
    """One conversation to answer: messages are [{"role", "content"}], the last one a user's."""

    prompt_id: str
    messages: list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class CandidateRecord:
    """One sampled answer and how it was decoded."""

    prompt_id: str
    index: int
    text: str
    token_count: int
    finish_reason: str  # "stop": the model ended its turn; "length": it was cut off
    mean_logprob: float | None  # nats per token, of the model's own distribution; None: not told
    seed: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    engine: str
