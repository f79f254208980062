"""What each step of a cleaning says of documents, whoever reads and writes them.

One machine asks these functions with a whole corpus (clean_corpus.py), many with a shard each
(stages.py): the verdicts are the same, for the code is.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modelhub.ml.corpora import contamination, duplicates, pii, word_lists
from modelhub.ml.corpora.configs import CleanCorpusConfig
from modelhub.ml.corpora.documents import (
    CorpusError,
    CorpusWriter,
    Document,
    corpus_shards,
    documents_read,
    signals_shard,
)
from modelhub.ml.corpora.import_corpus import CorpusCounts, chunks_cut
from modelhub.ml.corpora.rules import CHINESE, RULES
from modelhub.ml.corpora.signals import VERSION, VERSION_KEY, c4_lines, texts_measure
from modelhub.ml.corpora.verdicts import language_mask, rule_masks
from modelhub.ml.corpora.workers import chunks_map
from modelhub.ml.records import json_canonical
from modelhub.ml.rundir import RunDir

LANGUAGE, WORDS, EXACT, NEAR, CONTAMINATED, EMPTIED = (
    "language",
    "bad_words",
    "exact_duplicate",
    "near_duplicate",
    "contamination",
    "no_line_left",
)
KEPT = -1
REPEATED_SHOWN = 20  # texts of which most copies went
_SHOWN = 200  # rows of a table in the result; the report has them all
_REPORT = pa.schema([("place", pa.int64()), ("step", pa.string()), ("because", pa.string())])


@dataclass
class Verdicts:
    """What becomes of each document: the step that drops it, in the order of `steps`.

    Of a duplicate `first_N` has the place of the text it repeats, below zero in a known corpus;
    `because` has more of others: the item they share words with.
    """

    steps: list[str]
    step_N: np.ndarray
    first_N: np.ndarray
    alone: collections.Counter[str] = field(default_factory=collections.Counter)
    because: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        count: int,
        config: CleanCorpusConfig,
        thresholds: Mapping[str, float],
        *,
        bad_words: Path | None,
    ) -> "Verdicts":
        """Of documents that nothing has dropped yet."""
        words = [WORDS] if bad_words else []
        steps = [LANGUAGE, *_rules_of(thresholds), *words, EXACT, NEAR, CONTAMINATED]
        if config.drop_c4_lines:
            steps.append(EMPTIED)
        return cls(steps, np.full(count, KEPT, np.int16), np.zeros(count, np.int64))

    def drop(self, place: int, step: str, because: str = "", *, first: int = 0) -> None:
        if self.step_N[place] == KEPT:
            self.step_N[place] = self.steps.index(step)
            self.first_N[place] = first
            if because:
                self.because[place] = because

    def kept(self) -> np.ndarray:
        return np.flatnonzero(self.step_N == KEPT)

    def reason(self, place: int) -> str:
        """What more there is to say of a document that was dropped, or ""."""
        if self.steps[self.step_N[place]] not in (EXACT, NEAR):
            return self.because.get(place, "")
        first = self.first_N[place]
        return "a known corpus" if first < 0 else f"place {first}"


@dataclass(frozen=True, slots=True)
class Examined:
    """What the first pass finds out of one text."""

    exact: bytes
    signature: np.ndarray  # (H,)
    hits: list[contamination.Hit]
    bad: str  # the first bad word, or ""


@dataclass
class Written:
    """What a second pass has written."""

    counts: CorpusCounts = field(default_factory=CorpusCounts)
    scrubbed: collections.Counter[str] = field(default_factory=collections.Counter)
    emptied: list[int] = field(default_factory=list)  # places of those with no line left


def signals_check(folder: Path) -> None:
    """Raise CorpusError for a corpus without signals, or with another version's.

    A threshold means nothing without the splitter that counted.
    """
    for shard in corpus_shards(folder):
        path = signals_shard(shard)
        if not path.exists():
            raise CorpusError(f"{path.name} is not there: import the corpus again to measure it")
        version = (pq.read_schema(path).metadata or {}).get(VERSION_KEY, b"").decode()
        if version != VERSION:
            raise CorpusError(
                f"{path.name} was measured by {version or 'nobody knows what'}, this is {VERSION}: "
                "import the corpus again"
            )


def rules_drop(
    verdicts: Verdicts,
    signals: Iterable[pa.Table],
    config: CleanCorpusConfig,
    thresholds: Mapping[str, float],
) -> None:
    """Drop what languages and thresholds say, off the stored signals alone."""
    start = 0
    for table in signals:
        step_G = verdicts.step_N[start : start + table.num_rows]
        foreign = language_mask(table, config.languages, config.language_score_min)
        masks = [(LANGUAGE, foreign)] if foreign is not None else []
        for name, mask in [*masks, *rule_masks(table, thresholds)]:
            dropped_G = np.asarray(mask)
            verdicts.alone[name] += int(dropped_G.sum())
            step_G[dropped_G & (step_G == KEPT)] = verdicts.steps.index(name)
        start += table.num_rows


def _rules_of(thresholds: Mapping[str, float]) -> list[str]:
    """The rules that have a threshold, in the order in which they are held against a document."""
    return [name for name in RULES if name in thresholds or f"{name}@{CHINESE}" in thresholds]


def texts_examine(
    texts: list[str], *, config: CleanCorpusConfig, index: Path | None, bad_words: Path | None
) -> list[Examined]:
    """Hashes, signature, hits and bad word of each text. Runs in a process of its own.

    index, bad_words: as `index_write` and `word_list_write` give them.
    """
    hashes = duplicates.content_hashes(texts)
    signatures_NH = duplicates.signatures_make(
        hashes,
        gram_words=config.near_gram_words,
        count=config.near_bands * config.near_rows,
        seed=config.seed,
    )
    opened = contamination.index_open(index) if index else None
    words = word_lists.list_open(bad_words) if bad_words else None
    return [
        Examined(
            duplicates.exact_hash(text),
            signature,
            opened.hits(text, own) if opened else [],
            words.first_in(own) if words else "",
        )
        for text, own, signature in zip(texts, hashes, signatures_NH, strict=True)
    ]


def duplicates_drop(
    verdicts: Verdicts,
    places: np.ndarray,
    exact_firsts: np.ndarray | None,
    near_firsts: np.ndarray | None,
) -> collections.Counter[int]:
    """Drop what repeats an earlier text. Returns place of the first → copies of it dropped.

    places: of the i-th text examined its place in the corpus, or -1, -2, … of a known one.
    exact_firsts, near_firsts: of each text examined the first that it repeats, or itself; None:
    such repeats are kept.
    """
    groups: collections.Counter[int] = collections.Counter()
    for step, firsts in ((EXACT, exact_firsts), (NEAR, near_firsts)):
        if firsts is None:
            continue
        for number in np.flatnonzero(firsts != np.arange(len(firsts))).tolist():
            place, first = int(places[number]), int(places[firsts[number]])
            if place >= 0 and verdicts.step_N[place] == KEPT:
                verdicts.alone[step] += 1
                verdicts.drop(place, step, first=first)
                groups[first] += 1
    return groups


def set_phrases(hits: Iterable[Sequence[contamination.Hit]], documents_max: int) -> set[int]:
    """The grams that more documents hold than `documents_max`. hits: of each document."""
    counts = collections.Counter(gram for one in hits for gram in {hit.gram for hit in one})
    return {gram for gram, count in counts.items() if count > documents_max}


def hits_telling(
    hits: Iterable[tuple[int, list[contamination.Hit]]], phrases: set[int]
) -> dict[int, list[contamination.Hit]]:
    """Place → its hits that are no set phrase, of the documents that have such."""
    telling = ((place, [hit for hit in one if hit.gram not in phrases]) for place, one in hits)
    return {place: one for place, one in telling if one}


def contamination_reports(
    index: Path, place: int, document: Document, hits: Sequence[contamination.Hit]
) -> list[dict[str, Any]]:
    """What a contaminated document shares, by item, as the report has it."""
    reports = contamination.hits_report(contamination.index_open(index), hits, document.text)
    return [{"place": place, "document": document.id, **report} for report in reports]


def contamination_because(reports: Sequence[Mapping[str, Any]]) -> str:
    first = reports[0]
    return f"{first['set']} {first['item']}: {first['words']}"


def kept_write(
    rows: Iterable[tuple[Document, dict[str, Any]]],
    places: Iterable[int],
    writer: CorpusWriter,
    written: Written,
    config: CleanCorpusConfig,
    *,
    workers: int,
) -> Iterator[int]:
    """Write the kept documents, personal data replaced, C4's lines cut.

    places: of each of the rows. Yields after every chunk how many it had.
    """
    finish = partial(documents_finish, config=config)
    following = iter(places)
    chunks = chunks_cut(rows, lambda row: len(row[0].text))
    for chunk in chunks_map(finish, chunks, workers=workers):
        # As many places as documents: zip alone takes one more to see that there are none.
        own = islice(following, len(chunk))
        for place, (document, signals, spans) in zip(own, chunk, strict=True):
            if config.drop_c4_lines and not document.text.strip():
                written.emptied.append(place)
                continue
            written.scrubbed.update(spans)
            writer.add(document, signals)
            written.counts.add(document, signals)
        yield len(chunk)


def documents_finish(
    chunk: list[tuple[Document, dict[str, Any]]], *, config: CleanCorpusConfig
) -> list[tuple[Document, dict[str, Any], list[str]]]:
    """Each document as it is kept, its signals, and the kinds of spans taken from it.

    What is changed is measured again. Runs in a process of its own.
    """
    changed: list[tuple[str, list[str]]] = []
    for document, signals in chunk:
        spans = [pii.Span(**span) for span in signals["pii"]] if config.scrub_pii else []
        text = pii.pii_scrub(document.text, spans) if spans else document.text
        if config.drop_c4_lines:
            text = "\n".join(c4_lines(text)[0])
        changed.append((text, [span.kind for span in spans]))
    pairs = list(zip(chunk, changed, strict=True))
    anew = [text for (document, _), (text, _) in pairs if text != document.text]
    measured = iter(texts_measure(anew))
    found = []
    for (document, signals), (text, kinds) in pairs:
        if text != document.text:
            document, signals = replace(document, text=text), next(measured)
        found.append((document, signals, kinds))
    return found


def index_write(run: RunDir, config: CleanCorpusConfig, scratch: Path) -> Path | None:
    roles = [one for one in run.input_roles() if one.startswith(("evaluation", "held_out"))]
    if not roles:
        return None
    folder = scratch / "index"
    folder.mkdir()
    items = (item for role in roles for item in contamination.items_read(role, run.input(role)))
    contamination.ContaminationIndex.write(
        items, gram_words=config.contamination_gram_words, folder=folder
    )
    return folder


def word_list_write(run: RunDir, scratch: Path) -> Path | None:
    """All lists of bad words that the run was given, as one; None: it was given none."""
    roles = [one for one in run.input_roles() if one.startswith("bad_words")]
    if not roles:
        return None
    folder = scratch / "bad_words"
    phrases = (one for role in roles for one in word_lists.phrases_read(run.input(role)))
    word_lists.WordList.write(phrases, folder)
    return folder


def report_write(folder: Path, verdicts: Verdicts, found: list[dict[str, Any]]) -> None:
    """removed.parquet: place, step and reason of what was dropped; contamination.jsonl."""
    dropped = np.flatnonzero(verdicts.step_N != KEPT)
    table = pa.table(
        {
            "place": dropped,
            "step": [verdicts.steps[step] for step in verdicts.step_N[dropped]],
            "because": [verdicts.reason(place) for place in dropped.tolist()],
        },
        schema=_REPORT,
    )
    pq.write_table(table, folder / "removed.parquet", compression="zstd")
    with (folder / "contamination.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json_canonical(one) + "\n" for one in found)


def funnel(verdicts: Verdicts, count: int) -> list[dict[str, Any]]:
    """Step by step: what each dropped of what was left, and what it would have dropped alone."""
    numbers = np.bincount(verdicts.step_N[verdicts.step_N != KEPT], minlength=len(verdicts.steps))
    rows, left = [], count
    for step, dropped in zip(verdicts.steps, numbers.tolist(), strict=True):
        left -= dropped
        rows.append({"step": step, "dropped": dropped, "left": left, "alone": verdicts.alone[step]})
    return rows


def result_make(
    config: CleanCorpusConfig,
    thresholds: dict[str, float],
    verdicts: Verdicts,
    count: int,
    written: Written,
    most_repeated: Iterable[tuple[int, int]],
    found: list[dict[str, Any]],
    index: Path | None,
) -> dict[str, Any]:
    result = {
        "documents_before": count,
        **written.counts.result(),
        "funnel": funnel(verdicts, count),
        "thresholds": [
            {
                "rule": name,
                "threshold": thresholds.get(name),
                "chinese": thresholds.get(f"{name}@{CHINESE}"),
            }
            for name in _rules_of(thresholds)
        ],
        "scrubbed": {kind: written.scrubbed[kind] for kind in pii.KINDS if written.scrubbed[kind]},
        "most_repeated": [
            {"place": "known" if place < 0 else place, "copies_dropped": copies}
            for place, copies in most_repeated
        ],
        "signals": VERSION,
    }
    if index is not None:
        opened = contamination.index_open(index)
        result["evaluation_items"] = len(opened.items)
        result["evaluation_items_too_short"] = opened.too_short
        result["contaminated_documents"] = len({one["place"] for one in found})
        result["contamination"] = [
            {
                "set": one["set"],
                "item": one["item"],
                "document": one["document"],
                "from": one["start"],
                "to": one["end"],
                "words": one["words"],
            }
            for one in found[:_SHOWN]
        ]
    return result


def origin(folder: Path) -> dict[str, str]:
    """Source and licence as the corpus's first document has them."""
    first = next(documents_read(folder))
    return {"source": first.source, "licence": first.licence}
