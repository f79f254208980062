"""Reading corpora: their documents, what thresholds would drop of them, and what was dropped.

All of it streams over row groups, and looks at no more of them than one request may take.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet

from modelhub.charts import FunnelStep, Histogram, funnel_draw, histogram_draw
from modelhub.ml.corpora.calibration import Calibration
from modelhub.ml.corpora.documents import (
    Document,
    corpus_shards,
    documents_at,
    documents_count,
    has_signals,
    signals_shard,
)
from modelhub.ml.corpora.rules import CHINESE, RULES, Rule
from modelhub.models import Artifact, RuleSet, RunOutput
from modelhub.selectors.document_judgements import (
    calibration_of_all,
    judged_documents,
    judgements_standing,
)
from modelhub.storage import artifact_folder

if typing.TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

EXAMPLES = 20
SHOWN_CHARACTERS = 1200
_GROUPS_A_REQUEST = 60  # of a search: up to 60,000 documents or 240 M characters
_GROUPS_A_SURVEY = 400  # of the signals alone, which are small
_BINS = 40
_ROWS_A_BATCH = 65_536  # of a report


def corpora_list() -> QuerySet[RunOutput]:
    """Corpora as the outputs of the runs that made them, newest first. One query."""
    outputs = RunOutput.objects.filter(artifact__kind=Artifact.Kind.CORPUS, role="corpus")
    return outputs.select_related("artifact", "run", "run__requested_by").order_by("-pk")


def corpus_get(*, run_uid: str) -> RunOutput | None:
    """The corpus that a run made. One query."""
    return corpora_list().filter(run__uid=run_uid).first()


def rule_sets_list() -> QuerySet[RuleSet]:
    """Saved thresholds, the newest number of each name first. One query."""
    return RuleSet.objects.select_related("author").order_by("name", "-number")


def rule_set_named(*, name: str) -> RuleSet | None:
    """The set called "name@number". One query."""
    stem, _, number = name.rpartition("@")
    if not (number.isascii() and number.isdecimal() and len(number) < 9):
        return None
    return RuleSet.objects.filter(name=stem, number=int(number)).first()


@dataclass(frozen=True, kw_only=True)
class DocumentFilter:
    """What documents are looked for: a part of the text, a language, a range of one signal."""

    text: str = ""
    language: str = ""
    signal: str = ""
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, kw_only=True)
class FoundDocument:
    """One document: its place in the corpus, the start of its text, its signals."""

    place: int
    document: Document
    start: str
    is_cut: bool
    signals: Mapping[str, Any]
    value: float | None = None  # of the signal that was asked for
    because: str = ""
    is_good: bool | None = None  # what the reader said of it, see `marked`


@dataclass(frozen=True, kw_only=True)
class DocumentPage:
    """What was found, and the place to go on from; None at the end of the corpus."""

    found: list[FoundDocument]
    count: int  # documents of the corpus
    following: int | None
    is_limited: bool  # the request's share was looked at before the page was full


def documents_find(
    *, corpus: Artifact, wanted: DocumentFilter, start: int = 0, limit: int = 25
) -> DocumentPage:
    """Documents from a place on that fit. No query; reads at most a request's share of files."""
    import pyarrow as pa
    import pyarrow.compute as pc

    folder = artifact_folder(corpus)
    count = documents_count(folder)
    with_signals = has_signals(folder)
    found: list[FoundDocument] = []
    looked_at = 0
    for group_start, documents_file, signals_file, group in _row_groups(folder):
        size = documents_file.metadata.row_group(group).num_rows
        if group_start + size <= start:
            continue
        if looked_at == _GROUPS_A_REQUEST:
            return DocumentPage(found=found, count=count, following=group_start, is_limited=True)
        looked_at += 1
        signals = signals_file.read_row_group(group) if signals_file else None
        mask = pa.array([group_start + i >= start for i in range(size)])
        if signals is not None and wanted.signal in signals.column_names:
            mask = pc.and_(mask, _in_range(signals[wanted.signal], wanted))
        if wanted.language:
            languages = documents_file.read_row_group(group, columns=["language"])["language"]
            mask = pc.and_(mask, pc.equal(languages, wanted.language))
        if not pc.any(mask).as_py():
            continue
        table = documents_file.read_row_group(group)
        if wanted.text:
            mask = pc.and_(mask, pc.match_substring(table["text"], wanted.text, ignore_case=True))
        places = pc.indices_nonzero(_flat(mask)).to_pylist()
        for place in places:
            if len(found) == limit:
                at = group_start + place
                return DocumentPage(found=found, count=count, following=at, is_limited=False)
            row = table.slice(place, 1).to_pylist()[0]
            measured = signals.slice(place, 1).to_pylist()[0] if signals is not None else {}
            value = measured.get(wanted.signal) if with_signals else None
            found.append(_found(group_start + place, Document(**row), measured, value))
    return DocumentPage(found=found, count=count, following=None, is_limited=False)


