"""Training killed up to twenty times, every other time while it writes a checkpoint."""

import random
import time

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import dpo, sft
from alignment.ml.data import DemonstrationRecord
from modelhub.ml.pretraining import __main__ as pretrain
from modelhub.ml.records import records_write
from tests.alignment.ml.programs import messages, metrics_of, run_make
from tests.alignment.ml.test_data import ranking
from tests.modelhub.ml.pretraining.pretrain_runs import (
    pretrain_run,
    shards_write,
    sums,
    tokenizer_write,
)
from tests.modelhub.ml.ranks import ranks_end, ranks_start
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.slow]

PROGRAMS = {"sft": sft.main, "dpo": dpo.main, "pretrain": pretrain.main}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def made(folder, program, base):
    """A run of 60 steps with a checkpoint behind each."""
    if program == "pretrain":
        return pretrain_run(
            folder / "run",
            tokenizer_write(folder / "tokenizer"),
            {"tokens": shards_write(folder / "tokens", sums(0, 120))},
            steps=60,
            evaluate_every_steps=60,
            checkpoint_every_steps=1,
        )
    (folder / "rows").mkdir(parents=True)
    if program == "sft":
        role, records = (
            "demonstrations",
            [
                DemonstrationRecord(
                    prompt_id=f"p{number}",
                    messages=messages(f"Say {number}"),
                    text=f"{number} it is",
                    finish_reason="stop",
                    score=1.0,
                    batch="first",
                )
                for number in range(12)
            ],
        )
        config = {"epochs": 20, "examples_per_step": 4}
    else:
        role, records = (
            "rankings",
            [
                ranking(number, prompt=f"p{number}", texts=("aab", f"bb{number}"), tiers="a>b")
                for number in range(12)
            ],
        )
        config = {"epochs": 20, "rankings_per_step": 4}
    records_write(folder / "rows" / f"{role}.jsonl", records)
    config |= {"lr": 1e-4, "checkpoint_every_steps": 1}
    return run_make(folder / "run", program, {"base": base, role: folder / "rows"}, config)


@pytest.mark.parametrize(("program", "kills"), [("sft", 20), ("dpo", 8), ("pretrain", 8)])
def test_killed_again_and_again_it_ends_as_one_never_killed(tmp_path, base, program, kills):
    main = PROGRAMS[program]
    whole = made(tmp_path / "whole", program, base)
    assert ranks_end(ranks_start(main, whole, world=1)) == [0]

    run = made(tmp_path / "killed", program, base)
    draw = random.Random(11)
    torn = 0
    for kill in range(kills):
        before = step_of(run)
        (process,) = ranks_start(main, run, world=1)
        while not (is_written(run, process) if kill % 2 else step_of(run) > before):
            assert process.is_alive(), (run / "log.txt").read_text()
            time.sleep(0.0005)
        time.sleep(draw.uniform(0.0, 0.004))
        process.kill()
        process.join()
        assert not (run / "result.json").exists(), "it was over before the kill: more steps"
        torn += is_written(run, process)
        assert step_of(run) >= before
    assert ranks_end(ranks_start(main, run, world=1)) == [0], (run / "log.txt").read_text()

    assert torn  # some kills fell into the writing of a checkpoint, which nobody took for whole
    assert "passed over" not in (run / "log.txt").read_text()
    assert metrics_of(run) == metrics_of(whole)
    weights = "outputs/model/model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()


def is_written(run, process):
    """Whether the process is writing a checkpoint, or was when it died."""
    return any((run / "checkpoints").glob(f".tmp-*-{process.pid}"))


def step_of(run):
    """The newest checkpoint's step; 0 without one."""
    found = [int(one.name.removeprefix("step-")) for one in (run / "checkpoints").glob("step-*")]
    return max(found, default=0)
