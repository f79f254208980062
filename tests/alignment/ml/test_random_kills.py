"""Training killed up to twenty times, every other time while it writes a checkpoint.

At another size, with its figures:
    RANDOM_KILLS=60 RANDOM_KILLS_SEED=1 python -m pytest -s tests/alignment/ml/test_random_kills.py
"""

import functools
import os
import random
import signal
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
from tests.modelhub.ml.ranks import ranks_end, ranks_run, ranks_start
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.slow]

SEED = int(os.environ.get("RANDOM_KILLS_SEED", "11"))
KILLS = [
    (program, int(os.environ.get("RANDOM_KILLS", kills)))
    for program, kills in (("sft", 20), ("dpo", 8), ("pretrain", 8))
]
PROGRAMS = {"sft": sft.main, "dpo": dpo.main, "pretrain": pretrain.main}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def made(folder, program, base, kills):
    """A run with a checkpoint behind each step: 120, or so many that it outlasts its kills."""
    steps = max(120, 6 * kills)
    if program == "pretrain":
        return pretrain_run(
            folder / "run",
            tokenizer_write(folder / "tokenizer"),
            {"tokens": shards_write(folder / "tokens", sums(0, 120))},
            steps=steps,
            evaluate_every_steps=steps,
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
        config = {"epochs": steps // 3, "examples_per_step": 4}
    else:
        role, records = (
            "rankings",
            [
                ranking(number, prompt=f"p{number}", texts=("aab", f"bb{number}"), tiers="a>b")
                for number in range(12)
            ],
        )
        config = {"epochs": steps // 3, "rankings_per_step": 4}
    records_write(folder / "rows" / f"{role}.jsonl", records)
    config |= {"lr": 1e-4, "checkpoint_every_steps": 1}
    return run_make(folder / "run", program, {"base": base, role: folder / "rows"}, config)


def writing_death(main, run):
    """Dies as it writes its first checkpoint: its files are there, unlisted and not synced."""
    publish = run.checkpoint_publish

    def half(step, write):
        def written(folder):
            write(folder)
            os.kill(os.getpid(), signal.SIGKILL)

        return publish(step, written)

    run.checkpoint_publish = half
    main(run)


@pytest.mark.timeout(max(900, 15 * max(kills for _, kills in KILLS)))
@pytest.mark.parametrize(("program", "kills"), KILLS)
def test_killed_again_and_again_it_ends_as_one_never_killed(tmp_path, base, program, kills):
    main = PROGRAMS[program]
    whole = made(tmp_path / "whole", program, base, kills)
    assert ranks_end(ranks_start(main, whole, world=1)) == [0]

    run = made(tmp_path / "killed", program, base, kills)
    draw = random.Random(SEED)
    torn, at = 0, []
    for kill in range(kills):
        before = step_of(run)
        if kill % 2:
            assert ranks_run(functools.partial(writing_death, main), run, world=1) == [-9]
            torn += 1
            assert any((run / "checkpoints").glob(".tmp-*"))
            assert step_of(run) == before
            at.append(before)
            continue
        (process,) = ranks_start(main, run, world=1)
        deadline = time.monotonic() + 120
        while step_of(run) <= before:
            assert process.is_alive() and time.monotonic() < deadline, log_of(run)
            time.sleep(0.0005)
        time.sleep(draw.uniform(0.0, 0.01))
        process.kill()
        process.join()
        if (run / "result.json").exists():
            break  # this machine was too busy to kill it in time
        at.append(step_of(run))
    assert torn >= 3
    print(f"{program}: {len(at)} kills, {torn} of them in a checkpoint, at steps {at}, seed {SEED}")
    assert ranks_end(ranks_start(main, run, world=1)) == [0], log_of(run)

    assert "passed over" not in log_of(run)  # no torn checkpoint was ever taken for one
    assert metrics_of(run) == metrics_of(whole)
    weights = "outputs/model/model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()


def log_of(run):
    return (run / "log.txt").read_text()


def step_of(run):
    """The newest checkpoint's step; 0 without one."""
    found = [int(one.name.removeprefix("step-")) for one in (run / "checkpoints").glob("step-*")]
    return max(found, default=0)
