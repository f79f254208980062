"""The run directory: the whole contract between a program and whoever started it.

    RUN_DIR/ config.json    {"program", "config", "inputs": {role: {"path", "sha256"}}}
             inputs/        artifacts, by role
             log.txt        what the program printed
             metrics.jsonl  {"step", "values": {name: number}}, appended; {"rewound_to": step} where
                            training went back, and what was told of later steps is none of it
             progress.json  {"done", "total", "unit"}, replaced
             resolved.json  what settings left to the machine ("auto") stood for as the run began
             checkpoints/   step-00000012/ with a manifest each
             outputs/       folders that become artifacts
             result.json    written last, renamed into place: without it there was no success

Works by hand on a machine with no database: write config.json, then `python -m PROGRAM RUN_DIR`.
Started again on the same directory, a program resumes from its newest whole checkpoint.

Of several processes that train one model (modelhub/ml/parallel.py) every one opens the directory;
the first, rank 0, holds its lock and alone writes.
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from modelhub.ml.configs import (
    EXIT_DISK_FULL,
    EXIT_OUT_OF_MEMORY,
    EXIT_REFUSED,
    ConfigError,
    ConfigT,
    RefusedError,
    config_load,
    is_disk_full,
)
from modelhub.ml.hardware import AUTO, bfloat16_multiplies, dtype_resolve
from modelhub.ml.manifest import (
    MANIFEST_NAME,
    IntegrityError,
    files_changed,
    folder_sync,
    manifest_verify,
    manifest_write,
    path_sync,
)
from modelhub.ml.progress_bar import ProgressBar
from modelhub.ml.records import json_canonical
from modelhub.ml.sources import sources_sha256

RESULT_NAME = "result.json"
RESOLVED_NAME = "resolved.json"
_KEPT_CHECKPOINTS = 2
_PR_SET_PDEATHSIG = 1
_LOCK_WAIT_S = 20.0
_SLOW_DTYPE_NOTE = (
    "note: this processor has no instructions for products in bfloat16; "
    "dtype float32 (or auto) is many times faster here"
)


class NotFinite(RefusedError):  # noqa: N818
    """A metric is NaN or infinite: the run stops and nothing of it is published."""


class RunDir:
    """One run, from inside the program. Opening it takes the directory's lock for the process."""

    def __init__(self, path: Path | str) -> None:
        """Raises FileNotFoundError without config.json, TimeoutError if another process has it."""
        self.path = Path(path).resolve()
        self._description = json.loads((self.path / "config.json").read_text())
        self._is_first = rank_given() == 0
        self._bar = ProgressBar()
        if not self._is_first:
            return
        self._lock = (self.path / "lock").open("w")
        self._lock_take()
        (self.path / "checkpoints").mkdir(exist_ok=True)
        (self.path / "outputs").mkdir(exist_ok=True)
        for orphan in (self.path / "checkpoints").glob(".tmp-*"):
            shutil.rmtree(orphan)
        self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
        if self._ends_within_a_line():
            self._metrics.write("\n")  # of a process that was killed as it wrote

    def _ends_within_a_line(self) -> bool:
        with (self.path / "metrics.jsonl").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            return size > 0 and file.read() != b"\n"

    def _lock_take(self) -> None:
        """Wait a little: a program whose worker was killed may still be on its way out."""
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process works in {self.path.name}") from None
                time.sleep(0.1)

    def config(self, cls: type[ConfigT]) -> ConfigT:
        """The configuration. Raises ConfigError if it is another program's or does not fit."""
        program = self._description.get("program")
        if program != cls.PROGRAM:
            raise ConfigError(f"this run is for program {program!r}, not {cls.PROGRAM!r}")
        return config_load(cls, {**self._description["config"], **self._resolved(cls)})

    def _resolved(self, cls: type[ConfigT]) -> dict[str, str]:
        """What settings left to the machine stand for, kept as they were when the run began.

        A run goes on in the dtype it began with, also on another machine.
        """
        if not any(field.name == "dtype" for field in dataclasses.fields(cls)):
            return {}
        asked = config_load(cls, self._description["config"]).dtype
        if asked == "bfloat16" and not bfloat16_multiplies() and self._is_first:
            print(_SLOW_DTYPE_NOTE, flush=True)
        if asked != AUTO:
            return {}
        if kept := self._kept():
            return kept
        resolved = {"dtype": dtype_resolve(asked)}
        if self._is_first:
            self._replace(RESOLVED_NAME, resolved)
            print(f"dtype: auto is {resolved['dtype']} here", flush=True)
        return resolved

    def input(self, role: str, beat: Callable[[], None] | None = None) -> Path:
        """The folder of an input artifact, every byte of it verified just now.

        beat: called all along, for it takes half an hour of half a terabyte. Raises KeyError for a
        role the run was not given, IntegrityError for a changed file.
        """
        given = self._description["inputs"].get(role)
        if given is None:
            raise KeyError(f"the run has no input {role!r}")
        folder = (self.path / str(given["path"])).resolve()
        try:
            manifest_verify(folder, given.get("sha256"), beat)
        except IntegrityError as error:
            raise IntegrityError(f"input {role}: {error}") from error
        return folder

    def has_input(self, role: str) -> bool:
        return role in self._description["inputs"]

    def input_roles(self) -> list[str]:
        return sorted(self._description["inputs"])

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        """Append numbers at a step. Raises NotFinite, naming the number, for NaN and infinities."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise NotFinite(f"{name} is {value} at step {step}")
        if not self._is_first:
            return
        line = {"step": step, "values": {name: float(value) for name, value in values.items()}}
        self._metrics.write(json_canonical(line) + "\n")
        self._metrics.flush()

    def rewound(self, step: int) -> None:
        """Say that training went back: the figures of later steps are of steps that are no more."""
        if self._is_first:
            self._metrics.write(json_canonical({"rewound_to": step}) + "\n")
            self._metrics.flush()

    def told(self, name: str, value: Any) -> None:
        """Keep a JSON file of the program's own in the directory, for whoever looks meanwhile."""
        if self._is_first:
            self._replace(name, value)

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far the run is, in its own unit ("prompts", "steps"); a bar in a terminal."""
        if self._is_first:
            self._replace("progress.json", {"done": done, "total": total, "unit": unit})
            self._bar.draw(done, total, unit)

    def checkpoint_publish(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a folder, then make it the checkpoint of `step`, whole or not at all.

        Every file is synced and listed in a manifest before the rename; the two newest are kept.
        Every rank calls `write`, which may gather what they share; but for the first rank's, what
        it leaves in the folder is thrown away.
        """
        if not self._is_first:
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder))
            return self.path / "checkpoints" / f"step-{step:08d}"
        final = self.path / "checkpoints" / f"step-{step:08d}"
        temporary = final.with_name(f".tmp-{step:08d}-{os.getpid()}")
        temporary.mkdir()
        write(temporary)
        manifest_write(temporary, with_tensors=False)  # training waits for it, and soon it is gone
        folder_sync(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        path_sync(final.parent)
        for old in sorted(final.parent.glob("step-*"))[:-_KEPT_CHECKPOINTS]:
            shutil.rmtree(old)
        return final

    def checkpoint_latest(self) -> tuple[int, Path] | None:
        """The newest checkpoint whose every byte is as written: (step, folder), or None."""
        for folder in sorted((self.path / "checkpoints").glob("step-*"), reverse=True):
            try:
                manifest_verify(folder)
            except IntegrityError as error:
                print(f"checkpoint {folder.name} passed over: {error}", flush=True)
                continue
            return int(folder.name.removeprefix("step-")), folder
        return None

    def output(self, role: str) -> Path:
        """An empty folder for an output artifact. Of several processes the first alone has one."""
        if not self._is_first:
            raise RuntimeError(f"output {role} was asked for by rank {rank_given()}")
        folder = self.path / "outputs" / role
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def succeed(
        self,
        *,
        outputs: Mapping[str, str],
        result: Mapping[str, Any],
        program: str = "",
        stages: Mapping[str, str] | None = None,
        files: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Declare the run done: outputs as role → artifact kind, and facts about it as JSON.

        Of several processes the first does. `program`: the module that has made the outputs, where
        this process was started as another. Of outputs that other processes have made, `stages`:
        the sha256 of what each stage has left, kept with how they were made; and `files`: of a role
        its files as whoever wrote them lists them, as in a manifest. Raises IntegrityError naming
        one that is another by now.
        """
        if not self._is_first:
            raise RuntimeError(f"the run was declared done by rank {rank_given()}")
        described = {}
        origin = self._origin(program) | ({"stages": dict(stages)} if stages else {})
        for role, kind in outputs.items():
            folder = self.path / "outputs" / role
            sha256 = manifest_write(folder, origin)
            folder_sync(folder)
            if files and role in files:
                _as_written_check(folder, files[role])
            described[role] = {"path": f"outputs/{role}", "kind": kind, "sha256": sha256}
        self._replace(RESULT_NAME, {"outputs": described, "result": dict(result)})
        shutil.rmtree(self.path / "checkpoints")

    def _kept(self) -> dict[str, str]:
        kept = self.path / RESOLVED_NAME
        return dict(json.loads(kept.read_text())) if kept.exists() else {}

    def _origin(self, program: str) -> dict[str, Any]:
        """How this run's outputs are made: nothing that differs when it is resumed or repeated."""
        program = program or getattr(sys.modules["__main__"].__spec__, "name", "")
        return {
            "program": self._description["program"],
            "config": {**self._description["config"], **self._kept()},
            "inputs": {
                role: given.get("sha256", "") for role, given in self._description["inputs"].items()
            },
            "sources": sources_sha256(program),
        }

    def _replace(self, name: str, value: Any) -> None:
        temporary = self.path / f".{name}.tmp-{os.getpid()}"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json_canonical(value))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)
        path_sync(self.path)


