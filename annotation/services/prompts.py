"""Bringing prompts in from JSON Lines, with answers to be judged if there are any.

An imported answer is a candidate of no batch whose decoding says {"engine": "import"}, and who
wrote it if the file does. Annotators are shown its text alone, like any other's.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext

from annotation.models import IMPORT_ENGINE, IMPORTED, Candidate, Project, Prompt
from annotation.splits import content_hash, group_hash, split_of, text_normalise
from modelhub.errors import ApplicationError
from modelhub.ml.records import RecordError, chunked, json_strict, not_json

MAX_LINE_BYTES = 1 << 20
MAX_CONTENT_CHARS = 100_000
MAX_MESSAGES = 100
MAX_TAGS = 20
MAX_TAG_CHARS = 60
MAX_SOURCE_CHARS = 120
MAX_ANSWERS = 9
MAX_MODEL_CHARS = 200
_ROLES = ("system", "user", "assistant")
_FIELDS = ("messages", "prompt", "tags", "source", "answers", "chosen", "rejected")
_ROWS_AT_A_TIME = 500
_SPOOL_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class ImportCounts:
    """What an import did: `new` prompts made, `existing` already there (or twice in the file).

    answers: those made; one that the prompt had is none.
    """

    new: int
    existing: int
    answers: int = 0

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
    Answers to be judged come as `answers`, 1 to 9 texts or {"text", "model"}, or as a pair,
    `chosen` and `rejected` in TRL's layouts: its two answers are taken, its preference is not.
    The same file again adds nothing: an answer is known by its prompt and its text. Every line is
    checked before the first row is written, so the database's lock is held for the writing alone;
    memory does not grow with the file.
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
    new = total = answers = 0
    for rows in chunked((json.loads(line) for line in spool), _ROWS_AT_A_TIME):
        total += len(rows)
        given = [(row["content_hash"], row.pop("answers")) for row in rows]
        mine = Prompt.objects.filter(project=project)
        known = dict(
            mine.filter(content_hash__in=[content for content, _ in given]).values_list(
                "content_hash", "pk"
            )
        )
        fresh = {row["content_hash"]: row for row in rows if row["content_hash"] not in known}
        # The side of a group that is already here stands, even if the shares were changed since.
        sides = dict(
            mine.filter(group_hash__in=[row["group_hash"] for row in fresh.values()]).values_list(
                "group_hash", "split"
            )
        )
        made = Prompt.objects.bulk_create(
            Prompt(
                project=project,
                split=sides.get(row["group_hash"])
                or split_of(row["group_hash"], settings.PROMPT_SPLIT_SHARES),
                **row,
            )
            for row in fresh.values()
        )
        new += len(fresh)
        known |= {prompt.content_hash: prompt.pk for prompt in made}
        answers += _answers_write([(known[content], some) for content, some in given if some])
    return ImportCounts(new=new, existing=total - new, answers=answers)


def _answers_write(given: Sequence[tuple[int, list[dict[str, str]]]]) -> int:
    """Add (prompt, its answers) that the prompt has not been given before; returns how many."""
    had: dict[int, set[str]] = defaultdict(set)
    before = Candidate.objects.filter(IMPORTED, prompt__in={prompt for prompt, _ in given})
    for prompt, text in before.order_by().values_list("prompt_id", "text"):
        had[prompt].add(text.strip())
    fresh = []
    for prompt, answers in given:
        for answer in answers:
            text, model = answer["text"], answer["model"]
            if text.strip() in had[prompt]:
                continue
            fresh.append(
                Candidate(
                    prompt_id=prompt,
                    index=len(had[prompt]),
                    text=text,
                    decoding={"engine": IMPORT_ENGINE, **({"model": model} if model else {})},
                )
            )
            had[prompt].add(text.strip())
    Candidate.objects.bulk_create(fresh, batch_size=_ROWS_AT_A_TIME)
    return len(fresh)


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
            reason = not_json(error, is_first=number == 1)
            raise RecordError(name, number, "", reason) from error
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
        if "chosen" in value or "rejected" in value:
            value = self._pair_told(value)
        if ("messages" in value) == ("prompt" in value):
            raise self._refused("messages", "wanted one of messages and prompt")
        if "prompt" not in value:
            messages = self.messages(value["messages"])
        elif isinstance(value["prompt"], list):  # TRL's name for messages
            messages = self.messages(value["prompt"], "prompt")
        else:
            messages = [{"role": "user", "content": self._content("prompt", value["prompt"])}]
        return {
            "answers": self._answers(value["answers"]) if "answers" in value else [],
            "messages": messages,
            "content_hash": content_hash(messages),
            "group_hash": group_hash(messages),
            "tags": self._tags(value.get("tags", [])),
            "source": self._text("source", value.get("source", source), MAX_SOURCE_CHARS),
        }

    def _pair_told(self, value: dict[str, Any]) -> dict[str, Any]:
        """A row of TRL's preference layouts as one with `answers`.

        Its two answers are texts or a last message; where no prompt is given, two whole
        conversations that differ in that message.
        """
        for field in ("chosen", "rejected"):
            if field not in value:
                raise self._refused(field, "missing: a pair has chosen and rejected")
        if "answers" in value:
            raise self._refused("answers", "wanted either answers or chosen and rejected")
        told = {name: one for name, one in value.items() if name not in ("chosen", "rejected")}
        last: dict[str, Any] = {}
        begun: dict[str, list[Any]] = {}
        for field in ("chosen", "rejected"):
            last[field] = value[field]
            if isinstance(value[field], list):
                *begun[field], message = value[field] or [None]
                if not isinstance(message, dict) or message.get("role") != "assistant":
                    raise self._refused(field, "wanted a text, or messages up to the assistant's")
                last[field] = message.get("content")
            self._content(field, last[field])
        asked = "prompt" in value or "messages" in value
        if not asked and (len(begun) < 2 or begun["chosen"] != begun["rejected"]):
            raise self._refused(
                "rejected", "without a prompt, wanted two conversations that differ at the end"
            )
        if asked and any(begun.values()):
            field = next(name for name, messages in begun.items() if messages)
            raise self._refused(field, "beside a prompt, wanted the answer's message alone")
        return {
            **told,
            **({} if asked else {"messages": begun["chosen"]}),
            "answers": [last["chosen"], last["rejected"]],
        }

    def _answers(self, given: Any) -> list[dict[str, str]]:
        if not isinstance(given, list) or not 1 <= len(given) <= MAX_ANSWERS:
            raise self._refused("answers", f"wanted a list of 1 to {MAX_ANSWERS} answers")
        answers = []
        for index, one in enumerate(given):
            field, model = f"answers[{index}]", ""
            if isinstance(one, dict):
                if "text" not in one or set(one) - {"text", "model"}:
                    raise self._refused(field, 'wanted a text, or an object with "text", "model"')
                model = self._text(f"{field}.model", one.get("model", ""), MAX_MODEL_CHARS)
                field, one = f"{field}.text", one["text"]
            answers.append({"text": self._content(field, one), "model": model.strip()})
        return answers

    def messages(self, given: Any, name: str = "messages") -> list[dict[str, str]]:
        if not isinstance(given, list) or not 1 <= len(given) <= MAX_MESSAGES:
            raise self._refused(name, f"wanted a list of 1 to {MAX_MESSAGES} messages")
        messages = []
        for index, message in enumerate(given):
            field = f"{name}[{index}]"
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
                name,
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