def signal_names(*, corpus: Artifact) -> list[str]:
    """The signals a document can be looked for by."""
    import pyarrow as pa

    folder = artifact_folder(corpus)
    if not has_signals(folder):
        return []
    schema = _open(signals_shard(corpus_shards(folder)[0])).schema_arrow
    return [
        field.name
        for field in schema
        if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    ]


@dataclass(frozen=True, kw_only=True)
class RuleEffect:
    """What a rule would drop: of all documents, and of what the rules before it have left."""

    rule: Rule
    threshold: float | None
    chinese: float | None
    alone: int
    step: FunnelStep
    people: Calibration


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What thresholds would drop of a corpus, rule by rule; of a sample where it is large."""

    documents: int
    surveyed: int
    effects: list[RuleEffect]
    left: int
    has_chinese: bool
    has_other: bool
    judged: int  # documents that people have judged


def rules_survey(*, corpus: Artifact, thresholds: Mapping[str, float]) -> Survey:
    """Hold the stored signals, and people's judgements, against thresholds. One query."""
    import pyarrow.compute as pc

    from modelhub.ml.corpora.verdicts import rule_masks

    alone = dict.fromkeys(RULES, 0)
    dropped = dict.fromkeys(RULES, 0)
    surveyed = left = chinese = 0
    folder = artifact_folder(corpus)
    for _, signals in surveyed_groups(folder):
        surveyed += signals.num_rows
        chinese += pc.sum(pc.equal(signals["language"], CHINESE)).as_py() or 0
        gone = None
        for name, mask in rule_masks(signals, thresholds):
            alone[name] += pc.sum(mask).as_py() or 0
            fresh = mask if gone is None else pc.and_(mask, pc.invert(gone))
            dropped[name] += pc.sum(fresh).as_py() or 0
            gone = mask if gone is None else pc.or_(gone, mask)
        left += signals.num_rows - ((pc.sum(gone).as_py() or 0) if gone is not None else 0)
    steps = funnel_draw(surveyed, list(dropped.items()))
    judged = judged_documents(corpus)
    return Survey(
        documents=documents_count(folder),
        surveyed=surveyed,
        effects=[
            RuleEffect(
                rule=rule,
                threshold=thresholds.get(name),
                chinese=thresholds.get(f"{name}@{CHINESE}"),
                alone=alone[name],
                step=step,
                people=calibration_of_all(judged, rule, thresholds),
            )
            for (name, rule), step in zip(RULES.items(), steps, strict=True)
        ],
        left=left,
        has_chinese=chinese > 0,
        has_other=chinese < surveyed,
        judged=len(judged),
    )


@dataclass(frozen=True, kw_only=True)
class RuleView:
    """One rule over Chinese or over the rest: how its signal lies, and twenty that would go."""

    rule: Rule
    is_chinese: bool
    threshold: float | None
    histogram: Histogram | None
    dropped: int
    documents: int
    examples: list[FoundDocument]


def rule_view(
    *, corpus: Artifact, rule: Rule, threshold: float | None, is_chinese: bool
) -> RuleView:
    """A rule's histogram, and examples spread evenly over what it would drop. No query.

    The histogram ends at the 99th hundredth of values, or beyond the threshold; what lies further
    is in its last part.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    folder = artifact_folder(corpus)
    values: list[pa.Array] = []
    gone: list[tuple[float, int]] = []
    for start, signals in surveyed_groups(folder):
        own = pc.equal(signals["language"], CHINESE)
        own = _flat(own if is_chinese else pc.invert(own))
        column = _flat(signals[rule.signal])
        values.append(pc.cast(column.filter(own), pa.float64()))
        if threshold is None:
            continue
        cut = pa.scalar(threshold, column.type if pa.types.is_float32(column.type) else None)
        drops = pc.less(column, cut) if rule.is_minimum else pc.greater(column, cut)
        places = pc.indices_nonzero(pc.and_(own, drops)).to_pylist()
        gone += [(column[place].as_py(), start + place) for place in places]
    gone.sort()
    chosen = _spread(gone, EXAMPLES)
    documents = documents_at(folder, [place for _, place in chosen])
    everything = pa.chunked_array(values or [pa.array([], pa.float64())], pa.float64())
    return RuleView(
        rule=rule,
        is_chinese=is_chinese,
        threshold=threshold,
        histogram=_histogram(everything, threshold, rule),
        dropped=len(gone),
        documents=len(everything),
        examples=[
            _found(place, document, {}, value)
            for (value, place), document in zip(chosen, documents, strict=True)
        ],
    )


def marked(
    found: Sequence[FoundDocument], *, corpus: Artifact, author: User
) -> list[FoundDocument]:
    """The documents, with what the author said of each. One query."""
    own = judgements_standing(corpus, author=author, place__in=[one.place for one in found])
    said = {place: is_good for (place, _), (is_good, _) in own.items()}
    return [replace(one, is_good=said.get(one.place)) for one in found]


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What a step of a cleaning dropped: how many, and twenty of them."""

    step: str
    count: int
    examples: list[FoundDocument]


