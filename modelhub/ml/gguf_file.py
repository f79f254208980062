"""Write a model directory as one GGUF file, which llama.cpp and what is built on it serve.

Llama's architecture, Mistral's (which GGUF calls Llama's), Qwen2's and GPT-2's, with byte-level
BPE. Whatever a file could not say is refused by name: scaled rope, biases where there are none,
sliding windows, another normaliser, tokens that swallow spaces.

Three things differ from the directory. Of a Llama, GGUF rotates neighbouring numbers of a head,
where transformers rotates one half against the other, so the rows of the query and key weights
change places. GPT-2's matrices lie the other way round. And text is split before the merges by a
rule that the file only names (`tokenizer.ggml.pre`); llama.cpp's converter looks the name up by a
hash of known tokenizers and refuses any other, here it is read from the rule itself, so a tokenizer
of one's own is written like a known one.

Tensors are read, converted and written one at a time.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from safetensors import safe_open
from transformers import AutoConfig

from modelhub.ml.checkpoint import files_mode_set, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import ModelFacts
from modelhub.ml.safetensors_file import safetensors_header

FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
}
_BLOCK = 32  # weights of a row that have one scale in q8_0 and q4_0
_POSITIONS = "position_embd.weight"  # llama.cpp adds these as they are
# The two ends of the model suffer most from four bits; llama.cpp gives them more as well.
_ENDS = ("token_embd.weight", "output.weight")

# How text is split before the merges → what llama.cpp calls it.
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
_SPLITS: tuple[tuple[list[dict[str, Any]], str], ...] = (
    ([_BYTE_LEVEL], "gpt-2"),
    ([_DIGITS, _BYTE_LEVEL], "smollm"),
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """How GGUF has an architecture."""

    arch: gguf.MODEL_ARCH
    wanted: Mapping[str, Any]  # setting of config.json → what alone can be said
    pairs_heads: bool = False  # rows of query and key weights change places
    rotates: bool = True  # rope, gated feed-forward and RMS norms; else GPT-2's counterparts
    transposed: tuple[str, ...] = ()  # parts of the names of matrices that lie the other way round


_LLAMA = gguf.MODEL_ARCH.LLAMA
FORMS: dict[str, Form] = {
    "LlamaForCausalLM": Form(
        arch=_LLAMA,
        wanted={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
        pairs_heads=True,
    ),
    "MistralForCausalLM": Form(
        arch=_LLAMA, wanted={"hidden_act": "silu", "sliding_window": None}, pairs_heads=True
    ),
    "Qwen2ForCausalLM": Form(
        arch=gguf.MODEL_ARCH.QWEN2, wanted={"hidden_act": "silu", "use_sliding_window": False}
    ),
    "GPT2LMHeadModel": Form(
        arch=gguf.MODEL_ARCH.GPT2,
        wanted={
            "activation_function": "gelu_new",
            "n_inner": None,  # 4 × n_embd: transformers reads no other
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        rotates=False,
        transposed=("attn_qkv.", "attn_output.", "ffn_up.", "ffn_down."),
    ),
}


@dataclass(frozen=True, kw_only=True)
class TokenTable:
    """A tokenizer as GGUF has it."""

    tokens: list[str]  # by id, one for each row of the embedding
    types: list[int]
    merges: list[str]  # "left right"
    split: str  # tokenizer.ggml.pre
    adds_bos: bool
    adds_eos: bool


def gguf_write(folder: Path, facts: ModelFacts, path: Path, *, weight_type: str, name: str) -> str:
    """Write the model in `folder` to `path`. Returns the name of how its tokenizer splits text.

    facts: what `model_directory_check` said of the folder. Raises RefusedError for a model that a
    file of this kind cannot say in full.
    """
    form = FORMS.get(facts.architecture)
    if form is None:
        known = ", ".join(FORMS)
        raise RefusedError(f"{facts.architecture} is not written as GGUF: {known} alone are")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    _config_check(config, form)
    tokenizer = tokenizer_load(folder)
    table = token_table(folder, tokenizer, config.vocab_size)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[form.arch])
    try:
        _model_describe(writer, config, form, FILE_TYPES[weight_type], name)
        _tokenizer_describe(writer, table, tokenizer, facts.chat_template)
        _tensors_write(writer, folder, config, form, weight_type)
    finally:
        writer.close()
    files_mode_set(path.parent)
    return table.split


def _config_check(config: Any, form: Form) -> None:
    if form.rotates:
        rope_type = config.rope_parameters.get("rope_type", "default")
        if rope_type != "default":
            raise RefusedError(f"config.json: rope of type {rope_type!r} is not written as GGUF")
    kind = gguf.MODEL_ARCH_NAMES[form.arch]
    for setting, wanted in form.wanted.items():
        found = getattr(config, setting)
        if found != wanted and not _is_the_same(setting, found, config):
            raise RefusedError(
                f"config.json: {setting} is {found!r}; a {kind} in GGUF has {wanted!r}"
            )


def _is_the_same(setting: str, found: Any, config: Any) -> bool:
    """Whether a GPT-2 has a setting's one value in other words, as pretraining writes it."""
    if setting == "n_inner":
        return bool(found == 4 * config.n_embd)
    return setting == "activation_function" and found == "gelu_pytorch_tanh"  # in one operation


