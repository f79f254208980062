"""A checkpoint is there whole or not at all, by a process that dies as it writes one."""

import multiprocessing
import os
import signal
from pathlib import Path

from modelhub.ml.rundir import RunDir


def halves_write(folder: Path, total: int, *, dies: bool = False) -> None:
    """Two files that belong together."""
    (folder / "one.txt").write_text(str(total))
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "other.txt").write_text(str(total))


def second_begin(run: RunDir) -> None:
    run.checkpoint_publish(2, lambda folder: halves_write(folder, 2, dies=True))


def test_a_death_in_the_middle_of_a_checkpoint_leaves_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    run = RunDir(tmp_path)
    run.checkpoint_publish(1, lambda folder: halves_write(folder, 1))
    process = multiprocessing.get_context("fork").Process(target=second_begin, args=(run,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    step, folder = run.checkpoint_latest() or (0, tmp_path)
    assert step == 1
    assert [(folder / name).read_text() for name in ("one.txt", "other.txt")] == ["1", "1"]
    run.checkpoint_publish(2, lambda folder: halves_write(folder, 2))
    assert (run.checkpoint_latest() or (0, tmp_path))[0] == 2
