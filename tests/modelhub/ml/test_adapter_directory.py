"""A folder is taken for an adapter only if all that is in it is known."""

import json
import struct

import pytest

from modelhub.ml.adapter_directory import adapter_directory_check, is_adapter
from modelhub.ml.safetensors_file import ModelDirectoryError

BASE = "sha256:" + "ab" * 32
MODULE = "base_model.model.model.layers.0.mlp.down_proj"


def tensors_write(path, shapes):
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4
        for one in shape:
            size *= one
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


def lora(folder, *, shapes=None, **settings):
    folder.mkdir(exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE,
        "inference_mode": True,
        "r": 4,
        "lora_alpha": 8.0,
        "target_modules": ["down_proj"],
        "bias": "none",
        "init_lora_weights": True,
        **settings,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if shapes is None:
        shapes = {f"{MODULE}.lora_A.weight": [4, 6], f"{MODULE}.lora_B.weight": [5, 4]}
    tensors_write(folder / "adapter_model.safetensors", shapes)
    return folder


def test_an_adapter_says_what_it_is(tmp_path):
    folder = lora(tmp_path / "a")
    facts = adapter_directory_check(folder)
    assert is_adapter(folder) and not is_adapter(tmp_path)
    assert (facts.kind, facts.role, facts.rank, facts.parameters) == ("lora", "causal", 4, 44)
    assert facts.base_sha256 == "ab" * 32


def test_virtual_tokens_are_counted(tmp_path):
    folder = lora(tmp_path / "a", shapes={"prompt_embeddings": [7, 12]})
    config = {
        "peft_type": "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE,
        "num_virtual_tokens": 7,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    facts = adapter_directory_check(folder)
    assert (facts.kind, facts.virtual_tokens, facts.rank) == ("prefix", 7, 0)
    config["num_virtual_tokens"] = 8
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelDirectoryError, match="of other virtual tokens"):
        adapter_directory_check(folder)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"auto_mapping": {"base_model_class": "os"}}, "auto_mapping is not a setting"),
        ({"base_model_name_or_path": "someone/model"}, "does not name its base by sha256"),
        ({"base_model_name_or_path": None}, "does not name its base by sha256"),
        ({"peft_type": "VERA"}, "peft_type 'VERA'"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "task_type 'SEQ_2_SEQ_LM'"),
        ({"target_modules": "(a+)+$"}, "target_modules .* is not taken"),
        ({"target_modules": ["../x"]}, "target_modules .* is not taken"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' is not taken"),
        ({"use_dora": True}, "use_dora is not a setting"),
        ({"megatron_core": "some.module"}, "megatron_core is not a setting"),
        ({"loftq_config": {"loftq_bits": 4}}, "loftq_config is not a setting"),
        ({"trust_remote_code": True}, "trust_remote_code asks for code"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save .* is not taken"),
        ({"r": 0}, "r 0 is not taken"),
        ({"r": True}, "r True is not taken"),
        ({"r": 8}, "is not of rank 8"),
        ({"target_modules": ["up_proj"]}, "is not among target_modules"),
    ],
)
def test_a_setting_that_is_not_known_or_does_not_fit_is_refused(tmp_path, changed, reason):
    with pytest.raises(ModelDirectoryError, match=reason):
        adapter_directory_check(lora(tmp_path / "a", **changed))


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({f"{MODULE}.lora_A.weight": [4, 6]}, "has one of its two parts"),
        ({"model.embed_tokens.weight": [4, 6]}, "is not a LoRA weight"),
        ({"base_model.model.score.weight": [1, 6]}, "is not a LoRA weight"),
    ],
)
def test_weights_that_are_not_the_settings_own_are_refused(tmp_path, shapes, reason):
    with pytest.raises(ModelDirectoryError, match=reason):
        adapter_directory_check(lora(tmp_path / "a", shapes=shapes))


@pytest.mark.parametrize("name", ["adapter_model.bin", "code.py", "model.safetensors", "x.txt"])
def test_another_file_is_refused(tmp_path, name):
    folder = lora(tmp_path / "a")
    (folder / name).write_bytes(b"x")
    with pytest.raises(ModelDirectoryError, match=name):
        adapter_directory_check(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_file_that_is_missing_is_named(tmp_path, name):
    folder = lora(tmp_path / "a")
    (folder / name).unlink()
    with pytest.raises(ModelDirectoryError, match=f"{name}: missing"):
        adapter_directory_check(folder)


def test_weights_that_are_a_link_are_refused(tmp_path):
    folder = lora(tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(tmp_path / "elsewhere")
    (folder / "adapter_model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelDirectoryError, match="a link"):
        adapter_directory_check(folder)
