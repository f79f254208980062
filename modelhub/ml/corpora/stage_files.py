"""What the stages of a program leave for one another, below RUN_DIR/stages/files."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhub.ml.configs import ConfigT, config_load
from modelhub.ml.corpora.documents import CorpusError, CorpusWriter
from modelhub.ml.corpora.signals import signals_schema
from modelhub.ml.records import json_canonical
from modelhub.ml.rundir import RunDir

FOLDER = "stages"  # of a run directory

Counts = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One shard of a corpus: what a task works on."""

    shard: Path
    documents: int
    start: int  # place of its first document in the corpus; of a known corpus -1
    number: int


class Plan:
    """What `prepare` has written down: the parts, and where each stage leaves what it finds."""

    def __init__(self, run: Path) -> None:
        """Raises FileNotFoundError where `prepare` has not been, CorpusError where config.json is
        not what it was then: half of the tasks would have gone by other settings."""
        self.run = run
        self.files = run / FOLDER / "files"
        facts = json.loads((self.files / "plan.json").read_text())
        described = json.loads((run / "config.json").read_text())
        if described != facts["described"]:
            raise CorpusError(
                f"config.json has changed since the stages began: remove {run.name}/{FOLDER} to "
                "begin anew"
            )
        self.config: dict[str, Any] = described["config"]
        self.shares: int = facts.get("shares", 0)
        self.stretches: int = facts.get("stretches", 0)
        self.sources: list[str] = facts.get("sources", [])
        self.parts = [
            Part(
                shard=Path(one["shard"]),
                documents=one["documents"],
                start=one["start"],
                number=number,
            )
            for number, one in enumerate(facts["parts"])
        ]
        self.index = self.files / "index" if facts.get("has_index") else None
        self.bad_words = self.files / "bad_words" if facts.get("has_bad_words") else None

    @staticmethod
    def write(run: Path, parts: Sequence[tuple[Path, int, int]], **facts: Any) -> None:
        """parts: (shard, documents, start) of each."""
        told = [
            {"shard": str(shard), "documents": count, "start": start}
            for shard, count, start in parts
        ]
        described = json.loads((run / "config.json").read_text())
        json_replace(
            run / FOLDER / "files" / "plan.json", {"parts": told, "described": described} | facts
        )

    def load(self, cls: type[ConfigT]) -> ConfigT:
        return config_load(cls, self.config)

    @property
    def own(self) -> list[Part]:
        """The parts of the corpus that is cleaned."""
        return [part for part in self.parts if part.start >= 0]

    @property
    def count(self) -> int:
        return sum(part.documents for part in self.own)

    def examined(self, part: Part) -> Path:
        return self.files / "examined" / f"{part.number:05d}"


def files_begin(run: RunDir) -> Path:
    """The folder, without what an earlier attempt has left."""
    files = run.path / FOLDER / "files"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    return files


def part_writer(run: Path, part: int) -> CorpusWriter:
    """Writes a part's shards, in the place of those that a killed attempt has left."""
    folder = run / "outputs" / "corpus"
    for old in folder.glob(f"*-{part:05d}-*.parquet"):
        old.unlink()
    return CorpusWriter(folder, signals_schema(), part=part)


def json_replace(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json_canonical(value))
    temporary.replace(path)


def mine(units: Sequence[Any], rank: int, tasks: int) -> Sequence[Any]:
    """A task's share of what there is to do."""
    return units[rank::tasks]
