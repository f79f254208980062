"""GGUF export: what is written reads back as the same model, and what is not, publishes nothing."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")
gguf = pytest.importorskip("gguf", reason="the ml extra is not installed")

import numpy as np
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from modelhub.ml import export_gguf, gguf_file
from modelhub.ml.checkpoint import model_load, model_save, tokenizer_load
from modelhub.ml.configs import ConfigError, ExportGgufConfig, RefusedError
from modelhub.ml.export_gguf import Beside, beside, logits_check, tokenizers_compare
from modelhub.ml.gguf_file import heads_pair, token_table
from modelhub.ml.import_model import gguf_convert
from modelhub.ml.pretraining.architectures import Special, model_config
from modelhub.ml.pretraining.presets import SIZES
from modelhub.ml.rundir import RunDir
from modelhub.ml.tokenising.configs import TrainTokenizerConfig
from modelhub.ml.tokenising.tokenizers import tokenizer_train
from tests.modelhub.ml.runs import run_write

CORPUS = [
    "秋天的湖边很安静,山下有一座小桥。他说:今天我们走吧!",
    "Über den Dächern zieht der Rauch, die Straßenbahn fährt.",
    "The rain in Leeds: def mean(values): return sum(values) / len(values)",
] * 4


def model_write(
    folder: Path, *, tied: bool = False, role: str = "causal", special: str = "<tool>", **settings
) -> Path:
    """A tiny Llama with a byte-level BPE of its own, more query heads than key heads."""
    config = TrainTokenizerConfig(algorithm="bpe", vocabulary=400, special_tokens=(special,))
    tokenizer = tokenizer_train(iter(CORPUS), config)
    shape = {
        "vocab_size": len(tokenizer) + 3,  # rows that no token has, as padded embeddings do
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        "rms_norm_eps": 1e-4,
        "tie_word_embeddings": tied,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    kind = LlamaForCausalLM if role == "causal" else LlamaForSequenceClassification
    heads = {} if role == "causal" else {"num_labels": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(LlamaConfig(**{**shape, **settings, **heads}))
    model_save(model, tokenizer, folder, dtype="float32")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return model_write(tmp_path_factory.mktemp("gguf") / "base")


def export(tmp_path: Path, base: Path, weight_type: str, **settings) -> Path:
    run = run_write(
        tmp_path / "run", "export_gguf", {"weight_type": weight_type, **settings}, base=base
    )
    export_gguf.main(RunDir(run))
    return run


def fields(path: Path) -> dict:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_rows_that_rotate_together_come_to_stand_together():
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert heads_pair(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(
    ("weight_type", "furthest", "kinds"),
    [
        ("f32", 1e-5, {"F32"}),
        ("f16", 0.05, {"F16", "F32"}),
        ("q8_0", 1.0, {"Q8_0", "F32"}),
        ("q4_0", 20.0, {"Q4_0", "Q8_0", "F32"}),
    ],
)
def test_a_file_is_the_model_it_was_made_of(tmp_path, base, weight_type, furthest, kinds):
    run = export(tmp_path, base, weight_type)
    document = json.loads((run / "result.json").read_text())
    assert document["outputs"]["gguf"]["kind"] == "gguf"
    found = document["result"]
    path = run / "outputs" / "gguf" / f"model-{weight_type.upper()}.gguf"
    assert found["file"] == path.name and found["file_bytes"] == path.stat().st_size
    assert found["max_logit_difference"] <= furthest
    assert (found["max_logit_difference"] == 0) <= (weight_type == "f32")
    assert [row["text"] for row in found["round_trip"]] == list(export_gguf.TEXTS)
    assert (found["token_accuracy"] == found["parent_token_accuracy"]) >= (weight_type == "f32")
    assert {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors} == kinds


def test_an_import_of_the_file_is_the_source_again(tmp_path, base):
    path = export(tmp_path, base, "f32") / "outputs" / "gguf" / "model-F32.gguf"
    (tmp_path / "scratch").mkdir()
    gguf_convert(path, tmp_path / "back", scratch=tmp_path / "scratch")
    source, back = (
        model_load(folder, dtype="float32").state_dict() for folder in (base, tmp_path / "back")
    )
    assert source.keys() == back.keys()
    for name, weights in source.items():
        # Published in bfloat16.
        assert torch.equal(weights.bfloat16().float(), back[name]), name
    text = "小桥 <tool> Straße 42"
    assert tokenizer_load(base)(text) == tokenizer_load(tmp_path / "back")(text)


def test_the_file_says_what_a_server_has_to_know(tmp_path, base):
    run = export(tmp_path, base, "f16", name="tiny poems")
    found = fields(run / "outputs" / "gguf" / "model-F16.gguf")
    tokenizer = tokenizer_load(base)
    wanted = {
        "general.architecture": "llama",
        "general.name": "tiny poems",
        "general.file_type": 1,
        "llama.context_length": 512,
        "llama.block_count": 2,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 5000.0,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-4),
        "llama.vocab_size": len(tokenizer) + 3,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    assert {name: found[name] for name in wanted} == wanted
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert types[tokens.index("<tool>")] == gguf.TokenType.CONTROL
    assert types[-3:] == [gguf.TokenType.UNUSED] * 3 and len(set(tokens)) == len(tokens)


def test_a_tied_embedding_is_written_once(tmp_path):
    base = model_write(tmp_path / "base", tied=True)
    run = export(tmp_path, base, "f32")
    path = run / "outputs" / "gguf" / "model-F32.gguf"
    names = [tensor.name for tensor in gguf.GGUFReader(path).tensors]
    assert "token_embd.weight" in names and "output.weight" not in names


def test_weights_in_the_wrong_order_are_not_published(tmp_path, base, monkeypatch):
    monkeypatch.setattr(gguf_file, "heads_pair", lambda weights, heads: weights)
    with pytest.raises(RefusedError, match=r"a logit of English is .* f32 is allowed 0\.001"):
        export(tmp_path, base, "f32")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_tokenizer_that_reads_back_otherwise_is_not_published(tmp_path, base, monkeypatch):
    def merges_lost(*given):
        table = token_table(*given)
        return dataclasses.replace(table, merges=table.merges[:20])

    monkeypatch.setattr(gguf_file, "token_table", merges_lost)
    with pytest.raises(RefusedError, match="is cut into other tokens from the"):
        export(tmp_path, base, "f32")
    assert not (tmp_path / "run" / "result.json").exists()


def test_an_added_token_that_comes_back_in_pieces_is_not_published(tmp_path):
    # transformers 5.19 takes control tokens for such only if they are in the byte alphabet.
    base = model_write(tmp_path / "base", special="<工具>")
    with pytest.raises(RefusedError, match=r"a text of added tokens is cut .*<工具>"):
        export(tmp_path, base, "f32")


def test_another_chat_template_is_not_published(base):
    source, written = tokenizer_load(base), tokenizer_load(base)
    tokenizers_compare(source, written)
    written.chat_template = "{{ messages }}"
    with pytest.raises(RefusedError, match="chat template"):
        tokenizers_compare(source, written)


def test_figures_of_a_text_by_hand():
    """Two tokens of a vocabulary of two: at odds 3 : 1 before and 1 : 1 after."""
    before = torch.tensor([[np.log(3.0), 0.0], [0.0, 0.0]])
    found = beside("a", torch.tensor([1, 0]), before, torch.zeros(2, 2)).row()
    assert found["parent"] == pytest.approx(4 / 3) and found["own"] == pytest.approx(2)
    assert found["divergence"] == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert found["max_logit_difference"] == pytest.approx(np.log(3))
    # What follows is token 0, which the source thinks likelier; the file finds both alike.
    assert (found["parent_token_accuracy"], found["token_accuracy"]) == (1.0, 1.0)
    other = beside("a", torch.tensor([1, 1]), before, torch.tensor([[0.0, 1.0], [0.0, 0.0]])).row()
    assert (other["parent_token_accuracy"], other["token_accuracy"]) == (0.0, 1.0)


def test_numbers_that_are_not_finite_are_not_published():
    heard = Beside(
        text="code",
        tokens=1,
        parent_nats=1.0,
        nats=float("nan"),
        parent_right=0,
        right=0,
        divergence_nats=0.0,
        max_logit_difference=float("nan"),
    )
    with pytest.raises(RefusedError, match="logits of code are not finite"):
        logits_check([heard], "q4_0")


@pytest.mark.parametrize(
    ("shape", "weight_type", "reason"),
    [
        ({"attention_bias": True}, "f16", "attention_bias is True"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "f16",
            "rope of type 'linear'",
        ),
        ({"intermediate_size": 72}, "q8_0", "rows of 72 weights"),
        ({"vocab_size": 300}, "f16", "the model 300 rows"),
        ({"role": "reward"}, "f16", "only policies are exported"),
    ],
)
def test_what_a_file_cannot_say_is_refused(tmp_path, shape, weight_type, reason):
    base = model_write(tmp_path / "base", **shape)
    with pytest.raises(RefusedError, match=reason):
        export(tmp_path, base, weight_type)


def test_weights_beyond_half_precision_are_refused(tmp_path, base):
    model, folder = model_load(base, dtype="float32"), tmp_path / "base"
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = 70_000.0
    model_save(model, tokenizer_load(base), folder, dtype="float32")
    with pytest.raises(RefusedError, match=r"mlp\.up_proj\.weight holds weights too large for f16"):
        export(tmp_path, folder, "f16")


OTHERS = {
    "mistral": lambda config: MistralForCausalLM(
        MistralConfig(**config, num_key_value_heads=2, sliding_window=None)
    ),
    "qwen2": lambda config: Qwen2ForCausalLM(
        Qwen2Config(**config, num_key_value_heads=2, use_sliding_window=False)
    ),
    "gpt2": lambda config: GPT2LMHeadModel(
        GPT2Config(**{n: v for n, v in config.items() if n != "intermediate_size"})
    ),
}


def other_write(folder: Path, base: Path, model: Callable[[dict[str, Any]], Any]) -> Path:
    """A tiny model of another architecture, with the base's tokenizer."""
    tokenizer = tokenizer_load(base)
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model(config)
        for name, weights in made.named_parameters():
            if name.endswith("bias"):  # zero at the beginning: one that is lost would not be missed
                torch.nn.init.normal_(weights, std=0.2)
    model_save(made, tokenizer, folder, dtype="float32")
    return folder


