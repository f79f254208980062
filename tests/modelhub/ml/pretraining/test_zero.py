"""ZeRO by DeepSpeed on two real processes (gloo): the losses of one. DeepSpeed is an extra."""

import importlib.util
import shutil
import time

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from safetensors.torch import load_file

from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.zero import share_check, share_of, weights_shared_check, zero_check
from tests.modelhub.ml.pretraining.pretrain_runs import (
    figures_of,
    pretrain_run,
    shards_write,
    sums,
    tokenizer_write,
)
from tests.modelhub.ml.pretraining.zero_program import SITE, drifting, main
from tests.modelhub.ml.ranks import ranks_end, ranks_run, ranks_start

pytestmark = [pytest.mark.ml, pytest.mark.slow]
needs_deepspeed = pytest.mark.skipif(
    not SITE and importlib.util.find_spec("deepspeed") is None,
    reason="the deepspeed extra is not installed",
)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    return tokenizer_write(folder / "tokenizer"), shards_write(folder / "tokens", sums(0, 120))


def made(folder, given, **config):
    tokenizer, tokens = given
    # Three passes, so that one of two processes makes a blank one.
    settings = {"steps": 6, "blocks_per_step": 6, "checkpoint_every_steps": 3, "spike_rewinds": 0}
    return pretrain_run(folder, tokenizer, {"tokens": tokens}, **settings, **config)


@pytest.fixture(scope="module")
def alone(given, tmp_path_factory):
    run = made(tmp_path_factory.mktemp("alone") / "run", given)
    assert ranks_run(main, run, world=1) == [0], (run / "log.txt").read_text()[-3000:]
    return run


@needs_deepspeed
@pytest.mark.parametrize(
    ("stage", "dtype"), [(1, "float32"), (2, "float32"), (3, "float32"), (3, "bfloat16")]
)
def test_two_processes_give_the_losses_of_one(tmp_path, given, alone, stage, dtype):
    run = made(tmp_path / "run", given, zero_stage=stage, dtype=dtype)
    assert ranks_run(main, run, world=2) == [0, 0], (run / "log.txt").read_text()[-3000:]
    near = 2e-4 if dtype == "float32" else 2e-2
    for name in ("loss", "grad_norm", "validation_tokens"):
        found = figures_of(run, name)
        assert found == pytest.approx(figures_of(alone, name), rel=near), name
        if dtype == "bfloat16":  # its products are of that dtype indeed
            assert found != pytest.approx(figures_of(alone, name), rel=2e-5), name
    one, other = (load_file(run / "outputs/model/model.safetensors") for run in (alone, run))
    assert one.keys() == other.keys()
    if dtype == "float32":
        assert all(torch.allclose(one[name], other[name], atol=2e-3) for name in one)


@needs_deepspeed
@pytest.mark.parametrize("shared", [2, 3])
def test_a_killed_run_goes_on_shared_and_alone_and_a_weight_that_drifts_stops_it(
    tmp_path, given, alone, shared
):
    run = made(tmp_path / "run", given, zero_stage=shared)
    processes = ranks_start(main, run, world=2)
    deadline = time.monotonic() + 200
    kept = run / "checkpoints" / "step-00000003"
    while not (kept / "manifest.json").exists():
        living = all(process.is_alive() for process in processes)
        assert living and time.monotonic() < deadline, (run / "log.txt").read_text()[-3000:]
        time.sleep(0.005)
    for process in processes:
        process.kill()
    ranks_end(processes)
    # Of stage 2 every rank has all weights, and those of one change behind the last step here.
    drifts = shared == 2
    for world, stage in ((1, 0), (2, shared)):
        again = made(tmp_path / f"on{world}", given, zero_stage=stage)
        (again / "checkpoints").mkdir()
        shutil.copytree(kept, again / "checkpoints" / "step-00000003")
        (again / "drift").write_text("wte.weight,6")
        program, ended = (drifting, 2) if drifts and world == 2 else (main, 0)
        log = again / "log.txt"
        assert ranks_run(program, again, world=world) == [ended] * world, log.read_text()[-3000:]
        assert figures_of(again, "loss") == pytest.approx(figures_of(alone, "loss")[3:], rel=2e-4)
        assert (again / "result.json").exists() == (not ended)
        told = "refused: the weights of rank 1 are not those of rank 0: transformer.wte.weight"
        assert (told in log.read_text()) == bool(ended)


def weight_of(size, *, share, here=0):
    """As DeepSpeed's stage 3 leaves a weight: its own numbers elsewhere, as many as are a share."""
    weight = torch.zeros(here)
    weight.ds_id, weight.ds_numel, weight.ds_tensor = 0, size, torch.zeros(share)
    return weight


def test_a_share_that_does_not_divide_is_filled_up():
    whole = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    assert share_of(whole, numbers=3, rank=0).tolist() == [1.0, 2.0, 3.0]
    assert share_of(whole, numbers=3, rank=1).tolist() == [4.0, 5.0, 0.0]
    assert share_of(whole, numbers=2, rank=3).tolist() == [0.0, 0.0]


def test_what_is_not_shared_is_refused():
    share_check([500 + 24], [1000], world=2)
    with pytest.raises(RefusedError, match="has the moments of 1,000,000 of 1,000,000 weights"):
        share_check([1_000_000], [1_000_000], world=2)
    weights_shared_check([("a", weight_of(5, share=3))], world=2)
    with pytest.raises(RefusedError, match="has 5 of the 5 numbers of b"):
        weights_shared_check([("a", weight_of(4, share=2)), ("b", weight_of(5, share=5))], world=2)
    with pytest.raises(RefusedError, match="has 4 of the 4 numbers of c"):
        weights_shared_check([("c", torch.zeros(2, 2))], world=2)
    with pytest.raises(RefusedError, match="has 6 of the 4 numbers of d"):  # gathered, and kept
        weights_shared_check([("d", weight_of(4, share=2, here=4))], world=2)
    with pytest.raises(RefusedError, match="there are 1 of ddp"):
        zero_check(1, "ddp")
    with pytest.raises(RefusedError, match="there are 2 of fsdp2"):
        zero_check(2, "fsdp2")


@pytest.mark.parametrize(
    "asked",
    [
        {"zero_stage": 4, "spike_rewinds": 0},
        {"zero_stage": 2},  # rewinds behind a spike are on
        {"zero_stage": 2, "spike_rewinds": 0, "optimizer": "muon"},
        {"zero_stage": 2, "spike_rewinds": 0, "tensor_parallel": 2},
    ],
)
def test_settings_that_zero_cannot_keep_are_refused(asked):
    with pytest.raises(ConfigError, match="zero_stage"):
        PretrainConfig(**asked)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="it is installed")
def test_a_missing_deepspeed_is_named():
    with pytest.raises(RefusedError, match=r"pip install 'rondo\[deepspeed\]'"):
        zero_check(2, "ddp")