def _as_written_check(folder: Path, files: Mapping[str, Any]) -> None:
    found = json.loads((folder / MANIFEST_NAME).read_text())["files"]
    for name in files_changed(files, found):
        is_known = name in files and name in found
        how = "has changed since it was written" if is_known else "is missing, or was never written"
        raise IntegrityError(f"output {folder.name}: {name} {how}")


def rank_given() -> int:
    """This process's number among those that work on one run, from its launcher; 0 alone."""
    return int(os.environ.get("RANK", "0")) if os.environ.get("WORLD_SIZE", "1") != "1" else 0


def program_run(main: Callable[[RunDir], None]) -> None:
    """Run `main` on the directory named on the command line, as every program does.

    SIGTERM ends the process with status 143, after `finally` blocks; a refusal of what it was given
    with 2 and one line, running out of memory with 3, a full disk with 5, any other exception with
    1. The program dies with the process that started it (the worker, or its launcher, which dies
    with the worker), so that no orphan works on a directory another attempt has taken over. A run
    that already has a result does nothing.
    """

    def terminated(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, terminated)
    parent_follow()
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: python -m {main.__module__} RUN_DIR")
    try:
        run = RunDir(sys.argv[1])
        if (run.path / RESULT_NAME).exists():
            print("this run already has its result")
            return
        main(run)
    except RefusedError as error:
        print(f"refused: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_REFUSED) from error
    except Exception as error:
        if is_disk_full(error):
            with contextlib.suppress(OSError):  # the log is on that disk, as a rule
                traceback.print_exc()
                print(f"disk full: {error}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_DISK_FULL) from error
        if not _is_out_of_memory(error):
            raise
        traceback.print_exc()
        print(f"out of memory: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_OUT_OF_MEMORY) from error


def parent_follow() -> None:
    """Die when the process that RONDO_PARENT_PID names, which started this one, dies. Linux.

    Raises SystemExit if it has died already.
    """
    parent = os.environ.get("RONDO_PARENT_PID")
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit("the process that started this program is gone")


def _is_out_of_memory(error: Exception) -> bool:
    """Python's own, torch's on an accelerator, and torch's on the CPU: a plain RuntimeError."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    )
