"""The launchers, each with two real processes: the losses of one, and an end like the program's."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from tests.modelhub.ml.runs import ROOT
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.slow]

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the ray extra is not installed"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny_model_write(tmp_path_factory.mktemp("base")))


STARTED = []


@pytest.fixture(autouse=True)
def none_left():
    """Whatever a test began ends with it, also where it failed."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)


def launch_start(launcher, strategy, run, program="parallel_program", **config):
    run.mkdir()
    document = {"program": "parallel", "config": config, "inputs": {}}
    (run / "config.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "modelhub.ml.launch", launcher, "2", strategy]
    with (run / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [*command, f"tests.modelhub.ml.{program}", str(run)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "RONDO_RESTARTS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    STARTED.append(process)
    return process


def log_of(run):
    return (run / "log.txt").read_text()


def losses_of(run):
    return json.loads((run / "result.json").read_text())["result"]["losses"]


def processes_of(run):
    """Living processes that were started with the run's directory."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(run).encode() in words:
            found.append(int(folder.name))
    return found


def wait_until(condition, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


# What one process computes on the tiny model of seed 0 is test_parallel's matter: here the
# launchers are held against each other.
@pytest.fixture(scope="module")
def expected(base, tmp_path_factory):
    """The losses under torchrun, one rank of which is killed behind step 2 and started again."""
    run = tmp_path_factory.mktemp("torchrun") / "run"
    process = launch_start("torchrun", "ddp", run, base=base, steps=3, die_behind=2)
    assert process.wait(timeout=800) == 0, log_of(run)[-3000:]
    log = log_of(run)
    assert "rank 1 ended with -9" in log
    assert log.count("rank 0 of 2 on cpu, ddp") == 2
    return losses_of(run)


@pytest.mark.parametrize(
    ("launcher", "strategy"),
    [("accelerate", "fsdp2"), pytest.param("ray", "ddp", marks=needs_ray)],
)
def test_every_launcher_gives_the_same_losses(tmp_path, base, expected, launcher, strategy):
    run = tmp_path / "run"
    process = launch_start(launcher, strategy, run, base=base, steps=3)
    assert process.wait(timeout=800) == 0, log_of(run)[-3000:]
    assert f"rank 1 of 2 on cpu, {strategy}" in log_of(run)
    assert losses_of(run) == pytest.approx(expected, rel=1e-6)


def test_a_refusal_is_not_tried_again_and_keeps_its_status(tmp_path):
    run = tmp_path / "run"
    process = launch_start("torchrun", "ddp", run, "idle_program", refuse=True)
    assert process.wait(timeout=800) == 2
    assert "starting again" not in log_of(run)
    assert "refused: nothing will do" in log_of(run)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_processes_end_with_their_launcher(tmp_path, number):
    run = tmp_path / "run"
    process = launch_start("torchrun", "ddp", run, "idle_program")
    wait_until(lambda: len(list(run.glob("begun-*"))) == 2)
    assert len(processes_of(run)) == 3
    process.send_signal(number)
    assert process.wait(timeout=60) == (143 if number == signal.SIGTERM else -number)
    wait_until(lambda: not processes_of(run), timeout_s=10)