def removed_view(*, cleaned: RunOutput, step: str) -> Removed | None:
    """Twenty documents that a step of a cleaning run dropped, from the corpus it read.

    None if the run made no report. Two queries; the report, of any size, is read batch by batch.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    report = cleaned.run.outputs.select_related("artifact").filter(role="report").first()
    given = cleaned.run.inputs.select_related("artifact").filter(role="corpus").first()
    if report is None or given is None:
        return None
    path = artifact_folder(report.artifact) / "removed.parquet"
    with pq.ParquetFile(path) as file:
        count = sum(
            pc.sum(pc.equal(batch["step"], step)).as_py() or 0
            for batch in file.iter_batches(_ROWS_A_BATCH, columns=["step"])
        )
        wanted = _spread(range(count), EXAMPLES)
        chosen: list[dict[str, Any]] = []
        seen = 0
        for batch in file.iter_batches(_ROWS_A_BATCH):
            own = batch.filter(pc.equal(batch["step"], step))
            here = [at - seen for at in wanted if seen <= at < seen + own.num_rows]
            chosen += own.take(pa.array(here, pa.int64())).to_pylist()
            seen += own.num_rows
    documents = documents_at(artifact_folder(given.artifact), [one["place"] for one in chosen])
    return Removed(
        step=step,
        count=count,
        examples=[
            _found(one["place"], document, {}, None, one["because"])
            for one, document in zip(chosen, documents, strict=True)
        ],
    )


ItemT = typing.TypeVar("ItemT")


def _spread(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """At most `count` of the items, evenly from the first to the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _histogram(values: pa.ChunkedArray, threshold: float | None, rule: Rule) -> Histogram | None:
    import pyarrow.compute as pc

    if not len(values):
        return None
    low = min(0.0, pc.min(values).as_py())
    (high,) = pc.quantile(values, 0.99).to_pylist()
    if threshold is not None:
        high = max(high, min(threshold * 1.25, 10 * max(high, threshold / 10)))
    if not high > low:
        high = low + 1.0
    places = pc.cast(pc.floor(pc.multiply(pc.subtract(values, low), _BINS / (high - low))), "int64")
    places = pc.min_element_wise(places, _BINS - 1)
    counts = [0] * _BINS
    for one in pc.value_counts(places).to_pylist():
        counts[one["values"]] += one["counts"]
    return histogram_draw(counts, low, high, threshold, is_minimum=rule.is_minimum)


def _found(
    place: int,
    document: Document,
    signals: Mapping[str, Any],
    value: float | None,
    because: str = "",
) -> FoundDocument:
    return FoundDocument(
        place=place,
        document=document,
        start=document.text[:SHOWN_CHARACTERS],
        is_cut=len(document.text) > SHOWN_CHARACTERS,
        signals=signals,
        value=value,
        because=because,
    )


def _in_range(column: pa.ChunkedArray, wanted: DocumentFilter) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    least = -math.inf if wanted.least is None else wanted.least
    most = math.inf if wanted.most is None else wanted.most
    numbers = pc.cast(column, "double")
    return pc.and_(pc.greater_equal(numbers, least), pc.less_equal(numbers, most))


def _flat(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column


def _row_groups(
    folder: Path,
) -> Iterator[tuple[int, pq.ParquetFile, pq.ParquetFile | None, int]]:
    """(place of its first document, documents, signals, number) of every row group."""
    start = 0
    for shard in corpus_shards(folder):
        path = signals_shard(shard)
        documents, signals = _open(shard), _open(path) if path.exists() else None
        for group in range(documents.num_row_groups):
            yield start, documents, signals, group
            start += documents.metadata.row_group(group).num_rows


def surveyed_groups(folder: Path) -> Iterator[tuple[int, pa.Table]]:
    """(place of its first document, signals) of every row group, or of a fixed number, spread."""
    groups = [
        (start, signals, group) for start, _, signals, group in _row_groups(folder) if signals
    ]
    for start, signals, group in _spread(groups, _GROUPS_A_SURVEY):
        yield start, signals.read_row_group(group)


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)
