"""What the stages of a program leave for one another, below RUN_DIR/stages/files."""

import contextlib
import errno
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhub.ml.configs import ConfigT, config_load
from modelhub.ml.corpora.documents import CorpusError, CorpusWriter
from modelhub.ml.corpora.signals import signals_schema
from modelhub.ml.manifest import (
    MANIFEST_NAME,
    files_changed,
    folder_sync,
    manifest_sha256,
    manifest_write,
)
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

    @property
    def decided(self) -> Path:
        return self.files / "decided"

    def examined(self, part: Part) -> Path:
        return self.files / "examined" / f"{part.number:05d}"


def is_prepared(run: Path) -> bool:
    """Whether `prepare` is done: asked again it has nothing to do, and what other tasks have made
    since stays. Raises CorpusError where it was done with other settings."""
    try:
        Plan(run)
    except FileNotFoundError:
        return False
    return True


def files_begin(run: RunDir) -> Path:
    """The folder, without what a killed `prepare` has left."""
    files = run.path / FOLDER / "files"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    return files


@contextlib.contextmanager
def made_whole(final: Path) -> Iterator[Path]:
    """A folder to fill, which is `final` with a manifest when the context ends: whole, or not.

    Every attempt at a part fills one of its own, on whatever machine, and the first that is done
    stays. One that is done later must have made the same: raises CorpusError naming what differs,
    and leaves what is there.
    """
    final.parent.mkdir(exist_ok=True)
    temporary = _beside(final)
    temporary.mkdir()
    try:
        yield temporary
        manifest_write(temporary)
        folder_sync(temporary)
        try:
            temporary.rename(final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            _same_check(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _same_check(later: Path, final: Path) -> None:
    changed = files_changed(_files_of(later), _files_of(final))
    if changed:
        begun_by = next((one for one in final.parents if one.name == FOLDER), final.parent)
        raise CorpusError(
            f"{final} was made twice, and {', '.join(changed)} came out otherwise: the machines "
            "must have the same version of this project and of its packages. See that they have, "
            f"and remove {begun_by} to begin anew"
        )


def _beside(path: Path) -> Path:
    """A name that no other attempt takes: process numbers repeat from machine to machine."""
    return path.with_name(f".{path.name}-{uuid.uuid4().hex}")


def _files_of(part: Path) -> dict[str, Any]:
    return dict(json.loads((part / MANIFEST_NAME).read_text())["files"])


def parts_sha256(parts: Iterable[Path]) -> str:
    """One checksum of what a stage has left: of the parts' names and the sha256 of each."""
    digest = hashlib.sha256()
    for part in parts:
        sha256 = manifest_sha256(json.loads((part / MANIFEST_NAME).read_text()))
        digest.update(f"{part.name} {sha256}\n".encode())
    return digest.hexdigest()


def part_writer(folder: Path, part: int) -> CorpusWriter:
    """Writes a part's shards, under names by which they stand in the order of the parts."""
    return CorpusWriter(folder, signals_schema(), part=part)


def shards_gather(run: Path, parts: Iterable[Path]) -> dict[str, Any]:
    """Bring every part's shards into the output; an attempt that was killed goes on.

    Returns them as a manifest lists files: {name: {"sha256", "bytes"}}, as the parts have told.
    """
    folder = run / "outputs" / "corpus"
    listed: dict[str, Any] = {}
    for part in parts:
        for shard in part.glob("*.parquet"):
            with contextlib.suppress(FileNotFoundError):  # another attempt was quicker
                shard.rename(folder / shard.name)
        told = _files_of(part)
        listed |= {name: one for name, one in told.items() if name.endswith(".parquet")}
    return listed


def json_replace(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    temporary = _beside(path)
    temporary.write_text(json_canonical(value))
    temporary.replace(path)


def mine(units: Sequence[Any], rank: int, tasks: int) -> Sequence[Any]:
    """A task's share of what there is to do."""
    return units[rank::tasks]
