"""A pipeline of two real processes (gloo): the losses of one, and what is no pipeline refused."""

import shutil
import time

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from safetensors.torch import load_file

from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.pipeline_parallel import held_check, stages_check
from modelhub.ml.pretraining.__main__ import main
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.training import stage_passes
from tests.modelhub.ml.pretraining.pretrain_runs import (
    figures_of,
    pretrain_run,
    shards_write,
    sums,
    tokenizer_write,
)
from tests.modelhub.ml.ranks import ranks_end, ranks_run, ranks_start

pytestmark = [pytest.mark.ml, pytest.mark.slow]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    return tokenizer_write(folder / "tokenizer"), shards_write(folder / "tokens", sums(0, 120))


def made(folder, given, **config):
    tokenizer, tokens = given
    settings = {"architecture": "llama", "steps": 6, "checkpoint_every_steps": 3, **config}
    return pretrain_run(folder, tokenizer, {"tokens": tokens}, **settings)


@pytest.fixture(scope="module")
def alone(given, tmp_path_factory):
    run = made(tmp_path_factory.mktemp("alone") / "run", given)
    assert ranks_run(main, run, world=1) == [0], (run / "log.txt").read_text()[-3000:]
    return run


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_stages_give_the_losses_of_one_process(tmp_path, given, alone, dtype):
    run = made(tmp_path / "run", given, pipeline_parallel=2, dtype=dtype)
    assert ranks_run(main, run, world=2) == [0, 0], (run / "log.txt").read_text()[-3000:]
    near = 2e-4 if dtype == "float32" else 2e-2
    for name in ("loss", "grad_norm", "validation_tokens"):
        assert figures_of(run, name) == pytest.approx(figures_of(alone, name), rel=near), name
    one, other = (load_file(run / "outputs/model/model.safetensors") for run in (alone, run))
    assert one.keys() == other.keys()
    if dtype == "float32":
        assert all(torch.allclose(one[name], other[name], atol=2e-3) for name in one)


def test_a_killed_pipeline_goes_on_alone_and_as_a_pipeline(tmp_path, given, alone):
    run = made(tmp_path / "run", given, pipeline_parallel=2, steps=300)
    processes = ranks_start(main, run, world=2)
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "step-00000003" / "manifest.json").exists():
        living = all(process.is_alive() for process in processes)
        assert living and time.monotonic() < deadline, (run / "log.txt").read_text()[-3000:]
        time.sleep(0.01)
    for process in processes:
        process.kill()
    ranks_end(processes)
    for world in (1, 2):
        again = made(tmp_path / f"on{world}", given, pipeline_parallel=world)
        (again / "checkpoints").mkdir()
        shutil.copytree(
            run / "checkpoints" / "step-00000003", again / "checkpoints" / "step-00000003"
        )
        assert ranks_run(main, again, world=world) == [0] * world
        assert "going on after step 3" in (again / "log.txt").read_text()
        assert figures_of(again, "loss") == pytest.approx(figures_of(alone, "loss")[3:], rel=2e-4)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def test_processes_that_are_no_stages_are_refused(tmp_path, given):
    run = made(tmp_path / "run", given, pipeline_parallel=2)
    assert ranks_run(main, run, world=1) == [2]
    assert "pipeline_parallel is 2 and there are 1 processes" in (run / "log.txt").read_text()


def test_a_weight_that_two_stages_have_or_none_is_refused():
    names = ["a", "b", "c"]
    held_check([{"a"}, {"b", "c"}], names)
    with pytest.raises(RefusedError, match="b is on 2 stages"):
        held_check([{"a", "b"}, {"b", "c"}], names)
    with pytest.raises(RefusedError, match="c is on 0 stages"):
        held_check([{"a"}, {"b"}], names)
    with pytest.raises(RefusedError, match="stage 0 has 3 of 3 weights"):
        held_check([{"a", "b", "c"}, set()], names)


def test_models_that_cannot_be_cut_are_refused():
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    small = {"hidden_size": 8, "intermediate_size": 8, "vocab_size": 8, "num_attention_heads": 2}
    tied = LlamaForCausalLM(LlamaConfig(**small, num_hidden_layers=2, tie_word_embeddings=True))
    short = LlamaForCausalLM(LlamaConfig(**small, num_hidden_layers=1))
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=8))
    for model, said in (
        (tied, "embedding and head are one weight"),
        (short, "has 1 layers for 2 stages"),
        (gpt2, "has no plan of pipeline parallelism"),
    ):
        with pytest.raises(RefusedError, match=said):
            stages_check(model, 2, "ddp", 2)
    with pytest.raises(ConfigError, match="pipeline_parallel"):
        PretrainConfig(architecture="mixtral", size="tiny", pipeline_parallel=2)


def test_passes_are_equal_and_keep_every_stage_busy():
    assert stage_passes(16, 16, 2) == 2
    assert stage_passes(16, 3, 2) == 8  # six would not be equal
    assert stage_passes(7, 7, 2) == 7
    assert stage_passes(1, 16, 4) == 1
