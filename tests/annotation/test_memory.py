"""Imports, freezing and exports stream: what they hold does not grow with what they carry."""

import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from annotation import parquet
from annotation.exports import dataset_export_stream
from annotation.models import PreferenceDataset, Project, Prompt
from annotation.records import RankingRecord
from annotation.services.prompts import prompts_import
from modelhub.ml.records import records_write
from modelhub.models import Artifact
from modelhub.services.artifacts import artifact_store
from tests.builders import make_project

pytestmark = pytest.mark.django_db
MEGABYTE = 1 << 20


def peak_of(work: Callable[[], object]) -> int:
    """The most bytes that Python held at once beyond what it held before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def rankings(count: int) -> Iterator[RankingRecord]:
    for number in range(count):
        texts = {f"{number:08d}{c}": f"{c} {number} " + "word " * 400 for c in "abc"}
        yield RankingRecord(
            id=f"{number:032d}",
            prompt_id=f"{number:032d}",
            messages=[{"role": "user", "content": f"Question {number}?"}],
            split="train",
            tags=[],
            batch=None,
            candidates=[
                {
                    "id": uid,
                    "text": text,
                    "finish_reason": "stop",
                    "token_count": 400,
                    "model_version": None,
                }
                for uid, text in texts.items()
            ],
            tiers=[[uid] for uid in texts],
            unacceptable=[],
            annotator="a",
            is_simulated=True,
            shown_order=list(texts),
            active_s=1.0,
            rationale="",
            guideline=None,
        )


@pytest.fixture
def large(project: Project, tmp_path: Path) -> PreferenceDataset:
    """About 12 MB of rankings, 36 MB once they are pairs."""
    folder = tmp_path / "rows"
    folder.mkdir()
    records_write(folder / "rankings.jsonl", rankings(2000))
    artifact = artifact_store(folder=folder, kind=Artifact.Kind.RANKINGS)
    assert artifact.size_bytes > 12 * MEGABYTE
    return PreferenceDataset.objects.create(
        project=project, number=1, query={}, counts={}, artifact=artifact
    )


@pytest.mark.parametrize(("format", "most"), [("jsonl", 3), ("parquet", 16)])
def test_an_export_holds_little_of_a_large_dataset(
    large: PreferenceDataset, format: str, most: int
) -> None:
    """Parquet holds two row groups of a thousand pairs, each about 4 MB of text."""
    # What Arrow loads at its first use is not what is measured.
    none = dataset_export_stream(dataset=large, layout="trl", format=format, split="held_out")
    assert b"".join(none) or format == "jsonl"
    list(parquet.row_groups_write(io.BytesIO(), [{"prompt": "a"}], layout="trl-text"))
    sent = 0

    def export() -> None:
        nonlocal sent
        for block in dataset_export_stream(dataset=large, layout="trl-text", format=format):
            sent += len(block)

    assert peak_of(export) < most * MEGABYTE
    assert sent > (24 * MEGABYTE if format == "jsonl" else 1000)


def test_an_import_holds_little_of_a_large_file(project: Project) -> None:
    words = "word " * 500

    def lines() -> Iterator[bytes]:
        for number in range(3000):
            yield json.dumps({"prompt": f"{number} {words}"}).encode() + b"\n"

    make_project("warm")  # what the first query loads is not what is measured
    peak = peak_of(lambda: prompts_import(project=project, lines=lines(), name="large.jsonl"))
    assert Prompt.objects.count() == 3000
    assert peak < 6 * MEGABYTE  # of a file of 7.5 MB
