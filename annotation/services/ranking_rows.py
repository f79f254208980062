"""Rows of rankings from elsewhere, checked one by one before any is kept."""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any

from django.conf import settings

from annotation.models import Project, Prompt
from annotation.records import KINDS, SOURCES, RankedCandidate, RankingRecord
from annotation.services.prompts import MAX_TAG_CHARS, MAX_TAGS, PromptLine
from annotation.services.submissions import MAX_ACTIVE_S, MAX_RATIONALE_CHARS
from annotation.splits import group_hash, split_of
from modelhub.ml.records import (
    RecordError,
    chunked,
    json_canonical,
    json_strict,
    not_json,
    record_load,
)

MAX_LINE_BYTES = 16 << 20
MAX_TEXT_CHARS = 2 << 20
MAX_CANDIDATES = 100
_ROWS_AT_A_TIME = 500
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


def jsonl_rows(file: IO[bytes], name: str) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) of a JSON Lines file, a line at a time. Raises RecordError."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise RecordError(name, number, "", f"longer than {MAX_LINE_BYTES} bytes")
        if not line.strip():
            continue
        try:
            yield number, json_strict(line)
        except ValueError as error:
            reason = not_json(error, is_first=number == 1)
            raise RecordError(name, number, "", reason) from error


def rankings_checked(
    rows: Iterable[tuple[int, Any]], *, project: Project, name: str
) -> Iterator[RankingRecord]:
    """Yield the rows as records of this project. Raises RecordError at the first that is not.

    A row is refused unless its tiers partition its candidates, its conversation is one that could
    be imported as a prompt, and its split is the one this project gives to that prompt: else a
    held-out prompt could be trained on. Rows are sorted by id, as exports are, so none comes twice.
    Memory: about 200 bytes for each prompt and each answer, to see that an id means one text.
    """
    last, texts = "", dict[str, bytes]()
    for chunk in chunked(rows, _ROWS_AT_A_TIME):
        checked = [(number, _Row(name, number).record(value)) for number, value in chunk]
        groups = {number: group_hash(record.messages) for number, record in checked}
        sides = dict(
            Prompt.objects.filter(project=project, group_hash__in=set(groups.values())).values_list(
                "group_hash", "split"
            )
        )
        for number, record in checked:
            group = groups[number]
            side = sides.get(group) or split_of(group, settings.PROMPT_SPLIT_SHARES)
            if record.split != side:
                raise RecordError(
                    name, number, "split", f"{record.split!r}; this project has it in {side!r}"
                )
            if record.id <= last:
                raise RecordError(name, number, "id", "twice, or rows are not sorted by id")
            last = record.id
            _one_text(texts, record.prompt_id, record.messages, name, number, "prompt_id")
            for one in record.candidates:
                said = [one["text"], one["finish_reason"], record.prompt_id]
                _one_text(texts, one["id"], said, name, number, "candidates")
            yield record


def _one_text(
    texts: dict[str, bytes], uid: str, value: Any, name: str, number: int, field: str
) -> None:
    digest = hashlib.sha256(json_canonical(value).encode()).digest()
    if texts.setdefault(uid, digest) != digest:
        raise RecordError(name, number, field, f"{uid} is something else in an earlier row")


