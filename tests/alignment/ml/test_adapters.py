"""Adapters from training to serving: published, merged, loaded on their base, sampled, compared."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import evaluate, merge_adapter, sft
from alignment.ml.adapters import adapter_machine_check, linear_names
from alignment.ml.configs import SftConfig
from modelhub.ml import generate
from modelhub.ml.adapter import ModelInput, model_input_load
from modelhub.ml.adapter_directory import adapter_directory_check
from modelhub.ml.chat import answer_encode, end_of_turn_id, prompt_render
from modelhub.ml.checkpoint import CheckpointError, model_load, model_save, tokenizer_load
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.manifest import manifest_write
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import (
    candidate,
    candidates_write,
    lines_of,
    metrics_of,
    prompts_write,
    result_of,
    run_make,
    tiny_reward_write,
)
from tests.alignment.ml.test_sft import demonstration, sft_run
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml

KINDS = ("lora", "prefix", "p_tuning")
SETTINGS = {
    "lora": {"lr": 1e-2, "lora_rank": 4},
    "prefix": {"lr": 1e-1, "virtual_tokens": 8},
    "p_tuning": {"lr": 1e-2, "virtual_tokens": 8, "encoder_width": 64},
}
IDS = ["p00", "p01"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The tiny model with an end of turn that it can write: as the padding token its row is 0, and
    no adapter changes the output layer."""
    plain = tiny_model_write(tmp_path_factory.mktemp("plain"))
    model, tokenizer = model_load(plain, dtype="float32"), tokenizer_load(plain)
    with torch.no_grad():
        row = model.get_output_embeddings().weight[end_of_turn_id(tokenizer)]
        row.copy_(torch.linspace(-0.4, 0.4, len(row)))
    folder = tmp_path_factory.mktemp("base")
    model_save(model, tokenizer, folder, dtype="float32")
    manifest_write(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, base):
    """An adapter of each kind, trained until it knows its two answers."""
    made = {}
    for kind in KINDS:
        records = [demonstration(name, f"{name} it is") for name in IDS]
        run = sft_run(
            tmp_path_factory.mktemp(kind),
            base,
            records,
            adapter=kind,
            publish="adapter",
            epochs=150,
            examples_per_step=2,
            grad_norm_rise_limit=0.0,
            **SETTINGS[kind],
        )
        sft.main(RunDir(run))
        made[kind] = run
    return made


def adapter_of(run):
    return run / "outputs" / "adapter"


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_an_artifact_of_its_own_that_names_its_base(trained, base, kind):
    described = json.loads((trained[kind] / "result.json").read_text())
    assert {role: one["kind"] for role, one in described["outputs"].items()} == {
        "adapter": "adapter"
    }
    result = described["result"]
    facts = adapter_directory_check(adapter_of(trained[kind]))
    assert (facts.kind, facts.base_sha256) == (kind, manifest_write(base))
    assert (result["adapter"], result["parameters"]) == (kind, facts.parameters)
    assert result["architecture"] == "LlamaForCausalLM" and result["chat_template"]
    losses = [values["loss"] for values in metrics_of(trained[kind]).values()]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_an_adapter_learnt_is_sampled_on_its_base(tmp_path, trained, base, kind, dtype):
    inputs = {
        "model": adapter_of(trained[kind]),
        "model_base": base,
        "prompts": prompts_write(tmp_path / "prompts", IDS),
    }
    config = {
        "engine": "transformers",
        "dtype": dtype,
        "temperatures": [0.0],
        "samples": 1,
        "max_tokens": 16,
    }
    run = run_make(tmp_path / "run", "generate", inputs, config)
    generate.main(RunDir(run))
    found = lines_of(run / "outputs" / "candidates" / "candidates.jsonl")
    assert [(one["text"], one["finish_reason"]) for one in found] == [
        ("p00 it is", "stop"),
        ("p01 it is", "stop"),
    ]


@pytest.mark.parametrize("kind", ["prefix", "p_tuning"])
def test_auto_takes_an_engine_that_serves_the_adapter(
    tmp_path, trained, base, kind, monkeypatch, capsys
):
    monkeypatch.setattr(generate, "engine_choose", lambda wanted: "vllm")
    inputs = {
        "model": adapter_of(trained[kind]),
        "model_base": base,
        "prompts": prompts_write(tmp_path / "prompts", IDS),
    }
    run = run_make(tmp_path / "run", "generate", inputs, {"samples": 1, "max_tokens": 4})
    generate.main(RunDir(run))
    assert result_of(run)["engine"] == "transformers"
    assert "vLLM serves LoRA adapters alone" in capsys.readouterr().out


@pytest.mark.parametrize("missing", [True, False])
def test_an_adapter_runs_on_its_own_base_and_on_no_other(tmp_path, trained, missing):
    other = tiny_model_write(tmp_path / "other", seed=1)
    inputs = {
        "model": adapter_of(trained["lora"]),
        "prompts": prompts_write(tmp_path / "prompts", IDS),
    }
    if not missing:
        inputs["model_base"] = other
    run = run_make(tmp_path / "run", "generate", inputs, {"engine": "transformers"})
    reason = "needs its base too, as input model_base" if missing else "trained on artifact"
    with pytest.raises(CheckpointError, match=reason):
        generate.main(RunDir(run))


