"""Every method that trains on given rows: numbers that break, disks that fill, and the same twice.

What a method learns is in its own tests; these hold for all of them.
"""

import errno
import functools
import json
import os
import resource
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from safetensors.torch import load_file

from alignment.ml import distill, dpo, kto, orpo, sft
from alignment.ml.reward import training as reward
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import records_write
from modelhub.ml.rundir import NotFinite, RunDir
from tests.alignment.ml.programs import messages, metrics_of, run_make
from tests.alignment.ml.test_data import ranking
from tests.modelhub.ml.ranks import ranks_run
from tests.modelhub.ml.runs import ROOT
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]

PROGRAMS = {
    "sft": sft,
    "distill": distill,
    "reward": reward,
    "dpo": dpo,
    "orpo": orpo,
    "kto": kto,
}
WEIGHTS = "outputs/model/model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def made(folder, program, base, **config):
    """A run of six steps with a checkpoint behind each."""
    (folder / "rows").mkdir(parents=True)
    if program in ("sft", "distill"):
        rows = [
            {
                "prompt_id": f"q{number}",
                "split": "train",
                "messages": [
                    *messages(f"Say {number}"),
                    {"role": "assistant", "content": f"{number} it is"},
                ],
            }
            for number in range(12)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "rows" / "demonstrations.jsonl").write_text(text)
        inputs, size = {"base": base, "demonstrations": folder / "rows"}, "examples_per_step"
        if program == "distill":
            inputs["teacher"] = tiny_model_write(folder / "teacher", seed=1)
    else:
        rows = [
            ranking(number, prompt=f"p{number}", texts=("aab", f"bb{number}"), tiers="a>b")
            for number in range(12)
        ]
        records_write(folder / "rows" / "rankings.jsonl", rows)
        inputs, size = {"base": base, "rankings": folder / "rows"}, "rankings_per_step"
        if program == "kto":
            size = "examples_per_step"
    steps = {size: 4, "epochs": 2, "checkpoint_every_steps": 1, "bootstrap_samples": 50}
    return run_make(folder / "run", program, inputs, {"lr": 1e-3, **steps, **config})


# ── numbers that break ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_gradient_that_is_no_number_ends_the_run_before_its_step_is_taken(
    tmp_path, base, monkeypatch, program
):
    """At the third step: two are behind it, and the checkpoint of the second stays."""
    optimizers, make = [], PROGRAMS[program].optimizer_make

    def optimizer_make(groups, **settings):
        optimizer = make(groups, **settings)
        taken = []
        optimizer.register_step_post_hook(lambda *_: taken.append(None))
        weight = optimizer.param_groups[0]["params"][0]
        weight.register_hook(lambda gradient: gradient * torch.nan if len(taken) == 2 else None)
        optimizers.append((optimizer, taken))
        return optimizer

    monkeypatch.setattr(PROGRAMS[program], "optimizer_make", optimizer_make)
    run = made(tmp_path, program, base)
    with pytest.raises(NotFinite, match=r"grad_norm is nan at step 3"):
        PROGRAMS[program].main(RunDir(run))
    ((optimizer, taken),) = optimizers
    assert len(taken) == 2
    for group in optimizer.param_groups:
        assert all(weight.isfinite().all() for weight in group["params"])
    assert not (run / "result.json").exists() and list((run / "outputs").iterdir()) == []
    assert max(metrics_of(run)) == 2
    newest = max((run / "checkpoints").glob("step-*"))
    assert newest.name == "step-00000002"
    for path in newest.glob("*.safetensors"):
        assert all(one.isfinite().all() for one in load_file(path).values())


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_rate_of_a_thousand_publishes_no_weight_that_is_no_number(tmp_path, base, program):
    run = made(tmp_path, program, base, lr=1e3, warmup_share=0.0)
    try:
        PROGRAMS[program].main(RunDir(run))
    except RefusedError:
        assert not (run / "result.json").exists()
        assert list((run / "outputs").iterdir()) == []
    else:
        assert all(one.isfinite().all() for one in load_file(run / WEIGHTS).values())


# ── disks ────────────────────────────────────────────────────────────────────────────────────────


def files_limited(main, run):
    """No file may be larger than a part of a checkpoint: a quota, or a disk that fills."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, resource.RLIM_INFINITY))
    main(run)


def sync_failing(main, run):
    """Nothing that is written is sure to be on the disk."""

    def fail(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    os.fsync = fail
    main(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hurt", "reason"),
    [(files_limited, "File too large"), (sync_failing, "Input/output error")],
    ids=["file limit", "sync"],
)
@pytest.mark.parametrize("program", ["sft", "reward"])
def test_a_checkpoint_that_cannot_be_written_ends_the_attempt_and_the_next_goes_on(
    tmp_path, base, program, hurt, reason
):
    main = PROGRAMS[program].main
    run = made(tmp_path / "hurt", program, base)
    assert ranks_run(functools.partial(hurt, main), run, world=1) == [1]
    assert reason in (run / "log.txt").read_text()
    assert not (run / "result.json").exists() and list((run / "outputs").iterdir()) == []
    assert list((run / "checkpoints").glob("step-*")) == []
    whole = made(tmp_path / "whole", program, base)
    for one in (run, whole):
        assert ranks_run(main, one, world=1) == [0], (one / "log.txt").read_text()[-3000:]
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert metrics_of(run) == metrics_of(whole)


# ── the same twice ───────────────────────────────────────────────────────────────────────────────

TWICE = ("sft", "reward", "kto")
# Of this process, and so of what it forks, the seed is drawn unless the environment has one.
OTHER_HASHES = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"


@pytest.fixture(scope="module")
def otherwise(tmp_path_factory, base):
    """A run of each in one process in which hashes of text are others than here."""
    folder = tmp_path_factory.mktemp("otherwise")
    runs = {program: made(folder / program, program, base) for program in TWICE}
    work = f"import sys; from {__name__} import several; several(sys.argv[1:])"
    environment = {**os.environ, "PYTHONHASHSEED": OTHER_HASHES, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", work, *map(str, runs.values())]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return runs


def several(runs):
    """In a process of its own: what each directory says, one after the other."""
    torch.set_num_threads(1)
    for run in map(RunDir, runs):
        PROGRAMS[json.loads((run.path / "config.json").read_text())["program"]].main(run)


@pytest.mark.slow
@pytest.mark.parametrize("program", TWICE)
def test_the_same_rows_and_seed_are_the_same_bits_in_another_process(
    tmp_path, base, otherwise, program
):
    """Two processes whose hashes of text differ: no set's order may reach a batch."""
    one, other = made(tmp_path / "here", program, base), otherwise[program]
    assert ranks_run(PROGRAMS[program].main, one, world=1) == [0]
    assert (one / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    assert metrics_of(one) == metrics_of(other)
