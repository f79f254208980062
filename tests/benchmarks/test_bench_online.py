"""RLOO, GRPO and online DPO beside TRL, as `benchmarks.bench_training` times them: one step."""

import json

import pytest

pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("trl", reason="the ml extra is not installed")

from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.online_dpo import OnlineDPOConfig

from alignment.ml.configs import GrpoConfig, OnlineDpoConfig, RlooConfig
from alignment.ml.online import dpo, grpo, rloo
from benchmarks.bench_training import _online, online_dpo
from benchmarks.bench_training._online import BETA, answers_given, group_arguments

pytestmark = pytest.mark.ml

SIDES = {
    "rloo": (
        (rloo, RlooConfig, answers_given(RLOOTrainer), RLOOConfig),
        {"samples": 4, "ours_settings": {"kl_coef": BETA}, "trl_settings": group_arguments(4)},
    ),
    "grpo": (
        (grpo, GrpoConfig, answers_given(GRPOTrainer), GRPOConfig),
        {
            "samples": 4,
            "ours_settings": {"kl_coef": BETA},
            "trl_settings": {**group_arguments(4), "use_bias_correction_kl": False},
        },
    ),
    "online_dpo": (
        (dpo, OnlineDpoConfig, online_dpo.Given, OnlineDPOConfig),
        {
            "samples": 2,
            "ours_settings": {"beta": BETA},
            "trl_settings": online_dpo.trl_arguments(),
            "per_step": 4,
            "micro_batches": (2,),  # two a step, whose gradients TRL adds up if it is let
        },
    ),
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
        **{"micro_batches": (4,)} | more,
    )
    line = json.loads(capsys.readouterr().out)
    assert line["gradient_difference"] < 1e-5
    assert line["ratio"] == pytest.approx(line["trl_s"] / line["ours_s"], rel=0.1)
    assert line["trl_micro_batch"] == (2 if name == "online_dpo" else 4)
    assert line["ours_row_tokens"] in (64, 128)
