"""Clean a corpus: rules, duplicates, contamination, personal data → a new corpus and a report.

    python -m modelhub.ml.corpora.clean_corpus RUN_DIR

Two passes over the shards. The first decides: what a threshold drops is read off the stored
signals; the texts left are hashed, signed and held against the evaluation sets by several
processes. Between them near-duplicates are found, of the corpora already had first. The second
writes what is kept, personal data replaced. Nothing is random but the seeded MinHash: the same
settings over the same corpus give the same bytes, by any number of processes.

In memory: of each document a few bytes of verdict and its exact hash; the signatures lie on disk.
"""

import collections
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modelhub.ml.corpora import contamination, duplicates, pii
from modelhub.ml.corpora.configs import CleanCorpusConfig
from modelhub.ml.corpora.documents import (
    CorpusError,
    CorpusWriter,
    Document,
    corpus_shards,
    documents_count,
    documents_read,
    rows_read,
    signals_read,
    signals_shard,
)
from modelhub.ml.corpora.import_corpus import CorpusCounts, chunks_cut, document_chunks
from modelhub.ml.corpora.rules import CHINESE, RULES, thresholds_of
from modelhub.ml.corpora.signals import (
    VERSION,
    VERSION_KEY,
    c4_lines,
    signals_schema,
    texts_measure,
)
from modelhub.ml.corpora.verdicts import language_mask, rule_masks
from modelhub.ml.corpora.workers import chunks_map, pandas_leave_out, workers_given
from modelhub.ml.records import json_canonical
from modelhub.ml.rundir import RunDir, program_run

LANGUAGE, EXACT, NEAR, CONTAMINATED, EMPTIED = (
    "language",
    "exact_duplicate",
    "near_duplicate",
    "contamination",
    "no_line_left",
)
_KEPT = -1
_SHOWN = 200  # rows of a table in the result; the report has them all
_REPORT = pa.schema([("place", pa.int64()), ("step", pa.string()), ("because", pa.string())])


@dataclass
class Verdicts:
    """What becomes of each document: the step that drops it, in the order of `steps`.

    `because` has more of some: the document it repeats, the item it shares words with.
    """

    steps: list[str]
    step_N: np.ndarray
    alone: collections.Counter[str] = field(default_factory=collections.Counter)
    because: dict[int, str] = field(default_factory=dict)

    def drop(self, place: int, step: str, because: str = "") -> None:
        if self.step_N[place] == _KEPT:
            self.step_N[place] = self.steps.index(step)
            if because:
                self.because[place] = because

    def kept(self) -> np.ndarray:
        return np.flatnonzero(self.step_N == _KEPT)


@dataclass(frozen=True, slots=True)
class Examined:
    """What the first pass finds out of one text."""

    exact: bytes
    signature: np.ndarray  # (H,)
    hits: list[contamination.Hit]


def main(run: RunDir) -> None:
    config = run.config(CleanCorpusConfig)
    scratch = _scratch(run)
    folder = run.input("corpus")
    known = [run.input(role) for role in run.input_roles() if role.startswith("known_")]
    signals_check(folder)
    index = _index_write(run, config, scratch)
    count = documents_count(folder)
    if not count:
        raise CorpusError("the corpus has no documents")

    thresholds = thresholds_of(config.families, config.thresholds)
    verdicts = rules_verdicts(folder, count, config, thresholds)
    print(f"{len(verdicts.kept())} of {count} documents are left by the rules", flush=True)

    signatures = scratch / "signatures"
    examined, known_count = _texts_examine(run, folder, known, config, index, verdicts, signatures)
    groups = _duplicates_find(examined, known_count, config, verdicts, signatures)
    found = _contamination_find(folder, examined, config, index, verdicts)

    counts, scrubbed = _kept_write(run, folder, config, verdicts)
    if not counts.documents:
        raise CorpusError(f"nothing is left of {count} documents: {_funnel(verdicts, count)}")
    _report_write(run, verdicts, found)
    run.succeed(
        outputs={"corpus": "corpus", "report": "evaluation"},
        result=_origin(folder)
        | _result(config, thresholds, verdicts, count, counts, scrubbed, groups, found, index),
    )


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


def rules_verdicts(
    folder: Path, count: int, config: CleanCorpusConfig, thresholds: dict[str, float]
) -> Verdicts:
    """What languages and thresholds drop, off the stored signals alone."""
    steps = [LANGUAGE, *_rules_of(thresholds), EXACT, NEAR, CONTAMINATED]
    if config.drop_c4_lines:
        steps.append(EMPTIED)
    verdicts = Verdicts(steps=steps, step_N=np.full(count, _KEPT, np.int16))
    start = 0
    for signals in signals_read(folder):
        step_G = verdicts.step_N[start : start + signals.num_rows]
        foreign = language_mask(signals, config.languages, config.language_score_min)
        masks = [(LANGUAGE, foreign)] if foreign is not None else []
        for name, mask in [*masks, *rule_masks(signals, thresholds)]:
            dropped_G = np.asarray(mask)
            verdicts.alone[name] += int(dropped_G.sum())
            step_G[dropped_G & (step_G == _KEPT)] = verdicts.steps.index(name)
        start += signals.num_rows
    return verdicts


