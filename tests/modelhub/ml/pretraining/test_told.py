"""What a pretraining run tells as it trains: tokens by source, speed, and texts it writes."""

import json

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from modelhub.ml.configs import config_load
from modelhub.ml.mixture import Blend, Mixture, Source
from modelhub.ml.pretraining import training
from modelhub.ml.pretraining.__main__ import main, sources_open, told
from modelhub.ml.pretraining.architectures import Special
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.data import TokenSource
from modelhub.ml.pretraining.presets import Size, token_flops
from modelhub.ml.pretraining.training import Progress
from modelhub.ml.pretraining.validation import Watch
from modelhub.ml.pretraining.watchdog import Watchdog
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import lines_of
from tests.modelhub.ml.pretraining.pretrain_runs import (
    pretrain_run,
)

pytestmark = pytest.mark.ml


def test_mfu_is_what_was_computed_over_what_the_machine_multiplies():
    # Attention 2 · 8² + 2 · 8 · 4, MLP 3 · 8 · 16, norms 2 · 8: 592 weights a layer. Two layers, a
    # norm of 8 and a head of 10 · 8: 1,272, six operations each, and 12 · 2 · 8 · 4 of attention.
    size = Size(hidden=8, layers=2, heads=2, kv_heads=1, intermediate=16)
    flops = token_flops("llama", size, vocabulary=10, context=4, block_tokens=4)
    assert flops == 6 * 1272 + 768 == 8400
    progress = Progress(
        step=5, tokens=1000, losses=[2.0], timed_tokens=600, timed_s=2.0, source_tokens=[]
    )
    watch = Watch(sources=[], special=None, tokenizer=None, processes=None)
    found = told(progress, watch, [], flops, 10_000_000.0, 500)
    assert found["flops"] == 8_400_000
    assert found["tokens_per_s"] == 300
    assert found["mfu"] == pytest.approx(300 * 8400 / 10_000_000)  # 0.252
    assert found["tokens_per_parameter"] == 2


def test_verifying_a_token_set_gives_signs_of_life_within_it(
    tmp_path, tokenizer, tokens, monkeypatch
):
    run = RunDir(pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}))
    dog, beats = Watchdog(60.0), []
    monkeypatch.setattr(dog, "beat", lambda: beats.append(None))
    special = Special(vocabulary=500, table=500, pad_id=0, end_id=0)
    sources_open(run, run.config(PretrainConfig), special, dog)
    files = [path for path in tokens.iterdir() if path.name != "manifest.json"]
    assert len(beats) >= len(files) > 1


def test_tokens_of_each_source_are_counted_as_it_trains(
    tmp_path, tokenizer, tokens, other_tokens, monkeypatch
):
    run = pretrain_run(
        tmp_path / "run",
        tokenizer,
        {"tokens": tokens, "tokens_2": other_tokens},
        shares=[0.25, 0.75],
    )
    main(RunDir(run))
    found: dict[int, dict[str, float]] = {}
    for line in lines_of(run / "metrics.jsonl"):
        found.setdefault(line["step"], {}).update(line["values"])
    result = json.loads((run / "result.json").read_text())["result"]
    assert list(result["tokens_of"]) == ["tokens", "tokens_2"]
    last = {name: found[12][f"tokens_{name}"] for name in result["tokens_of"]}
    assert last == result["tokens_of"]
    for step in (1, 6, 12):
        sums = found[step]["tokens_tokens"] + found[step]["tokens_tokens_2"]
        assert sums == found[step]["tokens"]
    assert 0 < last["tokens"] < last["tokens_2"]
    speed = result["flops_per_token"] / result["matmul_flops_per_s"]
    assert found[12]["mfu"] == pytest.approx(found[12]["tokens_per_s"] * speed)
    assert result["mfu"] == pytest.approx(result["tokens_per_s"] * speed)
    # Of more sources than there may be curves, those that are read most.
    monkeypatch.setattr(training, "_COUNTED_SOURCES", 1)
    names = source_counts_of(shares=(0.25, 0.75), step=12)
    assert names == {"tokens_b": 32.0}


def source_counts_of(*, shares, step):
    """What a run of 12 steps tells at one of them, of two sources a and b with 16 and 32 tokens."""
    config = PretrainConfig(steps=12, blocks_per_step=4)
    blend = Blend(first_sample=0, run_samples=100, shares=shares)
    mixture = Mixture([Source(name=one, blocks=50) for one in "ab"], [blend], seed=0)
    sources = [TokenSource(name, None, 32, 50, 0, False) for name in "ab"]
    return training.source_counts(
        Progress(step=step, source_tokens=[16, 32]), sources, mixture, config
    )


def test_a_model_of_spans_writes_behind_a_beginning(tmp_path, tokenizer, tokens):
    run = pretrain_run(
        tmp_path / "run",
        tokenizer,
        {"tokens": tokens},
        architecture="t5",
        steps=60,
        lr=1e-2,
        sample_every_steps=60,
        sample_prompts=["12 and 12 are"],
    )
    main(RunDir(run))
    first, last = json.loads((run / "result.json").read_text())["result"]["samples"]
    assert (first["step"], last["step"]) == (0, 60)
    assert last["prompt"] == "12 and 12 are"
    assert last["text"] != first["text"]
    assert "<extra_id" not in last["text"]


@pytest.mark.parametrize("name", PretrainConfig.PRESETS)
def test_presets_write_samples_as_they_train(name):
    config = config_load(PretrainConfig, {"preset": name})
    assert (config.sample_every_steps > 0) == (config.objective != "masked")  # BERT writes nothing
