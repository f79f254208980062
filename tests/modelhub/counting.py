"""A program for tests: counts to `steps`, checkpointing each one, and misbehaves as it is told.

The result is the sum of a seeded sequence, so that a resumed run can be compared with a straight
one.
"""

import errno
import functools
import os
import random
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from modelhub.ml.configs import require
from modelhub.ml.rundir import RunDir, program_run


@dataclass(frozen=True, kw_only=True)
class CountingConfig:
    PROGRAM: ClassVar[str] = "counting"
    steps: int = 5
    seed: int = 0
    step_s: float = 0.0
    # "kill", "kill once", "raise", "memory", "nan", "no result", "stubborn", "file limit", "sync",
    # "memory eater"
    misbehaviour: str = ""
    at_step: int = 3
    padding: int = 0  # bytes of every file written, beside what it says

    def __post_init__(self) -> None:
        require(self.steps > 0, self.PROGRAM, "steps", self.steps, "more than 0")


def main(run: RunDir) -> None:
    config = run.config(CountingConfig)
    if config.misbehaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start, total = 0, 0.0
    if run.has_input("start"):
        total = float((run.input("start") / "total.txt").read_text())
    newest = run.checkpoint_latest()
    if newest is not None:
        start, folder = newest
        total = float((folder / "total.txt").read_text())
        print(f"resumed after step {start}", flush=True)
    print("environment", sorted(os.environ), flush=True)
    for step in range(start + 1, config.steps + 1):
        if step == config.at_step:
            misbehave(run, config.misbehaviour)
        total += random.Random(f"{config.seed} {step}").random()
        time.sleep(config.step_s)
        run.metric(step, {"total": total})
        run.progress(step, config.steps, "steps")
        padded = functools.partial(total_write, total=total, padding=config.padding)
        run.checkpoint_publish(step, padded)
    if config.misbehaviour == "no result":
        return
    total_write(run.output("demonstrations"), total, padding=config.padding)
    run.succeed(outputs={"demonstrations": "demonstrations"}, result={"total": total})


def total_write(folder: Path, total: float, *, padding: int = 0) -> None:
    (folder / "total.txt").write_text(repr(total) + " " * padding)


def misbehave(run: RunDir, how: str) -> None:
    if how == "kill" or (how == "kill once" and not (run.path / "killed").exists()):
        (run.path / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise RuntimeError("the dog ate it")
    if how == "memory":
        raise MemoryError("no room for 7 GB")
    if how == "file limit":  # as a full disk or a quota ends a write in the middle of a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
        run.checkpoint_publish(3, lambda folder: total_write(folder, 0.0, padding=1 << 20))
    if how == "sync":
        os.fsync = sync_fail
    if how == "memory eater":  # 16 MB every 50 ms, and no more than 640 MB
        eaten = []
        for _ in range(40):
            eaten.append(b"x" * (16 << 20))
            time.sleep(0.05)
    if how == "nan":
        run.metric(3, {"loss": float("nan")})


def sync_fail(_descriptor: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


if __name__ == "__main__":
    program_run(main)
