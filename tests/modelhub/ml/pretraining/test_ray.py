"""Pretraining on a local Ray cluster, as a pipeline: the losses of one process."""

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")
pytest.importorskip("ray", reason="the ray extra is not installed")

from tests.modelhub.ml.pretraining.pretrain_runs import (
    figures_of,
    pretrain_run,
    shards_write,
    sums,
    tokenizer_write,
)
from tests.modelhub.ml.runs import ROOT

pytestmark = [pytest.mark.ml, pytest.mark.slow]


def test_a_pipeline_on_ray_has_the_losses_of_one_process(tmp_path):
    tokenizer = tokenizer_write(tmp_path / "tokenizer")
    tokens = {"tokens": shards_write(tmp_path / "tokens", sums(0, 120))}
    runs, processes = {}, []
    for name, stages, command in (
        ("one", 1, ["modelhub.ml.pretraining"]),
        ("ray", 2, ["modelhub.ml.launch", "ray", "2", "ddp", "modelhub.ml.pretraining"]),
    ):
        run = pretrain_run(
            tmp_path / name,
            tokenizer,
            tokens,
            architecture="llama",
            steps=3,
            pipeline_parallel=stages,
        )
        runs[name] = run
        with (run / "log.txt").open("ab") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", *command, str(run)],
                    cwd=ROOT,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            )
    for run, process in zip(runs.values(), processes, strict=True):
        assert process.wait(800) == 0, (run / "log.txt").read_text()[-3000:]
    assert "rank 1 of 2 on cpu, ddp" in (runs["ray"] / "log.txt").read_text()
    one, other = (figures_of(runs[name], "loss") for name in ("one", "ray"))
    assert len(one) == 3
    assert other == pytest.approx(one, rel=2e-4)
