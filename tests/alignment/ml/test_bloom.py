"""BLOOM, whose ALiBi the shared row carries by its positions, from tokens learnt to tokens said."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import sft
from alignment.ml.adapters import adapter_attach
from alignment.ml.configs import SftConfig
from alignment.ml.dropout import dropout_end, residual_dropout_set
from alignment.ml.shared_prefix import answer_logprobs, attach, pack
from modelhub.ml import generate
from modelhub.ml.adapter import ModelInput
from modelhub.ml.checkpoint import model_load, model_save
from modelhub.ml.configs import RefusedError
from modelhub.ml.manifest import manifest_write
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.playground import prompt_lay
from modelhub.ml.pretraining.architectures import Special, model_config
from modelhub.ml.pretraining.presets import SIZES
from modelhub.ml.rundir import RunDir
from modelhub.ml.trials import PlaygroundConfig
from modelhub.ml.writer import Writer
from tests.alignment.ml.programs import lines_of, metrics_of, prompts_write, run_make
from tests.alignment.ml.shared_prefix.models import assert_close, random_groups, separate_logprobs
from tests.alignment.ml.test_sft import demonstration, sft_run
from tests.tiny_model import tiny_tokenizer

pytestmark = pytest.mark.ml

IDS = ["p00", "p01"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    tokenizer = tiny_tokenizer()
    special = Special(
        vocabulary=len(tokenizer),
        table=len(tokenizer),
        pad_id=tokenizer.pad_token_id,
        end_id=tokenizer.eos_token_id,
    )
    config = model_config("bloom", SIZES["bloom"]["tiny"], special, context=256, dropout=0.0)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    model_save(transformers.BloomForCausalLM(config), tokenizer, folder, dtype="float32")
    manifest_write(folder)
    return folder


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
    inputs = {"model": run / "outputs" / role, "prompts": prompts_write(tmp_path / "p", IDS)}
    if role == "adapter":
        inputs["model_base"] = base
    config = {"engine": "transformers", "temperatures": [0.0], "samples": 1, "max_tokens": 16}
    drawn = run_make(tmp_path / "drawn", "generate", inputs, config)
    generate.main(RunDir(drawn))
    found = lines_of(drawn / "outputs" / "candidates" / "candidates.jsonl")
    if role == "model":
        assert losses[-1] < 0.05 * losses[0]
        assert [one["text"] for one in found] == ["p00 it is", "p01 it is"]


def test_the_playground_writes_what_transformers_writes(base):
    config = PlaygroundConfig(
        models=("bloom v1",),
        strategies=({"kind": "greedy"},),
        prompt="One two",
        layout="plain",
        max_tokens=8,
    )
    tokenizer = tiny_tokenizer()
    writer = Writer(ModelInput(base), tokenizer, config)
    read = writer.prompt_read(prompt_lay(tokenizer, config)[1])
    *_, written = writer.write(read, config.decodings[0])
    ids = torch.tensor([tokenizer("One two")["input_ids"]])
    plain = transformers.BloomForCausalLM.from_pretrained(base, dtype=torch.float32)
    out = plain.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=2
    )
    assert [one.id for one in written] == out[0, ids.shape[1] :].tolist()


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
