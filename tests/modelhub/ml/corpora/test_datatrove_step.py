"""Our step in a datatrove pipeline gives the verdicts of a cleaning on one machine."""

from pathlib import Path

import pytest

pytest.importorskip("datatrove", reason="the scale extra is not installed")

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import ParquetReader

from modelhub.ml.corpora.clean_corpus import main
from modelhub.ml.corpora.datatrove_step import SignalStep
from modelhub.ml.rundir import RunDir
from tests.modelhub.ml.corpora.corpus import corpus_write
from tests.modelhub.ml.corpora.test_clean_corpus import CHINESE, OTHER, STORY
from tests.modelhub.ml.runs import run_write


def test_one_machine_and_a_pipeline_drop_the_same(tmp_path: Path) -> None:
    texts = [STORY, OTHER, CHINESE, "Too short.", "buy now " * 60, f"{OTHER} {{x}}", OTHER[:150]]
    corpus = corpus_write(tmp_path / "corpus", texts)
    settings = {"workers": 1, "exact_duplicates": False, "near_duplicates": False}
    run = run_write(tmp_path / "run", "clean_corpus", settings, corpus=corpus)
    main(RunDir(run))
    removed = pq.read_table(run / "outputs" / "report" / "removed.parquet")["place"].to_pylist()

    reader = ParquetReader(str(corpus), glob_pattern="documents-*.parquet")
    kept: list[str] = []

    def collect(data, rank: int = 0, world_size: int = 1):
        for document in data:
            kept.append(document.id)
            yield document

    LocalPipelineExecutor(
        [reader, SignalStep(), collect],
        tasks=1,
        logging_dir=str(tmp_path / "logs"),
    ).run()
    assert removed
    assert kept == [f"d{i}" for i in range(len(texts)) if i not in removed]


def test_signals_become_metadata() -> None:
    (document,) = SignalStep({}).run([Document(text=STORY, id="a")])
    assert document.metadata["language"] == "en"
    assert document.metadata["words"] == 93