def _rules_of(thresholds: Mapping[str, float]) -> list[str]:
    """The rules that have a threshold, in the order in which they are held against a document."""
    return [name for name in RULES if name in thresholds or f"{name}@{CHINESE}" in thresholds]


def texts_examine(
    texts: list[str], *, config: CleanCorpusConfig, index: Path | None
) -> list[Examined]:
    """Hashes, signature and hits of each text. Runs in a process of its own."""
    hashes = duplicates.content_hashes(texts)
    signatures_NH = duplicates.signatures_make(
        hashes,
        gram_words=config.near_gram_words,
        count=config.near_bands * config.near_rows,
        seed=config.seed,
    )
    opened = contamination.index_open(index) if index else None
    return [
        Examined(duplicates.exact_hash(text), signature, opened.hits(text, own) if opened else [])
        for text, own, signature in zip(texts, hashes, signatures_NH, strict=True)
    ]


def _texts_examine(
    run: RunDir,
    folder: Path,
    known: list[Path],
    config: CleanCorpusConfig,
    index: Path | None,
    verdicts: Verdicts,
    signatures: Path,
) -> tuple[list[tuple[bytes, list[contamination.Hit]]], int]:
    """(hash and hits of each text of the known corpora and of those kept so far, how many known).

    Their signatures are written to a file, one after another.
    """
    known_count = 0
    kept = verdicts.step_N == _KEPT

    def documents() -> Iterator[Document]:
        nonlocal known_count
        for one in known:
            for document in documents_read(one):
                known_count += 1
                yield document
        for place, document in enumerate(documents_read(folder)):
            if kept[place]:
                yield document

    examine = partial(texts_examine, config=config, index=index)
    chunks = ([one.text for one in chunk] for chunk in document_chunks(documents()))
    total = sum(map(documents_count, known)) + int(kept.sum())
    found: list[tuple[bytes, list[contamination.Hit]]] = []
    with signatures.open("wb") as file:
        for chunk in chunks_map(examine, chunks, workers=workers_given(config.workers)):
            for one in chunk:
                found.append((one.exact, one.hits))
                file.write(one.signature.tobytes())
            _progress(run, len(verdicts.step_N), len(found) / total / 2)
    return found, known_count


def _duplicates_find(
    examined: list[tuple[bytes, list[contamination.Hit]]],
    known_count: int,
    config: CleanCorpusConfig,
    verdicts: Verdicts,
    signatures: Path,
) -> collections.Counter[int]:
    """Drop what repeats an earlier text. Returns place of the first → copies of it dropped.

    Of a text of a known corpus the place is below zero.
    """
    # Of the i-th text examined: its place in the corpus, or -1, -2, … of a known one.
    places = np.concatenate([-1 - np.arange(known_count), verdicts.kept()])
    groups: collections.Counter[int] = collections.Counter()

    def drop(number: int, first: int, step: str) -> None:
        place, kept = int(places[number]), int(places[first])
        verdicts.alone[step] += 1
        verdicts.drop(place, step, "a known corpus" if kept < 0 else f"place {kept}")
        groups[kept] += 1

    firsts: dict[bytes, int] = {}
    for number, (exact, _) in enumerate(examined):
        first = firsts.setdefault(exact, number)
        if first != number and places[number] >= 0 and config.exact_duplicates:
            drop(number, first, EXACT)
    if config.near_duplicates and examined:
        hashes = config.near_bands * config.near_rows
        firsts_N = duplicates.near_duplicates(
            np.memmap(signatures, np.uint32, "r", shape=(len(examined), hashes)),
            bands=config.near_bands,
            rows=config.near_rows,
            similarity_min=config.near_similarity_min,
        )
        for number in np.flatnonzero(firsts_N != np.arange(len(examined))).tolist():
            place = places[number]
            if place >= 0 and verdicts.step_N[place] == _KEPT:
                drop(number, int(firsts_N[number]), NEAR)
    return groups


def _contamination_find(
    folder: Path,
    examined: list[tuple[bytes, list[contamination.Hit]]],
    config: CleanCorpusConfig,
    index: Path | None,
    verdicts: Verdicts,
) -> list[dict[str, Any]]:
    """Drop, or only report, documents that share words with evaluation items."""
    if index is None:
        return []
    # The i-th of the last texts examined is the i-th that the rules have kept.
    rules_kept = np.flatnonzero(
        (verdicts.step_N == _KEPT) | (verdicts.step_N >= verdicts.steps.index(EXACT))
    )
    own = examined[len(examined) - len(rules_kept) :]
    frequency = collections.Counter(gram for _, hits in own for gram in {hit.gram for hit in hits})
    wanted: dict[int, list[contamination.Hit]] = {}
    for place, (_, hits) in zip(rules_kept.tolist(), own, strict=True):
        rare = [hit for hit in hits if frequency[hit.gram] <= config.contamination_documents_max]
        if rare:
            wanted[place] = rare
    if not wanted:
        return []
    opened = contamination.index_open(index)
    found = []
    for place, document in enumerate(documents_read(folder)):
        if place not in wanted:
            continue
        reports = contamination.hits_report(opened, wanted[place], document.text)
        found += [{"place": place, "document": document.id, **report} for report in reports]
        verdicts.alone[CONTAMINATED] += 1
        if config.contamination_drop:
            first = reports[0]
            verdicts.drop(place, CONTAMINATED, f"{first['set']} {first['item']}: {first['words']}")
    return found


