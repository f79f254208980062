"""Pretraining on several real processes (gloo): the losses of one, whatever they share."""

import os
import shutil
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from safetensors.torch import load_file

from modelhub.ml.configs import RefusedError
from modelhub.ml.pretraining.__main__ import main
from modelhub.ml.pretraining.watchdog import EXIT_HUNG
from modelhub.ml.tensor_parallel import degree_check, plan_check
from tests.alignment.ml.programs import checkpoints_of, lines_of
from tests.modelhub.ml.pretraining import drift_program, hanging_program
from tests.modelhub.ml.pretraining.pretrain_runs import (
    figures_of,
    pretrain_run,
    shards_write,
    sums,
    tokenizer_write,
)
from tests.modelhub.ml.ranks import ranks_end, ranks_run, ranks_start
from tests.modelhub.ml.runs import ROOT

pytestmark = [pytest.mark.ml, pytest.mark.slow]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    return tokenizer_write(folder / "tokenizer"), shards_write(folder / "tokens", sums(0, 120))


def made(folder, given, **config):
    tokenizer, tokens = given
    settings = {"architecture": "mixtral", "steps": 6, "checkpoint_every_steps": 3, **config}
    return pretrain_run(folder, tokenizer, {"tokens": tokens}, **settings)


def trained(folder, given, *, world, strategy="ddp", **config):
    run = made(folder, given, **config)
    statuses = ranks_run(main, run, world=world, strategy=strategy)
    assert statuses == [0] * world, (run / "log.txt").read_text()[-3000:]
    return run


@pytest.fixture(scope="module")
def alone(given, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("alone") / "run", given, world=1)


@pytest.mark.parametrize(
    ("world", "strategy", "config"),
    [
        (2, "ddp", {}),
        (2, "fsdp2", {}),
        (2, "ddp", {"tensor_parallel": 2}),
        (2, "ddp", {"tensor_parallel": 2, "expert_parallel": True}),
        (4, "fsdp2", {"tensor_parallel": 2}),
    ],
    ids=["ddp", "fsdp2", "tensor", "experts", "fsdp2-by-tensor"],
)
def test_several_processes_give_the_losses_of_one(tmp_path, given, alone, world, strategy, config):
    run = trained(tmp_path / "run", given, world=world, strategy=strategy, **config)
    for name in ("loss", "grad_norm", "validation_tokens"):
        assert figures_of(run, name) == pytest.approx(figures_of(alone, name), rel=2e-4), name
    one, other = (
        load_file(run / "outputs" / "model" / "model.safetensors") for run in (alone, run)
    )
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=2e-3) for name in one)


# ── killed, and taken up by another number of processes ──────────────────────────────────────────


@pytest.fixture(scope="module")
def stopped(given, tmp_path_factory):
    """A run of four processes, two by two, that was killed behind its checkpoint of step 3."""
    run = made(tmp_path_factory.mktemp("stopped") / "run", given, steps=200, tensor_parallel=2)
    processes = ranks_start(main, run, world=4, strategy="fsdp2")
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "step-00000003" / "manifest.json").exists():
        assert time.monotonic() < deadline, (run / "log.txt").read_text()[-3000:]
        time.sleep(0.01)
    for process in processes:
        process.kill()
    ranks_end(processes)
    kept = checkpoints_of(run)
    for checkpoint in kept:  # as if it had been killed before the later ones
        if checkpoint.name > "step-00000003":
            shutil.rmtree(checkpoint)
    assert (run / "checkpoints" / "step-00000003").exists()
    return run


@pytest.mark.parametrize(
    ("world", "strategy", "tensor_parallel"),
    [(4, "fsdp2", 2), (2, "fsdp2", 1), (2, "ddp", 2), (1, "ddp", 1), (4, "fsdp2", 1)],
    ids=["2x2", "fsdp2", "tensor", "one", "four"],
)
def test_a_run_saved_two_by_two_goes_on_at_any_number(
    tmp_path, given, alone, stopped, world, strategy, tensor_parallel
):
    run = made(tmp_path / "run", given, tensor_parallel=tensor_parallel)
    shutil.copytree(stopped / "checkpoints", run / "checkpoints")
    statuses = ranks_run(main, run, world=world, strategy=strategy)
    log = (run / "log.txt").read_text()
    assert statuses == [0] * world, log[-3000:]
    assert "going on after step 3" in log
    assert figures_of(run, "loss") == pytest.approx(figures_of(alone, "loss")[3:], rel=2e-4)


# ── what is refused, and what is noticed ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("world", "strategy", "degree", "said"),
    [(3, "fsdp2", 2, "not whole groups"), (4, "ddp", 2, "need the strategy fsdp2")],
)
def test_processes_that_do_not_divide_are_refused(world, strategy, degree, said):
    with pytest.raises(RefusedError, match=said):
        degree_check(world, strategy, degree)


