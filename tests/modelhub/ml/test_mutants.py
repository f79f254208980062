"""Each guard of what programs share, taken away: the test that watches over it must fail."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modelhub.ml import rundir
from modelhub.ml.rundir import RunDir
from tests.modelhub.ml import test_checkpoints

Caught = (AssertionError, pytest.fail.Exception, FileNotFoundError)


def naive_publish(run: RunDir, step: int, write: Callable[[Path], None]) -> Path:
    """The obvious way: write where it is to be."""
    folder = run.path / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(exist_ok=True)
    write(folder)
    return folder


def test_with_a_naive_writer_half_a_checkpoint_is_taken(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(RunDir, "checkpoint_publish", naive_publish)
    monkeypatch.setattr(rundir, "manifest_verify", lambda folder: None)  # it writes no manifest
    with pytest.raises(Caught):
        test_checkpoints.test_a_death_in_the_middle_of_a_checkpoint_leaves_the_one_before(tmp_path)


@pytest.mark.ml
def test_without_the_check_a_model_that_stayed_whole_is_trained(
    monkeypatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="the ml extra is not installed")
    from tests.modelhub.ml import test_parallel
    from tests.tiny_model import tiny_model_write

    run = test_parallel.ranks_run
    monkeypatch.setattr(
        test_parallel, "ranks_run", lambda *args, **config: run(*args, unwatched=True, **config)
    )
    (tmp_path / "base").mkdir()
    base = str(tiny_model_write(tmp_path / "base"))
    with pytest.raises(Caught):
        test_parallel.test_a_model_that_stayed_whole_under_fsdp2_is_refused(tmp_path, base)