def _kept_write(
    run: RunDir, folder: Path, config: CleanCorpusConfig, verdicts: Verdicts
) -> tuple[CorpusCounts, collections.Counter[str]]:
    """Write the kept documents. Returns their counts, and how many spans of each kind went.

    One of which no line is left is dropped here, as the last step.
    """
    counts = CorpusCounts()
    scrubbed: collections.Counter[str] = collections.Counter()
    finish = partial(documents_finish, config=config)
    places = verdicts.kept()
    done = len(verdicts.step_N) - len(places)
    following = iter(places.tolist())
    with CorpusWriter(run.output("corpus"), signals_schema()) as writer:
        rows = _kept_rows(folder, verdicts.step_N == _KEPT)
        chunks = chunks_cut(rows, lambda row: len(row[0].text))
        for chunk in chunks_map(finish, chunks, workers=workers_given(config.workers)):
            # As many places as documents: zip alone takes one more to see that there are none.
            own = islice(following, len(chunk))
            for place, (document, signals, spans) in zip(own, chunk, strict=True):
                if config.drop_c4_lines and not document.text.strip():
                    verdicts.alone[EMPTIED] += 1
                    verdicts.drop(place, EMPTIED)
                    continue
                scrubbed.update(spans)
                writer.add(document, signals)
                counts.add(document, signals)
            done += len(chunk)
            count = len(verdicts.step_N)
            _progress(run, count, 1 / 2 + done / count / 2)
    return counts, scrubbed


def _progress(run: RunDir, count: int, share: float) -> None:
    """How far the run is, in documents of the corpus: half of it is to compare, half to write."""
    run.progress(round(share * count), count, "documents")


def _kept_rows(folder: Path, is_kept_N: np.ndarray) -> Iterator[tuple[Document, dict[str, Any]]]:
    for place, row in enumerate(rows_read(folder)):
        if is_kept_N[place]:
            yield row


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


def _index_write(run: RunDir, config: CleanCorpusConfig, scratch: Path) -> Path | None:
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


def _report_write(run: RunDir, verdicts: Verdicts, found: list[dict[str, Any]]) -> None:
    """removed.parquet: place, step and reason of what was dropped; contamination.jsonl."""
    folder = run.output("report")
    dropped = np.flatnonzero(verdicts.step_N != _KEPT)
    table = pa.table(
        {
            "place": dropped,
            "step": [verdicts.steps[step] for step in verdicts.step_N[dropped]],
            "because": [verdicts.because.get(place, "") for place in dropped.tolist()],
        },
        schema=_REPORT,
    )
    pq.write_table(table, folder / "removed.parquet", compression="zstd")
    with (folder / "contamination.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json_canonical(one) + "\n" for one in found)


def _funnel(verdicts: Verdicts, count: int) -> list[dict[str, Any]]:
    """Step by step: what each dropped of what was left, and what it would have dropped alone."""
    numbers = np.bincount(verdicts.step_N[verdicts.step_N != _KEPT], minlength=len(verdicts.steps))
    rows, left = [], count
    for step, dropped in zip(verdicts.steps, numbers.tolist(), strict=True):
        left -= dropped
        rows.append({"step": step, "dropped": dropped, "left": left, "alone": verdicts.alone[step]})
    return rows


def _result(
    config: CleanCorpusConfig,
    thresholds: dict[str, float],
    verdicts: Verdicts,
    count: int,
    counts: CorpusCounts,
    scrubbed: collections.Counter[str],
    groups: collections.Counter[int],
    found: list[dict[str, Any]],
    index: Path | None,
) -> dict[str, Any]:
    result = {
        "documents_before": count,
        **counts.result(),
        "funnel": _funnel(verdicts, count),
        "thresholds": [
            {
                "rule": name,
                "threshold": thresholds.get(name),
                "chinese": thresholds.get(f"{name}@{CHINESE}"),
            }
            for name in _rules_of(thresholds)
        ],
        "scrubbed": {kind: scrubbed[kind] for kind in pii.KINDS if scrubbed[kind]},
        "most_repeated": [
            {"place": "known" if place < 0 else place, "copies_dropped": copies}
            for place, copies in groups.most_common(20)
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


def _origin(folder: Path) -> dict[str, str]:
    """Source and licence as the corpus's first document has them."""
    first = next(documents_read(folder))
    return {"source": first.source, "licence": first.licence}


def _scratch(run: RunDir) -> Path:
    """An empty folder that goes away when the run succeeds."""
    folder = run.path / "checkpoints" / "clean"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    pandas_leave_out()
    program_run(main)