class _Row:
    """One row, checked field by field."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number

    def record(self, value: Any) -> RankingRecord:
        record = record_load(RankingRecord, value, file=self.name, line=self.number)
        PromptLine(self.name, self.number).messages(record.messages)
        for field in ("id", "prompt_id", "annotator"):
            self._id(field, getattr(record, field))
        if record.batch is not None:
            self._id("batch", record.batch)
        if len(record.tags) > MAX_TAGS:
            raise self._refused("tags", f"more than {MAX_TAGS}")
        for tag in record.tags:
            self._text("tags", tag, MAX_TAG_CHARS)
        self._text("rationale", record.rationale, MAX_RATIONALE_CHARS)
        if not 0 <= record.active_s <= MAX_ACTIVE_S:  # so is NaN refused
            raise self._refused("active_s", f"wanted 0 to {MAX_ACTIVE_S:.0f} seconds")
        if record.guideline is not None and record.guideline < 1:
            raise self._refused("guideline", "wanted a number from 1")
        ids = self._candidates(record.candidates)
        self._ranking(record, ids)
        self._kind(record, ids)
        # What is_simulated says is not said again: the same row has the same bytes.
        told = "simulated" if record.is_simulated else "person"
        return dataclasses.replace(
            record,
            active_s=float(record.active_s),
            weight=float(record.weight),
            source="" if record.source == told else record.source,
        )

    def _candidates(self, given: list[dict[str, Any]]) -> list[str]:
        if not 1 <= len(given) <= MAX_CANDIDATES:
            raise self._refused("candidates", f"wanted 1 to {MAX_CANDIDATES}")
        for index, value in enumerate(given):
            where = f"candidates[{index}]"
            try:
                one = record_load(RankedCandidate, value, file=self.name, line=self.number)
            except RecordError as error:
                raise self._refused(f"{where}.{error.field}", error.reason) from error
            self._id(f"{where}.id", one.id)
            self._text(f"{where}.text", one.text, MAX_TEXT_CHARS)
            self._text(f"{where}.finish_reason", one.finish_reason, 20)
            if one.token_count is not None and not 0 <= one.token_count < 1 << 31:
                raise self._refused(f"{where}.token_count", "wanted a number of tokens")
            if one.model_version is not None:
                self._id(f"{where}.model_version", one.model_version)
        ids = [str(one["id"]) for one in given]
        if ids != sorted(set(ids)):
            raise self._refused("candidates", "an id twice, or not sorted by id")
        return ids

    def _ranking(self, record: RankingRecord, ids: list[str]) -> None:
        if not all(record.tiers) or sorted(one for tier in record.tiers for one in tier) != ids:
            raise self._refused("tiers", "every candidate stands in one tier, and no tier is empty")
        bad = record.unacceptable
        if len(set(bad)) != len(bad) or not set(bad) <= set(ids):
            raise self._refused("unacceptable", "wanted ids of candidates, each once")
        # An edit's own answer was not shown: it was written there.
        if record.shown_order and record.kind != "edit" and sorted(record.shown_order) != ids:
            raise self._refused("shown_order", "wanted every candidate once")

    def _kind(self, record: RankingRecord, ids: list[str]) -> None:
        if record.kind not in KINDS:
            raise self._refused("kind", f"wanted one of {', '.join(KINDS)}")
        if record.judged_by not in SOURCES:
            raise self._refused("source", f"wanted one of {', '.join(SOURCES)}")
        if record.is_simulated != (record.judged_by in ("simulated", "model")):
            raise self._refused("source", "is_simulated says otherwise")
        if not 0 <= record.weight <= 1:
            raise self._refused("weight", "wanted 0 to 1")
        if record.degree is not None and not 0 <= record.degree <= 4:
            raise self._refused("degree", "wanted 0 to 4, or null")
        if record.unsafe is not None and not set(record.unsafe) <= set(ids):
            raise self._refused("unsafe", "wanted ids of candidates")
        for part in record.diff or ():
            if len(part) != 2 or part[0] not in ("=", "-", "+"):
                raise self._refused("diff", 'wanted pairs of "=", "-" or "+" and a text')
            self._text("diff", part[1], MAX_TEXT_CHARS)

    def _id(self, field: str, value: str) -> None:
        if not _ID.fullmatch(value):
            raise self._refused(field, "wanted 1 to 64 letters, digits, - or _")

    def _text(self, field: str, value: str, most_chars: int) -> None:
        if len(value) > most_chars:
            raise self._refused(field, f"longer than {most_chars} characters")
        if "\x00" in value:
            raise self._refused(field, "holds a NUL character")

    def _refused(self, field: str, reason: str) -> RecordError:
        return RecordError(self.name, self.number, field, reason)