def _model_describe(
    writer: gguf.GGUFWriter, config: Any, form: Form, file_type: LlamaFileType, name: str
) -> None:
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if not form.rotates:
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _tokenizer_describe(
    writer: gguf.GGUFWriter, table: TokenTable, tokenizer: Any, chat_template: str
) -> None:
    writer.add_tokenizer_model("gpt2")  # llama.cpp's word for byte-level BPE
    writer.add_tokenizer_pre(table.split)
    writer.add_token_list(table.tokens)
    writer.add_token_types(table.types)
    writer.add_token_merges(table.merges)
    for token_id, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
    ):
        if token_id is not None:
            add(token_id)
    writer.add_add_bos_token(table.adds_bos)
    writer.add_add_eos_token(table.adds_eos)
    if chat_template:
        writer.add_chat_template(chat_template)


def token_table(folder: Path, tokenizer: Any, vocabulary: int) -> TokenTable:
    """The tokenizer in `folder`, whose model has `vocabulary` rows. RefusedError: see above."""
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = document["model"]
    split = _split_name(document)
    tokens = [f"[PAD{number}]" for number in range(vocabulary)]
    types = [int(TokenType.UNUSED)] * vocabulary
    entries = [(token, number, TokenType.NORMAL) for token, number in model["vocab"].items()]
    for one in document.get("added_tokens") or []:
        for habit in ("lstrip", "rstrip", "single_word"):
            if one.get(habit):
                raise RefusedError(f"tokenizer.json: GGUF cannot say {habit} of {one['content']!r}")
        kind = TokenType.CONTROL if one["special"] else TokenType.USER_DEFINED
        entries.append((one["content"], one["id"], kind))
    for token, number, kind in entries:
        if number >= vocabulary:
            raise RefusedError(
                f"tokenizer.json: {token!r} has the id {number}, the model {vocabulary} rows"
            )
        tokens[number], types[number] = token, int(kind)
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    if not merges:
        raise RefusedError("tokenizer.json: has no merges, and llama.cpp reads no BPE without")
    adds_bos, adds_eos = _ends_added(tokenizer)
    return TokenTable(
        tokens=tokens,
        types=types,
        merges=merges,
        split=split,
        adds_bos=adds_bos,
        adds_eos=adds_eos,
    )


