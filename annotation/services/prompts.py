"""Bringing prompts in from JSON Lines."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Protocol

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext

from annotation.models import Project, Prompt
from annotation.splits import content_hash, group_hash, split_of, text_normalise
from modelhub.errors import ApplicationError
from modelhub.ml.records import RecordError, chunked, json_strict

MAX_LINE_BYTES = 1 << 20
MAX_CONTENT_CHARS = 100_000
MAX_MESSAGES = 100
MAX_TAGS = 20
MAX_TAG_CHARS = 60
MAX_SOURCE_CHARS = 120
_ROLES = ("system", "user", "assistant")
_FIELDS = ("messages", "prompt", "tags", "source")
_ROWS_AT_A_TIME = 500
_SPOOL_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class ImportCounts:
    """What an import did: `new` prompts made, `existing` already there (or twice in the file)."""

    new: int
    existing: int

    @property
    def total(self) -> int:
        return self.new + self.existing


class ByteLines(Protocol):
    """A binary file: what is read of it is at most one line of bounded length at a time."""

    def readline(self, size: int, /) -> bytes: ...


def prompts_import(
    *, project: Project, lines: Iterable[bytes] | ByteLines, name: str, source: str = ""
) -> ImportCounts:
    """Add the prompts of a JSON Lines file to a project: all of them, or none.

    A line is {"messages": [{"role", "content"}, …]} or {"prompt": "…"}, with `tags` and `source` if
    wanted (`source` given here is for lines without). `name` is what the file is called in errors.
    The same file again adds nothing. Every line is checked before the first row is written, so the
    database's lock is held for the writing alone; memory does not grow with the file.
    Raises ApplicationError with {"file", "line", "field"} for the first line that is refused.
    """
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, mode="w+b") as spool:
        try:
            for row in _rows_read(lines, name, source):
                spool.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        except RecordError as error:
            where = {"file": error.file, "line": error.line, "field": error.field}
            raise ApplicationError(str(error), where) from error
        if not spool.tell():
            raise ApplicationError(
                gettext("%(name)s holds no prompts.") % {"name": name}, {"file": name}
            )
        spool.seek(0)
        return _rows_write(project, spool)


@transaction.atomic
def _rows_write(project: Project, spool: IO[bytes]) -> ImportCounts:
    # Two imports at once would each see the other's prompts as new.
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    new = total = 0
    for rows in chunked((json.loads(line) for line in spool), _ROWS_AT_A_TIME):
        total += len(rows)
        mine = Prompt.objects.filter(project=project)
        known = set(
            mine.filter(content_hash__in=[row["content_hash"] for row in rows]).values_list(
                "content_hash", flat=True
            )
        )
        fresh = {row["content_hash"]: row for row in rows if row["content_hash"] not in known}
        # The side of a group that is already here stands, even if the shares were changed since.
        sides = dict(
            mine.filter(group_hash__in=[row["group_hash"] for row in fresh.values()]).values_list(
                "group_hash", "split"
            )
        )
        Prompt.objects.bulk_create(
            Prompt(
                project=project,
                split=sides.get(row["group_hash"])
                or split_of(row["group_hash"], settings.PROMPT_SPLIT_SHARES),
                **row,
            )
            for row in fresh.values()
        )
        new += len(fresh)
    return ImportCounts(new=new, existing=total - new)


def _rows_read(
    lines: Iterable[bytes] | ByteLines, name: str, source: str
) -> Iterator[dict[str, Any]]:
    """The checked rows of a file, as Prompt fields. Raises RecordError."""
    for number, line in enumerate(_lines_bounded(lines), start=1):
        if len(line) > MAX_LINE_BYTES:
            raise RecordError(name, number, "", f"longer than {MAX_LINE_BYTES} bytes")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            value = json_strict(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RecordError(name, number, "", f"not UTF-8 (byte {error.start + 1})") from error
        except ValueError as error:
            raise RecordError(name, number, "", f"not JSON: {error}") from error
        yield PromptLine(name, number).row(value, source)


def _lines_bounded(lines: Iterable[bytes] | ByteLines) -> Iterator[bytes]:
    """Lines that end at LF alone; of one that is too long, only a little more than is allowed."""
    if isinstance(lines, Iterable) and not hasattr(lines, "readline"):
        yield from lines
    else:
        while line := lines.readline(MAX_LINE_BYTES + 1):
            yield line


class PromptLine:
    """One line of a file, checked field by field."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number

    def row(self, value: Any, source: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._refused("", f"expected an object, got {type(value).__name__}")
        for field in value:
            if field not in _FIELDS:
                raise self._refused(field, "unknown field")
        if ("messages" in value) == ("prompt" in value):
            raise self._refused("messages", "wanted one of messages and prompt")
        if "prompt" in value:
            messages = [{"role": "user", "content": self._content("prompt", value["prompt"])}]
        else:
            messages = self.messages(value["messages"])
        return {
            "messages": messages,
            "content_hash": content_hash(messages),
            "group_hash": group_hash(messages),
            "tags": self._tags(value.get("tags", [])),
            "source": self._text("source", value.get("source", source), MAX_SOURCE_CHARS),
        }

    def messages(self, given: Any) -> list[dict[str, str]]:
        if not isinstance(given, list) or not 1 <= len(given) <= MAX_MESSAGES:
            raise self._refused("messages", f"wanted a list of 1 to {MAX_MESSAGES} messages")
        messages = []
        for index, message in enumerate(given):
            field = f"messages[{index}]"
            if not isinstance(message, dict) or set(message) != {"role", "content"}:
                raise self._refused(field, 'wanted an object with "role" and "content" alone')
            if message["role"] not in _ROLES:
                raise self._refused(f"{field}.role", f"wanted one of {', '.join(_ROLES)}")
            content = self._content(f"{field}.content", message["content"])
            messages.append({"role": message["role"], "content": content})
        turns = [one["role"] for one in messages]
        turns = turns[1:] if turns[0] == "system" else turns
        # user, assistant, user, …: the last turn is the one to answer.
        if len(turns) % 2 == 0 or any(
            role != ("assistant" if index % 2 else "user") for index, role in enumerate(turns)
        ):
            raise self._refused(
                "messages",
                "wanted user and assistant turns that alternate and end with the user's, after at"
                " most one system message",
            )
        return messages

    def _content(self, field: str, value: Any) -> str:
        text = self._text(field, value, MAX_CONTENT_CHARS)
        if not text_normalise(text):
            raise self._refused(field, "empty, or nothing that can be seen")
        return text

    def _tags(self, value: Any) -> list[str]:
        if not isinstance(value, list) or len(value) > MAX_TAGS:
            raise self._refused("tags", f"wanted a list of at most {MAX_TAGS} texts")
        tags = [self._text("tags", one, MAX_TAG_CHARS).strip() for one in value]
        return sorted({tag for tag in tags if tag})

    def _text(self, field: str, value: Any, most_chars: int) -> str:
        if not isinstance(value, str):
            raise self._refused(field, f"expected a text, got {type(value).__name__}")
        if len(value) > most_chars:
            raise self._refused(field, f"longer than {most_chars} characters")
        if "\x00" in value:
            raise self._refused(field, "holds a NUL character")
        return value

    def _refused(self, field: str, reason: str) -> RecordError:
        return RecordError(self.name, self.number, field, reason)
