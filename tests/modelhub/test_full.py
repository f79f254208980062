"""A full disk and memory that runs out: said plainly, nothing half-made, and then it goes on."""

import subprocess
from pathlib import Path

import pytest

from modelhub import storage
from modelhub.models import Artifact, Run
from modelhub.resources import memory_read, processes_memory
from modelhub.runner import run_execute


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MiB with 1.5 MiB on it, in the file `ballast`."""
    place = tmp_path / "small"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mounting, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no program mount")
    if mounted.returncode:
        pytest.skip("a file system of its own needs root: " + mounted.stderr.decode().strip())
    (place / "ballast").write_bytes(b"x" * (3 << 19))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def executed(run: Run) -> Run:
    run_execute(run_id=run.pk, owner="here")
    run.refresh_from_db()
    return run


def again(run: Run) -> None:
    from modelhub.services.runs import run_retry

    run_retry(run=run, actor=None)


def test_a_disk_that_is_full_as_it_trains_is_named_and_the_run_goes_on_once_there_is_room(
    counting, settings, small_disk
):
    settings.RUNS_DIR = small_disk / "runs"
    run = executed(counting(steps=4, padding=200_000))
    assert run.status == Run.Status.FAILED
    assert run.fence == 1  # another attempt would end the same
    assert run.error.startswith("disk full: ")
    assert "of 2.0 MiB are free where runs lie. Free some and retry" in run.error
    assert not Artifact.objects.exists()
    folder = storage.run_folder(run)
    assert not (folder / "result.json").exists()
    whole = storage.checkpoint_steps(run)
    assert whole
    (small_disk / "ballast").unlink()
    again(run)
    executed(run)
    assert run.status == Run.Status.SUCCEEDED, run.error
    assert f"resumed after step {whole[0]}" in (folder / "log.txt").read_text()
    straight = counting(steps=4)
    assert executed(straight).result == run.result


def test_a_full_store_is_named_and_nothing_of_the_output_stays(counting, settings, small_disk):
    settings.ARTIFACTS_DIR = small_disk / "artifacts"
    run = executed(counting(steps=2, padding=1_000_000))
    assert run.status == Run.Status.FAILED
    assert run.error.startswith("disk full: ")
    assert "are free where artifacts lie" in run.error
    assert not Artifact.objects.exists()
    assert not [one for one in (small_disk / "artifacts").iterdir() if one.is_dir()]
    (small_disk / "ballast").unlink()
    again(run)
    executed(run)
    assert run.status == Run.Status.SUCCEEDED, run.error
    storage.artifact_verify(run.outputs.get().artifact)


def test_a_run_that_eats_memory_is_ended_before_the_kernel_ends_something_else(counting, settings):
    settings.RUN_MEMORY_BYTES = 256 << 20
    run = executed(counting(misbehaviour="memory eater"))
    assert run.status == Run.Status.FAILED
    assert run.fence == 1
    assert run.error.startswith("out of memory: 0.")
    assert "of 0.25 GiB of its RONDO_RUN_MEMORY_BYTES are in use" in run.error
    assert "before the kernel ends something else: give it smaller steps" in run.error


def test_memory_is_of_the_tightest_group_and_without_what_the_kernel_can_drop(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable: 6000 kB\n")
    (proc / "self" / "cgroup").write_text("0::/site/worker\n")

    def group(name: str, limit: str, used: int, dropped: int) -> None:
        folder = groups / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text(str(used))
        files = f"inactive_file {dropped // 3}\nactive_file {dropped - dropped // 3}\n"
        (folder / "memory.stat").write_text(f"anon 1\n{files}")

    machine = memory_read(proc=proc, groups=groups)
    assert (machine.used, machine.limit, machine.where) == (2000 << 10, 8000 << 10, "the machine")
    group("site", str(4000 << 10), 3800 << 10, 300 << 10)
    group("site/worker", "max", 100, 0)
    found = memory_read(proc=proc, groups=groups)
    assert (found.used, found.limit, found.share) == (3500 << 10, 4000 << 10, 0.875)
    assert found.where == "its control group"
    (proc / "9").mkdir()
    status = "Name: x\nRssAnon: 100 kB\nRssFile: 900 kB\nRssShmem: 20 kB\n"
    (proc / "9" / "status").write_text(status)
    assert processes_memory([9, 10], proc=Path(proc)) == 120 << 10
