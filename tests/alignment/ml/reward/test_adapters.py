"""Reward models that are adapters: published beside their base, and the same scores from there."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import merge_adapter
from alignment.ml.configs import RewardConfig
from alignment.ml.reward import training
from alignment.ml.scoring import Scorer
from alignment.ml.shared_prefix import pack
from modelhub.ml.adapter import ModelInput, model_input_load
from modelhub.ml.adapter_directory import adapter_directory_check
from modelhub.ml.checkpoint import CheckpointError, model_load
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.manifest import manifest_write
from modelhub.ml.rundir import RunDir
from modelhub.ml.safetensors_file import ModelDirectoryError
from tests.alignment.ml import programs
from tests.alignment.ml.reward.test_training import result_of, rows, run_make
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml

SETTINGS = {
    "lora": {"lr": 5e-3, "lora_rank": 8},
    "prefix": {"lr": 2e-1, "virtual_tokens": 4, "heads": 2, "combine": "worst"},
    "p_tuning": {"lr": 2e-2, "virtual_tokens": 4, "encoder_width": 32},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, base):
    """A run of each kind, and the scores that the model had at its end."""
    found = {}
    for kind, settings in SETTINGS.items():
        folder = tmp_path_factory.mktemp(kind)
        records = [*rows(24), *rows(8, first=200, split="held_out")]
        more = {"epochs": 8, "head_lr": 3e-2, "grad_norm_rise_limit": 0}
        run_make(folder, base, records, adapter=kind, publish="adapter", **more, **settings)
        seen = {}
        reports_make = training.reports_make

        def look(model, data, config, seen=seen, reports_make=reports_make):
            groups = [one.group for one in data.of_split("held_out")]
            seen["scores"] = training.scores_of(model, data.of_split("held_out"), config)
            seen["groups"] = groups
            return reports_make(model, data, config)

        training.reports_make = look
        try:
            training.main(RunDir(folder))
        finally:
            training.reports_make = reports_make
        found[kind] = (folder, seen)
    return found


def scores_of(given, groups):
    scorer = Scorer(given, role="reward", dtype="float32")
    found = {}
    with torch.no_grad():
        for row in pack(groups, 4096):
            found |= zip(row.indices, scorer.scores(row), strict=True)
    return torch.tensor([score for place in range(len(groups)) for score in found[place]])


@pytest.mark.parametrize("kind", SETTINGS)
def test_it_scores_from_its_base_as_it_did_at_the_end_of_training(trained, base, kind):
    run, seen = trained[kind]
    outputs = json.loads((run / "result.json").read_text())["outputs"]
    assert {role: one["kind"] for role, one in outputs.items()} == {"adapter": "adapter"}
    facts = adapter_directory_check(run / "outputs" / "adapter")
    assert (facts.kind, facts.role, facts.base_sha256) == (kind, "reward", manifest_write(base))
    assert facts.reward.heads == SETTINGS[kind].get("heads", 1)
    result = result_of(run)
    assert (result["adapter"], result["architecture"]) == (kind, "LlamaForCausalLM")
    assert result["parameters"] == facts.parameters
    assert result["held_out"]["accuracy"] > 0.7
    found = scores_of(ModelInput(run / "outputs" / "adapter", base), seen["groups"])
    assert found.std() > 0.1
    assert torch.allclose(found, torch.cat(seen["scores"]), atol=1e-4)


def test_merged_it_is_a_plain_reward_model_of_the_same_scores(tmp_path, trained, base):
    run, seen = trained["lora"]
    inputs = {"adapter": run / "outputs" / "adapter", "adapter_base": base}
    merge = programs.run_make(tmp_path / "run", "merge_adapter", inputs, {"dtype": "float32"})
    merge_adapter.main(RunDir(merge))
    folder = merge / "outputs" / "model"
    assert type(model_load(folder, dtype="float32", role="reward")).__name__.startswith("Llama")
    found = scores_of(folder, seen["groups"])
    assert torch.allclose(found, torch.cat(seen["scores"]), atol=1e-3)


def test_its_zero_on_demonstrations_is_kept_beside_it(tmp_path, base):
    texts = ("aaa", "bbb", "ab")
    records = [programs.demonstration_written(number, text) for number, text in enumerate(texts)]
    run_make(tmp_path, base, rows(8), adapter="lora", publish="adapter", head_lr=0.1)
    from modelhub.ml.records import records_write

    (tmp_path / "inputs" / "demonstrations").mkdir()
    records_write(tmp_path / "inputs" / "demonstrations" / "demonstrations.jsonl", records)
    described = json.loads((tmp_path / "config.json").read_text())
    described["inputs"]["demonstrations"] = {
        "path": "inputs/demonstrations",
        "sha256": manifest_write(tmp_path / "inputs" / "demonstrations"),
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    training.main(RunDir(tmp_path))
    told = result_of(tmp_path)["zero"]["shifts"]
    assert abs(told[0]) > 1e-4
    model = model_input_load(
        ModelInput(tmp_path / "outputs" / "adapter", base), dtype="float32", role="reward"
    )
    assert model.config.reward_shifts == told


def test_training_goes_on_from_a_lora_and_not_from_virtual_tokens(tmp_path, trained, base):
    for kind in ("lora", "prefix"):
        folder = tmp_path / kind
        run_make(folder, base, rows(8), rankings_per_step=8)
        described = json.loads((folder / "config.json").read_text())
        adapter = trained[kind][0] / "outputs" / "adapter"
        described["inputs"]["base_base"] = described["inputs"]["base"]
        described["inputs"]["base"] = {"path": str(adapter), "sha256": manifest_write(adapter)}
        (folder / "config.json").write_text(json.dumps(described))
    training.main(RunDir(tmp_path / "lora"))
    assert result_of(tmp_path / "lora")["losses"][0] < 0.5  # it knows the rule already
    assert result_of(trained["lora"][0])["losses"][0] == pytest.approx(0.693, abs=1e-3)
    with pytest.raises(RefusedError, match="the base is a prefix adapter of a reward model"):
        training.main(RunDir(tmp_path / "prefix"))


def test_without_its_head_or_how_to_read_it_nothing_is_loaded(tmp_path, trained, base):
    from safetensors.torch import load_file, save_file

    source = trained["lora"][0] / "outputs" / "adapter"
    folder = shutil.copytree(source, tmp_path / "headless")
    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors["base_model.model.score.weight"]
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelDirectoryError, match=r"wanted the head score\.weight"):
        adapter_directory_check(folder)
    folder = shutil.copytree(source, tmp_path / "unread")
    (folder / "reward.json").unlink()
    with pytest.raises(ModelDirectoryError, match=r"reward\.json: missing"):
        adapter_directory_check(folder)
    (folder / "reward.json").write_text('{"heads": 1, "shifts": [1.0, 2.0]}')
    with pytest.raises(ModelDirectoryError, match=r"wanted heads, combine"):
        adapter_directory_check(folder)
    with pytest.raises(CheckpointError, match="is for a reward model, wanted causal"):
        model_input_load(ModelInput(source, base), dtype="float32")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"adapter": "prefix"}, "reward.publish: wanted adapter: prefix cannot be merged"),
        ({"lora_rank": 8}, "reward.lora_rank: wanted 16, or adapter lora beside it"),
        ({"adapter": "lora", "lora_dropout": 0.1}, "reward.lora_dropout: wanted 0"),
        (
            {"adapter": "lora", "publish": "adapter", "reward_token": True},
            "reward.reward_token: wanted false where the adapter is published",
        ),
    ],
)
def test_settings_that_could_not_be_kept_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        RewardConfig(**config)


def test_qlora_is_refused_plainly_where_there_is_no_gpu(tmp_path, base, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run_make(tmp_path, base, rows(4), adapter="qlora", publish="adapter")
    with pytest.raises(RefusedError, match=r"qlora needs an NVIDIA GPU.*take adapter lora"):
        training.main(RunDir(tmp_path))
