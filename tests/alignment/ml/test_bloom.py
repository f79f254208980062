"""BLOOM, whose ALiBi the shared row carries by its positions, from tokens learnt to tokens said."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import sft
from alignment.ml.adapters import adapter_attach
from alignment.ml.configs import SftConfig
from alignment.ml.dropout import dropout_end, residual_dropout_set
from alignment.ml.shared_prefix import answer_logprobs, attach, pack
from modelhub.ml.checkpoint import model_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.pretrained import IDS, playground_check, pretrained_write, said
from tests.alignment.ml.programs import metrics_of
from tests.alignment.ml.shared_prefix.models import assert_close, random_groups, separate_logprobs
from tests.alignment.ml.test_sft import demonstration, sft_run

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pretrained_write(tmp_path_factory.mktemp("base"), "bloom", transformers.BloomForCausalLM)


def test_its_context_is_what_it_was_pretrained_on(base):
    facts = model_directory_check(base)
    assert (facts.architecture, facts.context_tokens) == ("BloomForCausalLM", 256)


@pytest.mark.parametrize(
    "more",
    [{"lr": 5e-3}, {"adapter": "p_tuning", "publish": "adapter", "virtual_tokens": 8, "lr": 2e-2}],
    ids=["every weight", "p_tuning"],
)
def test_it_learns_demonstrations_and_says_them(tmp_path, base, more):
    records = [demonstration(name, f"{name} it is") for name in IDS]
    epochs = 60 if "adapter" not in more else 4
    run = sft_run(tmp_path / "sft", base, records, epochs=epochs, examples_per_step=2, **more)
    sft.main(RunDir(run))
    losses = [values["loss"] for values in metrics_of(run).values()]
    assert losses[-1] < losses[0]
    role = "adapter" if "adapter" in more else "model"
    inputs = {"model": run / "outputs" / role}
    if role == "adapter":
        inputs["model_base"] = base
    found = said(tmp_path, **inputs)
    if role == "model":
        assert losses[-1] < 0.05 * losses[0]
        assert found == ["p00 it is", "p01 it is"]


def test_the_playground_writes_what_transformers_writes(base):
    plain = transformers.BloomForCausalLM.from_pretrained(base, dtype=torch.float32)
    playground_check(base, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_row_in_halves_keeps_the_distances(base, dtype):
    """bfloat16 has 8 bits, and a place of 200 behind a slope of 1/2 needs more."""
    model, plain = (model_load(base, dtype="float32") for _ in range(2))
    attach(model)
    groups = random_groups(3, [(120, (60, 40)), (30, (20,))])
    (row,) = pack(groups, 512)
    with torch.no_grad():
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            found = answer_logprobs(model, row)
        expected = [separate_logprobs(plain, groups[place]) for place in row.indices]
    ours = torch.cat([one for own in found for one in own])
    theirs = torch.cat([one for own in expected for one in own])
    assert_close(ours, theirs, relative=1e-5 if dtype == torch.float32 else 1e-2)


def test_its_own_dropout_is_switched_off_and_set(base):
    model = model_load(base, dtype="float32").train()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        still = model(ids).logits
        residual_dropout_set(model, 0.5)
        assert not torch.allclose(model(ids).logits, still, atol=1e-3)
        dropout_end(model)
        assert torch.allclose(model(ids).logits, still, atol=1e-5)


def test_a_prefix_is_refused_by_what_it_is(base):
    with pytest.raises(RefusedError, match="adapter prefix: a model with ALiBi has no place"):
        adapter_attach(
            model_load(base, dtype="float32"), SftConfig(adapter="prefix", publish="adapter")
        )
