"""Our passes as steps of datatrove's pipelines, for its executors (extra `scale`).

`StageStep` is one stage of an import or a cleaning (stages.py): a pipeline by itself, whose tasks
meet in the run directory. many_machines.py lines the stages up.

`SignalStep` measures documents that another pipeline reads, and with thresholds drops what the
rules say, as a cleaning does; duplicates need all documents, so they are no step of that kind:

    from datatrove.executor import SlurmPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import JsonlWriter

    SlurmPipelineExecutor(
        pipeline=[ParquetReader("s3://…/documents"), SignalStep(), JsonlWriter("s3://…/kept")],
        tasks=1000, time="10:00:00", partition="cpu", job_name="signals",
    ).run()

Each document gets its signals as metadata; those that a rule drops go on to nobody, and are counted
under the rule's name.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from modelhub.ml.corpora.import_corpus import chunks_cut
from modelhub.ml.corpora.rules import CHINESE, FAMILIES, RULES, threshold_for, thresholds_of
from modelhub.ml.corpora.signals import COUNTS, texts_measure
from modelhub.ml.corpora.stages import stage_run


class StageStep(PipelineStep):
    """A task of one stage, on a run directory. Reads and yields no document: files are between."""

    type = "Stage"

    def __init__(self, run: str, stage: str, tasks: int) -> None:
        """`run`: the same folder on every machine. `tasks`: of each stage of many."""
        self.name = stage
        super().__init__()
        self.run_path, self.stage, self.tasks = run, stage, tasks

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        with self.track_time("task"):
            counts = stage_run(Path(self.run_path), self.stage, rank, self.tasks)
        for name, count in counts.items():
            self.stat_update(name, value=count, unit="task")
        yield from data or ()


class SignalStep(PipelineStep):
    """Measures every document; with thresholds, drops what they say."""

    name = "Rondo signals"
    type = "Filter"

    def __init__(self, thresholds: Mapping[str, float] | None = None) -> None:
        """`thresholds` as `thresholds_of` gives them; none given: those published. {}: no rule."""
        super().__init__()
        self.thresholds = thresholds_of(FAMILIES) if thresholds is None else dict(thresholds)

    def run(
        self, data: Iterable[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        for chunk in chunks_cut(data, lambda one: len(one.text)):
            with self.track_time("chunk"):
                measured = texts_measure([document.text for document in chunk])
            for document, signals in zip(chunk, measured, strict=True):
                dropped_by = first_drop(signals, self.thresholds)
                document.metadata |= signals
                if dropped_by:
                    self.stat_update(f"dropped_{dropped_by}")
                else:
                    self.stat_update("kept")
                    yield document


def first_drop(signals: Mapping[str, Any], thresholds: Mapping[str, float]) -> str:
    """The first rule that drops a document, or "".

    Compared in the precision that signals are stored in, so that the verdict is the stored one's.
    """
    is_chinese = signals["language"] == CHINESE
    for name, rule in RULES.items():
        threshold = threshold_for(thresholds, name, is_chinese=is_chinese)
        if threshold is None:
            continue
        kind = float if rule.signal in COUNTS else np.float32
        if rule.drops(float(kind(signals[rule.signal])), float(kind(threshold))):
            return name
    return ""
