"""Several real processes with torchrun's environment, forked from one that has imported torch.

Importing torch and transformers is most of a tiny run's cost; the fork server pays it once.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from modelhub.ml.rundir import RunDir, program_run

# What a fork server imports for all that it will fork: it keeps what it was first told.
_PRELOADED = ["alignment.ml.sft", "modelhub.ml.generate"]


def ranks_start(
    main: Callable[[RunDir], None], run: Path, *, world: int, strategy: str = "ddp"
) -> list[BaseProcess]:
    """Start a program on `world` processes, printing to the run's log.txt. `main` by import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED, main.__module__])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RONDO_STRATEGY": strategy,
    }
    started = []
    for rank in range(world):
        own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = context.Process(target=_work, args=(main, str(run), own), daemon=True)
        process.start()
        started.append(process)
    return started


def ranks_end(processes: list[BaseProcess], *, timeout_s: float = 120) -> list[int | None]:
    """Wait for them; the exit statuses, None for one that had to be killed for taking too long."""
    try:
        for process in processes:
            process.join(timeout_s)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def ranks_run(
    main: Callable[[RunDir], None], run: Path, *, world: int, strategy: str = "ddp"
) -> list[int | None]:
    """Run a program on `world` processes to its end. Returns exit statuses, by rank."""
    return ranks_end(ranks_start(main, run, world=world, strategy=strategy))


def program_start(main: Callable[[RunDir], None], run: Path) -> BaseProcess:
    """Start a program in one process of its own."""
    return ranks_start(main, run, world=1)[0]


def program_finish(main: Callable[[RunDir], None], run: Path) -> None:
    """Run a program in a process of its own to its end, which must be a good one."""
    assert ranks_run(main, run, world=1) == [0], (run / "log.txt").read_text()[-3000:]


def _work(main: Callable[[RunDir], None], run: str, environment: dict[str, str]) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    log = os.open(Path(run) / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = [main.__module__, run]
    program_run(main)