def test_an_adapter_of_other_shapes_is_refused_by_the_name_of_its_weight(tmp_path, trained, base):
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_load(base)
    config = LlamaConfig.from_pretrained(base)
    config.intermediate_size = 64
    model_save(LlamaForCausalLM(config), tokenizer, tmp_path / "other")
    sha256 = manifest_write(tmp_path / "other")
    folder = shutil.copytree(adapter_of(trained["lora"]), tmp_path / "adapter")
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = f"sha256:{sha256}"
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"mlp.down_proj.lora_A.weight has another shape"):
        model_input_load(ModelInput(folder, tmp_path / "other"), dtype="float32")


def test_merged_the_adapter_is_a_plain_model_with_the_same_log_probabilities(
    tmp_path, trained, base
):
    inputs = {"adapter": adapter_of(trained["lora"]), "adapter_base": base}
    run = run_make(tmp_path / "run", "merge_adapter", inputs, {"dtype": "float32"})
    merge_adapter.main(RunDir(run))
    merged = model_load(run / "outputs" / "model", dtype="float32")
    beside = model_input_load(
        ModelInput(adapter_of(trained["lora"]), base), dtype="float32", merge=False
    )
    ids = torch.tensor([[5, 80, 81, 82, 83]])
    with torch.no_grad():
        found, expected = merged(ids).logits, beside(input_ids=ids).logits
        bare = model_load(base, dtype="float32")(ids).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, bare, atol=1e-1)
    assert result_of(run)["rank"] == 4


def test_what_has_no_weights_cannot_be_merged(tmp_path, trained, base):
    inputs = {"adapter": adapter_of(trained["prefix"]), "adapter_base": base}
    run = run_make(tmp_path / "run", "merge_adapter", inputs, {})
    with pytest.raises(RefusedError, match="prefix puts tokens in front of a prompt"):
        merge_adapter.main(RunDir(run))


def test_fine_tuning_goes_on_from_a_lora_merged(tmp_path, trained, base):
    """A round's policy may be an adapter: the next one starts from what it knows."""
    sft_run(tmp_path / "source", base, [demonstration(name, f"{name} it is") for name in IDS])
    records = tmp_path / "source" / "inputs"
    inputs = {
        "base": adapter_of(trained["lora"]),
        "base_base": base,
        "demonstrations": records,
    }
    run = run_make(tmp_path / "run", "sft", inputs, {"epochs": 1})
    sft.main(RunDir(run))
    last = list(metrics_of(trained["lora"]).values())[-1]["loss"]
    assert metrics_of(run)[1]["loss"] == pytest.approx(last, abs=0.05)
    assert (run / "outputs" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_policies_that_are_adapters_are_compared(tmp_path, trained, base, kind):
    """KL of the adapter from its base, on a packed row, is that of each answer alone."""
    answers = [candidate(name, 0, f"{name} it is") for name in IDS]
    inputs = {
        "before": base,
        "after": adapter_of(trained[kind]),
        "after_base": base,
        "reward": tiny_reward_write(tmp_path / "reward", base),
        "prompts": prompts_write(tmp_path / "prompts", IDS),
        "candidates_before": candidates_write(tmp_path / "before", answers),
        "candidates_after": candidates_write(tmp_path / "after", answers),
    }
    run = run_make(tmp_path / "run", "evaluate", inputs, {"bootstrap_samples": 10})
    evaluate.main(RunDir(run))
    after = model_input_load(ModelInput(adapter_of(trained[kind]), base), dtype="float32")
    samples = [
        one
        for one in lines_of(run / "outputs" / "evaluation" / "samples.jsonl")
        if one["side"] == "after"
    ]
    for one in samples:
        assert one["kl"] > 1.0  # it was taught what the base does not say
        assert one["logprob_after"] > -5.0
    tokenizer = tokenizer_load(base)
    prompt_T = prompt_render(tokenizer, [{"role": "user", "content": "Say p01"}])
    answer_T = answer_encode(tokenizer, "p01 it is", "stop")
    ids = torch.tensor([prompt_T + answer_T])
    with torch.no_grad():
        logits_TV = after(input_ids=ids, use_cache=False).logits[0][-len(answer_T) - 1 : -1]
    expected = logits_TV.log_softmax(-1).gather(1, torch.tensor(answer_T)[:, None]).sum()
    assert samples[1]["logprob_after"] == pytest.approx(float(expected), abs=1e-4)


def test_qlora_is_refused_plainly_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RefusedError, match=r"qlora needs an NVIDIA GPU.*take adapter lora"):
        adapter_machine_check(SftConfig(adapter="qlora", publish="adapter"))


@pytest.mark.parametrize("kind", ["prefix", "p_tuning"])
def test_an_adapter_that_cannot_be_merged_is_not_asked_to_be(kind):
    with pytest.raises(ConfigError, match=f"sft.publish: wanted adapter: {kind} cannot be merged"):
        SftConfig(adapter=kind)


def test_an_ending_that_an_adapter_cannot_teach_is_told(tmp_path, capsys):
    run = sft_run(
        tmp_path, tiny_model_write(tmp_path / "base"), [demonstration("a", "b")], adapter="lora"
    )
    sft.main(RunDir(run))
    assert "'<|im_end|>', which ends a turn, has an output row of zeros" in capsys.readouterr().out


def test_every_linear_layer_of_the_blocks_is_adapted_and_no_head(base):
    assert linear_names(model_load(base, dtype="float32")) == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
