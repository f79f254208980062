"""RLOO and GRPO beside TRL, as `benchmarks.bench_training` times them: one step on both sides."""

import json

import pytest

pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("trl", reason="the ml extra is not installed")

from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from alignment.ml.configs import GrpoConfig, RlooConfig
from alignment.ml.online import grpo, rloo
from benchmarks.bench_training import _online

pytestmark = pytest.mark.ml

SIDES = {
    "rloo": ((rloo, RlooConfig, RLOOTrainer, RLOOConfig), {}),
    "grpo": ((grpo, GrpoConfig, GRPOTrainer, GRPOConfig), {"use_bias_correction_kl": False}),
}


@pytest.mark.parametrize("name", SIDES)
def test_what_is_timed_leaves_the_same_gradients_on_both_sides(name, monkeypatch, capsys):
    for setting, value in {
        "PROMPT_TOKENS": (12, 24),
        "ANSWER_TOKENS": (6, 12),
        "BUDGETS": (64, 128),
        "STEPS": 2,
        "LLAMA_SHAPE": {
            **_online.LLAMA_SHAPE,
            "vocab_size": 512,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
        },
    }.items():
        monkeypatch.setattr(_online, setting, value)
    sides, more = SIDES[name]
    _online.measure(
        name,
        *sides,
        model="llama-h256-l6",
        micro_batches=(4,),
        samples=4,
        ours_settings={},
        trl_settings=more,
    )
    line = json.loads(capsys.readouterr().out)
    assert line["gradient_difference"] < 1e-5
    assert line["ratio"] == pytest.approx(line["trl_s"] / line["ours_s"], rel=0.1)
    assert line["trl_micro_batch"] == 4 and line["ours_row_tokens"] in (64, 128)
