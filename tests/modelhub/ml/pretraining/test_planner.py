"""A plan's arithmetic, and its memory beside what a model really keeps."""

import numpy as np
import pytest

from modelhub.ml.pretraining.planner import (
    GIB,
    Ask,
    PlanError,
    activations_estimate,
    chinchilla_loss,
    plan,
)
from modelhub.ml.pretraining.presets import SIZES


def llama(**asked):
    settings = {"architecture": "llama", "size": "7b", "tokens": 1e12, "devices": 256}
    return Ask(**{**settings, **asked})


def stage(found, number, checkpointing=False):
    (one,) = [m for m in found.memory if (m.stage, m.checkpointing) == (number, checkpointing)]
    return one


def test_stages_of_zero_share_what_they_say():
    found = plan(llama(dtype="float32"))
    n = found.parameters
    assert n == 6_738_415_616
    assert [stage(found, s).optimizer for s in range(4)] == [8 * n, *[8 * n / 256] * 3]
    assert [stage(found, s).gradients for s in range(4)] == [4 * n, 4 * n, *[4 * n / 256] * 2]
    assert [stage(found, s).weights for s in range(4)] == [4 * n, 4 * n, 4 * n, 4 * n / 256]


def test_the_fullest_stage_of_a_pipeline_is_told():
    asked = {"dtype": "float32", "devices": 8}
    found = stage(plan(llama(**asked, pipeline_parallel=8)), 0)
    end = 32_000 * 4096  # the embedding, or the head
    assert found.weights == 4 * ((6_738_415_616 - 2 * end) / 8 + end)
    assert found.launched_as == "ddp, pipeline_parallel 8"
    assert found.activations == stage(plan(llama(**asked)), 0).activations


def test_a_plan_names_the_settings_it_is_launched_with():
    shared = plan(llama(devices=8, tensor_parallel=2))
    assert stage(shared, 3).launched_as == "fsdp2, tensor_parallel 2"
    assert [stage(shared, s).launched_as for s in range(3)] == ["", "", ""]
    alike = plan(llama(devices=8))
    assert [stage(alike, s).launched_as for s in range(4)] == [
        "ddp",
        "ddp, zero_stage 1",
        "ddp, zero_stage 2",
        "fsdp2",
    ]
    assert stage(plan(llama(devices=8, optimizer="muon")), 2).launched_as == ""
    assert stage(plan(llama(devices=2, tensor_parallel=2)), 0).launched_as == (
        "ddp, tensor_parallel 2"
    )


def test_time_is_operations_over_rate():
    found = plan(llama(device_flops_per_s=1e15, mfu=0.5))
    assert found.flops == found.flops_per_token * 1e12
    assert found.seconds == pytest.approx(found.flops / (256 * 0.5e15))


def test_chinchilla_wants_twenty_tokens_a_parameter_and_foretells_its_own_loss():
    found = plan(llama(tokens=20 * 6_738_415_616))
    assert found.chinchilla_share == pytest.approx(1.0)
    # Their 70B model on 1.4T tokens: 1.69 + 0.083 + 0.163.
    assert chinchilla_loss(70e9, 1.4e12) == pytest.approx(1.936, abs=0.002)


def test_what_fits_is_what_is_below_a_devices_memory():
    found = plan(llama(device_memory_gib=40))
    assert found.fits
    assert all(one.total <= 40 * GIB for one in found.fits)
    assert stage(found, 0) not in found.fits


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pipeline_parallel", 2),
        ("size", "8b"),
        ("tokens", 0),
        ("mfu", 1.5),
        ("tensor_parallel", 3),
        ("devices", 0),
    ],
)
def test_a_figure_that_makes_no_plan_is_named(field, value):
    with pytest.raises(PlanError, match=field):
        llama(**{field: value})


@pytest.mark.ml
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_activations_are_those_that_a_pass_keeps_within_a_third(architecture):
    torch = pytest.importorskip("torch", reason="the ml extra is not installed")
    from modelhub.ml.pretraining.architectures import Special, batch_make, block_losses, model_make
    from modelhub.ml.pretraining.configs import PretrainConfig

    config = PretrainConfig(architecture=architecture, size="9m", block_tokens=128)
    special = Special(vocabulary=1000, table=1000, pad_id=0, end_id=0)
    model = model_make(config, special)
    blocks = [(np.random.default_rng(n).integers(1, 999, 128), np.arange(128)) for n in range(4)]
    batch = batch_make(blocks, [None] * 4, config, special)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept_graph = block_losses(model, batch.inputs, batch.targets_BR)
    asked = Ask(
        architecture=architecture,
        size="9m",
        tokens=1e6,
        vocabulary=1000,
        block_tokens=128,
        blocks_per_pass=4,
        dtype="float32",
    )
    del kept_graph
    estimate = activations_estimate(asked, SIZES[architecture]["9m"], checkpointing=False)
    assert estimate == pytest.approx(sum(kept.values()), rel=1 / 3)
