"""Bringing a corpus in as stages (stages.py): a stretch of the files by each task."""

import json
import shutil
from pathlib import Path

from modelhub.ml.corpora.configs import ImportCorpusConfig
from modelhub.ml.corpora.import_corpus import CorpusCounts, document_chunks
from modelhub.ml.corpora.locations import location_sources
from modelhub.ml.corpora.readers import SourceError, source_documents
from modelhub.ml.corpora.signals import documents_measure
from modelhub.ml.corpora.stage_files import (
    Counts,
    Plan,
    files_begin,
    is_prepared,
    json_replace,
    made_whole,
    mine,
    part_writer,
    parts_sha256,
    shards_gather,
)
from modelhub.ml.rundir import RunDir


def prepare(run_path: Path, _rank: int, tasks: int) -> Counts:
    """As many stretches of the files as there are tasks: each has shards of its own."""
    if is_prepared(run_path):
        return {}
    run = RunDir(run_path)
    config = run.config(ImportCorpusConfig)
    files_begin(run)
    sources = location_sources(config.locations)
    run.output("corpus")
    names = [one.name for one in sources]
    Plan.write(run.path, [], sources=names, stretches=min(tasks, len(sources)))
    return {"files": len(sources)}


def measure(run: Path, rank: int, tasks: int) -> Counts:
    """The documents of a stretch of the files, every signal measured.

    Raises SourceError if others lie there than `prepare` saw: the stretches would be cut elsewhere.
    """
    plan = Plan(run)
    config = plan.load(ImportCorpusConfig)
    sources = location_sources(config.locations)
    if [one.name for one in sources] != plan.sources:
        raise SourceError(
            f"{', '.join(config.locations)}: other files than when the stages began "
            f"({len(plan.sources)} then, {len(sources)} now)"
        )
    measured = 0
    for stretch in mine(range(plan.stretches), rank, tasks):
        if _measured(plan, stretch).exists():
            continue
        start, end = (len(sources) * one // plan.stretches for one in (stretch, stretch + 1))
        documents = (
            one for source in sources[start:end] for one in source_documents(source, config)
        )
        counts = CorpusCounts()
        with made_whole(_measured(plan, stretch)) as folder:
            with part_writer(folder, stretch) as writer:
                for chunk in document_chunks(documents):
                    for document, signals in documents_measure(chunk):
                        writer.add(document, signals)
                        counts.add(document, signals)
            json_replace(folder / "told.json", counts.told())
        measured += counts.documents
    return {"documents": measured}


def finish(run_path: Path, _rank: int, _tasks: int) -> Counts:
    plan = Plan(run_path)
    run = RunDir(run_path)
    config = run.config(ImportCorpusConfig)
    counts = CorpusCounts()
    parts = [_measured(plan, stretch) for stretch in range(plan.stretches)]
    for part in parts:
        counts.add_told(json.loads((part / "told.json").read_text()))
    if not counts.documents:
        raise SourceError(f"{', '.join(config.locations)}: holds no document")
    files = len(plan.sources)
    run.progress(files, files, "files")
    run.succeed(
        outputs={"corpus": "corpus"},
        result={"source": config.source, "licence": config.licence, "files": files}
        | counts.result(),
        program=__name__,
        stages={"measure": parts_sha256(parts)},
        files={"corpus": shards_gather(run_path, parts)},
    )
    shutil.rmtree(plan.files)
    return {"documents": counts.documents}


def _measured(plan: Plan, stretch: int) -> Path:
    return plan.files / "measured" / f"{stretch:05d}"
