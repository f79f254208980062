"""Clean a corpus: rules, duplicates, contamination, personal data → a new corpus and a report.

    python -m modelhub.ml.corpora.clean_corpus RUN_DIR

Two passes over the shards. The first decides: what a threshold drops is read off the stored
signals; the texts left are hashed, signed and held against the evaluation sets by several
processes. Between them near-duplicates are found, of the corpora already had first. The second
writes what is kept, personal data replaced. Nothing is random but the seeded MinHash: the same
settings over the same corpus give the same bytes, by any number of processes.

In memory: of each document a few bytes of verdict and its exact hash; the signatures lie on disk.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modelhub.ml.corpora import cleaning, contamination, duplicates
from modelhub.ml.corpora.configs import CleanCorpusConfig
from modelhub.ml.corpora.documents import (
    CorpusError,
    CorpusWriter,
    Document,
    documents_count,
    documents_read,
    rows_read,
    signals_read,
)
from modelhub.ml.corpora.import_corpus import document_chunks
from modelhub.ml.corpora.rules import thresholds_of
from modelhub.ml.corpora.signals import signals_schema
from modelhub.ml.corpora.workers import chunks_map, pandas_leave_out, workers_given
from modelhub.ml.rundir import RunDir, program_run


def main(run: RunDir) -> None:
    config = run.config(CleanCorpusConfig)
    scratch = _scratch(run)
    folder = run.input("corpus")
    known = [run.input(role) for role in run.input_roles() if role.startswith("known_")]
    cleaning.signals_check(folder)
    index = cleaning.index_write(run, config, scratch)
    bad_words = cleaning.word_list_write(run, scratch)
    count = documents_count(folder)
    if not count:
        raise CorpusError("the corpus has no documents")

    thresholds = thresholds_of(config.families, config.thresholds)
    verdicts = cleaning.Verdicts.of(count, config, thresholds, bad_words=bad_words)
    cleaning.rules_drop(verdicts, signals_read(folder), config, thresholds)
    print(f"{len(verdicts.kept())} of {count} documents are left by the rules", flush=True)

    signatures = scratch / "signatures"
    examine = partial(cleaning.texts_examine, config=config, index=index, bad_words=bad_words)
    exact_N2, hits, known_count = _texts_examine(
        run,
        folder,
        known,
        examine,
        verdicts,
        signatures,
        workers=workers_given(config.workers),
    )
    places = np.concatenate([-1 - np.arange(known_count), verdicts.kept()])
    groups = cleaning.duplicates_drop(
        verdicts,
        places,
        duplicates.exact_duplicates(exact_N2) if config.exact_duplicates else None,
        _near_firsts(signatures, len(places), config) if config.near_duplicates else None,
    )
    found = _contamination_find(folder, hits, config, index, verdicts)

    written = _kept_write(run, folder, config, verdicts)
    if not written.counts.documents:
        raise CorpusError(
            f"nothing is left of {count} documents: {cleaning.funnel(verdicts, count)}"
        )
    cleaning.report_write(run.output("report"), verdicts, found)
    most = groups.most_common(cleaning.REPEATED_SHOWN)
    run.succeed(
        outputs={"corpus": "corpus", "report": "evaluation"},
        result=cleaning.origin(folder)
        | cleaning.result_make(config, thresholds, verdicts, count, written, most, found, index),
    )


def _texts_examine(
    run: RunDir,
    folder: Path,
    known: list[Path],
    examine: Callable[[list[str]], list[cleaning.Examined]],
    verdicts: cleaning.Verdicts,
    signatures: Path,
    *,
    workers: int,
) -> tuple[np.ndarray, list[tuple[int, list[contamination.Hit]]], int]:
    """Look at each text of the known corpora and of those kept so far; bad words go here.

    Returns the exact hashes of what is left, shape (N, 2); place and hits of those that have any;
    and how many are known. Their signatures are written to a file, one after another.
    """
    known_count = sum(map(documents_count, known))
    is_kept_N = verdicts.step_N == cleaning.KEPT

    def documents() -> Iterator[Document]:
        for one in known:
            yield from documents_read(one)
        for place, document in enumerate(documents_read(folder)):
            if is_kept_N[place]:
                yield document

    places = verdicts.kept()
    chunks = ([one.text for one in chunk] for chunk in document_chunks(documents()))
    total = known_count + len(places)
    exact = bytearray()
    hits: list[tuple[int, list[contamination.Hit]]] = []
    done = 0
    with signatures.open("wb") as file:
        for chunk in chunks_map(examine, chunks, workers=workers):
            for one in chunk:
                place = int(places[done - known_count]) if done >= known_count else -1
                done += 1
                if place >= 0 and one.bad:
                    verdicts.alone[cleaning.WORDS] += 1
                    verdicts.drop(place, cleaning.WORDS, one.bad)
                    continue
                exact += one.exact
                if one.hits and place >= 0:
                    hits.append((place, one.hits))
                file.write(one.signature.tobytes())
            _progress(run, len(verdicts.step_N), done / total / 2)
    return np.frombuffer(exact, np.uint64).reshape(-1, 2), hits, known_count


def _near_firsts(signatures: Path, count: int, config: CleanCorpusConfig) -> np.ndarray | None:
    if not count:
        return None
    hashes = config.near_bands * config.near_rows
    return duplicates.near_duplicates(
        np.memmap(signatures, np.uint32, "r", shape=(count, hashes)),
        bands=config.near_bands,
        rows=config.near_rows,
        similarity_min=config.near_similarity_min,
    )


def _contamination_find(
    folder: Path,
    hits: list[tuple[int, list[contamination.Hit]]],
    config: CleanCorpusConfig,
    index: Path | None,
    verdicts: cleaning.Verdicts,
) -> list[dict[str, Any]]:
    """Drop, or only report, documents that share words with evaluation items."""
    phrases = cleaning.set_phrases((one for _, one in hits), config.contamination_documents_max)
    telling = cleaning.hits_telling(hits, phrases)
    if index is None or not telling:
        return []
    found = []
    for place, document in enumerate(documents_read(folder)):
        if place not in telling:
            continue
        reports = cleaning.contamination_reports(index, place, document, telling[place])
        found += reports
        verdicts.alone[cleaning.CONTAMINATED] += 1
        if config.contamination_drop:
            verdicts.drop(place, cleaning.CONTAMINATED, cleaning.contamination_because(reports))
    return found


def _kept_write(
    run: RunDir, folder: Path, config: CleanCorpusConfig, verdicts: cleaning.Verdicts
) -> cleaning.Written:
    """Write the kept documents. One of which no line is left is dropped here, as the last step."""
    written = cleaning.Written()
    places, count = verdicts.kept().tolist(), len(verdicts.step_N)
    done = count - len(places)
    rows = _kept_rows(folder, verdicts.step_N == cleaning.KEPT)
    workers = workers_given(config.workers)
    with CorpusWriter(run.output("corpus"), signals_schema()) as writer:
        for looked_at in cleaning.kept_write(
            rows, places, writer, written, config, workers=workers
        ):
            done += looked_at
            _progress(run, count, 1 / 2 + done / count / 2)
    for place in written.emptied:
        verdicts.alone[cleaning.EMPTIED] += 1
        verdicts.drop(place, cleaning.EMPTIED)
    return written


def _progress(run: RunDir, count: int, share: float) -> None:
    """How far the run is, in documents of the corpus: half of it is to compare, half to write."""
    run.progress(round(share * count), count, "documents")


def _kept_rows(folder: Path, is_kept_N: np.ndarray) -> Iterator[tuple[Document, dict[str, Any]]]:
    for place, row in enumerate(rows_read(folder)):
        if is_kept_N[place]:
            yield row


def _scratch(run: RunDir) -> Path:
    """An empty folder that goes away when the run succeeds."""
    folder = run.path / "checkpoints" / "clean"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    pandas_leave_out()
    program_run(main)