@pytest.mark.parametrize("weight_type", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_other_architectures_are_what_they_were(tmp_path, base, kind, weight_type):
    """The run reads the file back and holds its logits against the source's."""
    folder = other_write(tmp_path / "base", base, OTHERS[kind])
    run = export(tmp_path, folder, weight_type)
    result = json.loads((run / "result.json").read_text())["result"]
    assert result["token_ids_equal"]
    furthest = {"f32": 1e-3, "f16": 0.1, "q8_0": 5.0}[weight_type]
    assert result["max_logit_difference"] < furthest
    said = fields(run / "outputs/gguf" / result["file"])
    known = {"mistral": "llama"}.get(kind, kind)
    assert said["general.architecture"] == known
    assert said[f"{known}.block_count"] == 2


def test_a_gpt2_as_pretraining_makes_it_goes_out_and_comes_in_again(tmp_path, base):
    """Its settings written out, rows beyond the vocabulary, a context of its own."""

    def pretrained(config: dict[str, Any]) -> GPT2LMHeadModel:
        end = config["eos_token_id"]
        table = -(-config["vocab_size"] // 64) * 64
        special = Special(vocabulary=config["vocab_size"], table=table, pad_id=end, end_id=end)
        size = SIZES["gpt2"]["tiny"]
        return GPT2LMHeadModel(model_config("gpt2", size, special, context=96, dropout=0.0))

    folder = other_write(tmp_path / "base", base, pretrained)
    path = export(tmp_path, folder, "f32") / "outputs" / "gguf" / "model-F32.gguf"
    (tmp_path / "scratch").mkdir()
    gguf_convert(path, tmp_path / "back", scratch=tmp_path / "scratch")
    back = model_load(tmp_path / "back", dtype="float32")
    assert back.config.max_position_embeddings == 96
    for name, weights in model_load(folder, dtype="float32").state_dict().items():
        assert torch.equal(weights.bfloat16().float(), back.state_dict()[name]), name


def test_a_sliding_window_is_refused(tmp_path, base):
    folder = other_write(
        tmp_path / "base", base, lambda config: MistralForCausalLM(MistralConfig(**config))
    )
    with pytest.raises(RefusedError, match="sliding_window is 4096; a llama in GGUF has None"):
        export(tmp_path, folder, "f16")


def test_architectures_without_a_form_are_refused_by_name(tmp_path, base):
    folder = other_write(
        tmp_path / "base", base, lambda config: StableLmForCausalLM(StableLmConfig(**config))
    )
    with pytest.raises(RefusedError, match="StableLmForCausalLM is not written as GGUF"):
        export(tmp_path, folder, "f16")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "the normaliser NFC"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "text is split by Metaspace"),
        ({"model": {"type": "Unigram"}}, "Unigram is not written"),
        ({"model": {"byte_fallback": True}}, "BPE with byte fallback"),
        ({"model": {"ignore_merges": True}}, "ignore_merges"),
        ({"model": {"merges": []}}, "has no merges"),
    ],
)
def test_tokenizers_that_gguf_has_no_words_for_are_refused(tmp_path, base, change, reason):
    document = json.loads((base / "tokenizer.json").read_text())
    model = {**document["model"], **change.get("model", {})}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**document, **change, "model": model}))
    with pytest.raises(RefusedError, match=reason):
        token_table(tmp_path, tokenizer_load(base), 1000)


def test_a_tokenizer_that_cuts_digits_apart_is_named_for_it(tmp_path, base):
    document = json.loads((base / "tokenizer.json").read_text())
    steps = [{"type": "Digits", "individual_digits": True}, document["pre_tokenizer"]]
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    assert token_table(tmp_path, tokenizer_load(base), 1000).split == "smollm"


@pytest.mark.parametrize(
    ("weight_type", "reason"), [("q4_k_m", "llama-quantize"), ("bf16", "f16, f32, q8_0 or q4_0")]
)
def test_other_types_are_refused_with_the_reason(weight_type, reason):
    with pytest.raises(ConfigError, match=reason):
        ExportGgufConfig(weight_type=weight_type)