def test_an_architecture_without_a_plan_is_refused(tmp_path, given):
    run = made(tmp_path / "run", given, architecture="bloom", tensor_parallel=2)
    assert ranks_run(main, run, world=2) == [2, 2]
    assert "has no plan of tensor parallelism" in (run / "log.txt").read_text()


def test_muon_on_shares_of_a_matrix_is_refused(tmp_path, given):
    run = made(tmp_path / "run", given, architecture="llama", optimizer="muon", steps=2)
    assert ranks_run(main, run, world=2, strategy="fsdp2") == [2, 2]
    assert "muon needs whole matrices on every process" in (run / "log.txt").read_text()


def test_a_matrix_that_stayed_whole_is_refused():
    from types import SimpleNamespace

    model = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4)})
    model.tp_plan, model.ep_plan = {"q": "colwise"}, {}
    model.config = SimpleNamespace(distributed_config=SimpleNamespace(ep_size=1))
    with pytest.raises(RefusedError, match=r"asked for, but q\.weight is whole"):
        plan_check(model)
    model.tp_plan = {"k": "colwise"}
    with pytest.raises(RefusedError, match="names no weight"):
        plan_check(model)


@pytest.mark.parametrize(
    ("world", "strategy", "config", "weight"),
    [
        (2, "ddp", {}, "embed_tokens.weight"),
        # What sharing matrices leaves on every rank is BLOOM's case: its norms drifted apart.
        (2, "ddp", {"tensor_parallel": 2}, "model.norm.weight"),
        (2, "ddp", {"tensor_parallel": 2, "expert_parallel": True}, "gate.weight"),
        (4, "fsdp2", {"tensor_parallel": 2}, "model.norm.weight"),
    ],
    ids=["ddp", "tensor", "experts", "fsdp2-by-tensor"],
)
def test_replicas_that_drift_apart_stop_the_run(tmp_path, given, world, strategy, config, weight):
    run = made(tmp_path / "run", given, replica_check_every_steps=3, steps=8, **config)
    statuses = drifted(run, f"{weight},3", world=world, strategy=strategy)
    log = (run / "log.txt").read_text()
    assert statuses == [2] * world, log[-3000:]
    assert "refused: the weights of rank 1 are not those of rank 0: " in log
    assert weight in log
    assert max(line["step"] for line in lines_of(run / "metrics.jsonl")) == 3


def test_replicas_that_drift_apart_behind_the_last_check_are_not_published(tmp_path, given):
    run = made(tmp_path / "run", given, replica_check_every_steps=0, steps=3, tensor_parallel=2)
    assert drifted(run, "model.norm.weight,3", world=2) == [2, 2]
    assert (
        "the weights of rank 1 are not those of rank 0: model.norm" in (run / "log.txt").read_text()
    )
    assert not (run / "result.json").exists()


def drifted(run, drift, **processes):
    (run / "drift").write_text(drift)
    return ranks_run(drift_program.main, run, **processes)


def launched(run, program, *, timeout_s):
    """A program of this folder on two processes of torchrun, to its end. Returns its status."""
    command = [sys.executable, "-m", "modelhub.ml.launch", "torchrun", "2", "ddp"]
    with (run / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [*command, f"tests.modelhub.ml.pretraining.{program}", str(run)],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        return process.wait(timeout_s)
    finally:
        process.terminate()  # and all that it has started


def test_a_rank_that_hangs_is_ended_and_all_go_on(tmp_path, given, alone):
    """Before the first step, behind the fourth and behind the last, in one run."""
    run = made(tmp_path / "run", given, hang_timeout_s=600.0)
    for where in ("start", "step", "end"):
        processes = ranks_start(hanging_program.main, run, world=2)
        processes[1].join(120)
        for process in processes:  # as the launcher does
            process.kill()
        assert ranks_end(processes)[1] == EXIT_HUNG, (run / "log.txt").read_text()[-3000:]
        assert (run / f"hung_{where}").exists()
    log = (run / "log.txt").read_text()
    assert log.count("no sign of life for") == log.count("in wait_for_ever") == 3
    assert ranks_run(hanging_program.main, run, world=2) == [0, 0], log[-3000:]
    assert "going on after step 3" in log
    assert figures_of(run, "loss") == pytest.approx(figures_of(alone, "loss"), rel=2e-4)


def test_ranks_of_which_one_hung_are_started_again_by_the_launcher(tmp_path, given, alone):
    """As those are of which one was killed: tests/modelhub/ml/test_launch.py."""
    run = made(tmp_path / "run", given, hang_timeout_s=600.0)
    for where in ("start", "end"):
        (run / f"hung_{where}").touch()
    status = launched(run, "hanging_program", timeout_s=800)
    log = (run / "log.txt").read_text()
    assert status == 0, log[-3000:]
    assert f"ended with {EXIT_HUNG}\n" in log
    assert log.count("starting again") == 1
    assert "going on after step 3" in log
    assert figures_of(run, "loss") == pytest.approx(figures_of(alone, "loss"), rel=2e-4)
