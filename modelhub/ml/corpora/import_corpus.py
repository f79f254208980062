"""Bring texts into the hub as a corpus, every signal measured on the way.

    python -m modelhub.ml.corpora.import_corpus RUN_DIR

A stream from the files to the shards: memory is that of a few chunks, whatever the corpus is. A bad
file ends the run, named with line and byte, and no corpus comes of it.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from modelhub.ml.corpora.configs import ImportCorpusConfig
from modelhub.ml.corpora.documents import CorpusWriter, Document
from modelhub.ml.corpora.locations import location_sources
from modelhub.ml.corpora.readers import Source, SourceError, source_documents
from modelhub.ml.corpora.signals import documents_measure, signals_schema
from modelhub.ml.corpora.workers import chunks_map, pandas_leave_out, workers_given
from modelhub.ml.rundir import RunDir, program_run

CHUNK_DOCUMENTS = 256
CHUNK_CHARACTERS = 1_000_000
_CHUNKS_A_METRIC = 10

ItemT = TypeVar("ItemT")


def main(run: RunDir) -> None:
    config = run.config(ImportCorpusConfig)
    sources = location_sources(config.locations)
    print(f"{len(sources)} files", flush=True)
    documents = _documents(run, sources, config)
    counts = CorpusCounts()
    with CorpusWriter(run.output("corpus"), signals_schema()) as writer:
        measured = chunks_map(
            documents_measure, document_chunks(documents), workers=workers_given(config.workers)
        )
        for number, chunk in enumerate(measured):
            for document, signals in chunk:
                writer.add(document, signals)
                counts.add(document, signals)
            if number % _CHUNKS_A_METRIC == 0:
                run.metric(number, {"documents": counts.documents, "megabytes": counts.bytes / 1e6})
    if not counts.documents:
        raise SourceError(f"{', '.join(config.locations)}: holds no document")
    run.progress(len(sources), len(sources), "files")
    run.succeed(
        outputs={"corpus": "corpus"},
        result={"source": config.source, "licence": config.licence, "files": len(sources)}
        | counts.result(),
    )


def _documents(
    run: RunDir, sources: list[Source], config: ImportCorpusConfig
) -> Iterator[Document]:
    for number, source in enumerate(sources):
        run.progress(number, len(sources), "files")
        yield from source_documents(source, config)


def document_chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Lists of documents for a process each: enough of them to be worth sending, no more."""
    return chunks_cut(documents, lambda one: len(one.text))


def chunks_cut(items: Iterable[ItemT], characters: Callable[[ItemT], int]) -> Iterator[list[ItemT]]:
    """Lists of items that have CHUNK_CHARACTERS or are CHUNK_DOCUMENTS, whichever comes first."""
    chunk: list[ItemT] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += characters(item)
        if len(chunk) >= CHUNK_DOCUMENTS or held >= CHUNK_CHARACTERS:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


class CorpusCounts:
    """What a corpus amounts to, in all and by language."""

    def __init__(self) -> None:
        self.documents = self.bytes = self.characters = self.words = 0
        self._languages: dict[str, collections.Counter[str]] = {}

    def add(self, document: Document, signals: Mapping[str, Any]) -> None:
        self.documents += 1
        self.bytes += signals["bytes"]
        self.characters += signals["characters"]
        self.words += signals["words"]
        of_language = self._languages.setdefault(document.language, collections.Counter())
        of_language.update(documents=1, characters=signals["characters"], words=signals["words"])

    def told(self) -> dict[str, Any]:
        """All of it as JSON, for `add_told` of another."""
        return {
            "totals": [self.documents, self.bytes, self.characters, self.words],
            "languages": list(self._languages.items()),
        }

    def add_told(self, told: Mapping[str, Any]) -> None:
        """Add what another has counted of documents behind these."""
        documents, size, characters, words = told["totals"]
        self.documents += documents
        self.bytes += size
        self.characters += characters
        self.words += words
        for language, counts in told["languages"]:
            self._languages.setdefault(language, collections.Counter()).update(counts)

    def result(self) -> dict[str, Any]:
        by_size = sorted(self._languages.items(), key=lambda one: -one[1]["characters"])
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "characters": self.characters,
            "words": self.words,
            "languages": [
                {"language": code or "not known", **{k: counts[k] for k in sorted(counts)}}
                for code, counts in by_size
            ],
        }


if __name__ == "__main__":
    pandas_leave_out()
    program_run(main)