def _split_name(document: Mapping[str, Any]) -> str:
    """What llama.cpp calls the way a byte-level BPE splits text. RefusedError for any other."""
    model = document["model"]
    kind = model.get("type", "BPE")
    if kind != "BPE" or model.get("byte_fallback"):
        kind = f"{kind} with byte fallback" if model.get("byte_fallback") else kind
        raise RefusedError(f"tokenizer.json: {kind} is not written as GGUF: byte-level BPE alone")
    for setting in ("ignore_merges", "dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(setting):
            raise RefusedError(f"tokenizer.json: {setting} is not written as GGUF")
    if document.get("normalizer"):
        found = document["normalizer"].get("type")
        raise RefusedError(f"tokenizer.json: GGUF cannot say the normaliser {found}")
    rule = document.get("pre_tokenizer") or {}
    steps = rule["pretokenizers"] if rule.get("type") == "Sequence" else [rule]
    # Offsets are trimmed or not: that moves no token.
    plain = [{key: step[key] for key in step if key != "trim_offsets"} for step in steps]
    for known, name in _SPLITS:
        if plain == known:
            return name
    kinds = ", ".join(str(step.get("type", "none")) for step in steps)
    raise RefusedError(
        f"tokenizer.json: text is split by {kinds} in a way that no name of GGUF's stands for"
    )


def _ends_added(tokenizer: Any) -> tuple[bool, bool]:
    """Whether a begin and an end token are put around a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for adds_bos in (False, True):
        for adds_eos in (False, True):
            bos = [tokenizer.bos_token_id] if adds_bos else []
            eos = [tokenizer.eos_token_id] if adds_eos else []
            if whole == bos + bare + eos:
                return adds_bos, adds_eos
    raise RefusedError(
        "tokenizer.json: GGUF cannot say that other tokens than a begin and an end go around a text"
    )


def _tensors_write(
    writer: gguf.GGUFWriter, folder: Path, config: Any, form: Form, weight_type: str
) -> None:
    """Announce every tensor, then convert and write one after another."""
    names = gguf.get_tensor_name_map(form.arch, config.num_hidden_layers)
    planned: list[tuple[Path, str, str, GGMLQuantizationType]] = []
    for file in sorted(folder.glob("*.safetensors")):
        for source, entry in safetensors_header(file).items():
            if source == "lm_head.weight" and config.tie_word_embeddings:
                continue  # the embedding again
            name = names.get_name(source, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise RefusedError(f"{file.name}: GGUF has no name for {source}")
            shape = entry.shape[::-1] if _is_transposed(name, form) else entry.shape
            kind = _kind(name, shape, weight_type)
            if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
                width = "float32" if kind == GGMLQuantizationType.F32 else "float16"
                dtype: np.dtype[Any] = np.dtype(width)
                size = entry.numbers * dtype.itemsize
            else:
                if shape[-1] % _BLOCK:
                    raise RefusedError(
                        f"{source} has rows of {shape[-1]} weights, which is no multiple of "
                        f"{_BLOCK}: {weight_type} cannot hold it, f16 can"
                    )
                shape = gguf.quant_shape_to_byte_shape(shape, kind)
                dtype, size = np.dtype("uint8"), int(np.prod(shape))
            writer.add_tensor_info(name, shape, dtype, size, raw_dtype=kind)
            planned.append((file, source, name, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for array in _tensors_convert(planned, config, form):
        writer.write_tensor_data(array)


def _kind(name: str, shape: tuple[int, ...], weight_type: str) -> GGMLQuantizationType:
    if len(shape) == 1 or name == _POSITIONS or weight_type == "f32":
        return GGMLQuantizationType.F32  # norms and biases are few, and much hangs on each
    if weight_type == "q4_0" and name in _ENDS:
        return GGMLQuantizationType.Q8_0
    return GGMLQuantizationType[weight_type.upper()]


def _tensors_convert(
    planned: list[tuple[Path, str, str, GGMLQuantizationType]], config: Any, form: Form
) -> Iterator[np.ndarray[Any, Any]]:
    for path, source, name, kind in planned:
        with safe_open(path, framework="pt") as file:
            weights = file.get_tensor(source).to(torch.float32).numpy()
        if _is_transposed(name, form):
            weights = np.ascontiguousarray(weights.T)
        elif form.pairs_heads and ".attn_q." in name:
            weights = heads_pair(weights, config.num_attention_heads)
        elif form.pairs_heads and ".attn_k." in name:
            weights = heads_pair(weights, config.num_key_value_heads)
        if kind == GGMLQuantizationType.F16 and np.abs(weights).max() > np.finfo(np.float16).max:
            raise RefusedError(f"{source} holds weights too large for f16: take f32")
        yield gguf.quants.quantize(weights, kind)


def _is_transposed(name: str, form: Form) -> bool:
    return name.endswith(".weight") and any(part in name for part in form.transposed)


def heads_pair(weights_OI: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of a query or key weight, in llama.cpp's order (O outputs, I inputs).

    Row i of a head's first half comes to stand before row i of its second half, with which it is
    rotated: 0 1 2 3 becomes 0 2 1 3.
    """
    halves = weights_OI.reshape(heads, 2, -1, weights_OI.shape[-1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weights_OI.shape))
