"""Is this folder a model, and nothing but a model? Answered by reading it before anything loads.

A pickle runs code when it is loaded, whatever its file is called, and scanners that look for bad
files miss some. So this goes the other way: a folder passes only if every file in it is one of a
few known names and parses as what that name promises (safetensors, JSON, text). Standard library
only: a form can refuse at once, and no library that might load something is involved.

By hand: `python -m modelhub.ml.model_directory FOLDER` prints the facts or the reason.
"""

import dataclasses
import os
import re
import stat
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhub.ml.manifest import MANIFEST_NAME
from modelhub.ml.quantisation import (
    PACKED,
    PACKED_NUMBERS,
    SCALE,
    SHAPE,
    quantisation_known,
    quantisation_name,
)
from modelhub.ml.records import json_canonical, json_strict
from modelhub.ml.safetensors_file import (
    ModelDirectoryError,
    TensorEntry,
    is_count,
    safetensors_header,
)

# model_type in config.json → the class that writes text, the class that scores. Decoders that all
# of Rondo's programs handle; a test holds the table against transformers' own.
ARCHITECTURES: dict[str, tuple[str, str]] = {
    "arcee": ("ArceeForCausalLM", "ArceeForSequenceClassification"),
    "bloom": ("BloomForCausalLM", "BloomForSequenceClassification"),
    "gemma": ("GemmaForCausalLM", "GemmaForSequenceClassification"),
    "gemma3_text": ("Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"),
    "glm": ("GlmForCausalLM", "GlmForSequenceClassification"),
    "glm4": ("Glm4ForCausalLM", "Glm4ForSequenceClassification"),
    "gpt2": ("GPT2LMHeadModel", "GPT2ForSequenceClassification"),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXForSequenceClassification"),
    "llama": ("LlamaForCausalLM", "LlamaForSequenceClassification"),
    "mistral": ("MistralForCausalLM", "MistralForSequenceClassification"),
    "mixtral": ("MixtralForCausalLM", "MixtralForSequenceClassification"),
    "olmo": ("OlmoForCausalLM", "OlmoForSequenceClassification"),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2ForSequenceClassification"),
    "phi": ("PhiForCausalLM", "PhiForSequenceClassification"),
    "phi3": ("Phi3ForCausalLM", "Phi3ForSequenceClassification"),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2ForSequenceClassification"),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3ForSequenceClassification"),
    "smollm3": ("SmolLM3ForCausalLM", "SmolLM3ForSequenceClassification"),
    "stablelm": ("StableLmForCausalLM", "StableLmForSequenceClassification"),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2ForSequenceClassification"),
}

# model_type → the class that writes text, and how: what the playground reads beside decoders with
# attention, and no program that packs, samples, scores or serves.
OTHER_WRITERS: dict[str, tuple[str, str]] = {
    "rwkv": ("RwkvForCausalLM", "recurrent"),
    "t5": ("T5ForConditionalGeneration", "encoder-decoder"),
}

# Whose experts transformers holds as one tensor a layer, and a folder as one an expert.
FUSED_EXPERTS = frozenset({"MixtralForCausalLM"})

# Files a model is made of. These are copied on import.
_CONFIG, _GENERATION = "config.json", "generation_config.json"
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_SPECIAL_TOKENS, _TEMPLATE = "special_tokens_map.json", "chat_template.jinja"
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")

# Text that travels with a model. Read as text, then left out on import: tokenizer.json says all
# that the older tokenizer files say.
_COMPANIONS = frozenset(
    {
        "README.md",
        "LICENSE",
        "LICENSE.txt",
        "LICENSE.md",
        "NOTICE",
        "USE_POLICY.md",
        ".gitattributes",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        MANIFEST_NAME,
    }
)

# Settings that make a library fetch or run code, or open another file.
_CODE_SETTINGS = frozenset(
    {
        "auto_map",
        "custom_pipelines",
        "custom_generate",
        "trust_remote_code",
        "use_kernels",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
    }
)
_HARMLESS_VALUES = (None, False, "eager", "sdpa", "flash_attention_2")
_QUANTISED_SETTINGS = frozenset(["quantization_config", "compression_config"])
_FILE_SETTINGS = frozenset(["tokenizer_file", "vocab_file", "merges_file", "spm_file"])

_DTYPE_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}

_MAX_JSON_BYTES = 4 << 20
_MAX_TOKENIZER_BYTES = 128 << 20
_MAX_TEXT_BYTES = 16 << 20
_MAX_TEMPLATE_CHARACTERS = 262_144
_MAX_INDEX_BYTES = 32 << 20
_MAX_DEPTH = 32


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model directory says about itself."""

    architecture: str  # "LlamaForCausalLM"
    role: str  # "causal" or "reward"; "recurrent", "encoder-decoder" where these are asked for
    parameters: int  # numbers stored in the weight files; tied weights count once
    dtype: str  # of most of them
    context_tokens: int
    chat_template: str  # its text; empty where the tokenizer has none
    quantisation: str  # "w8a8", "w4a16 g32"; empty for weights as they were trained
    files: tuple[str, ...]  # the ones that make up the model, without what merely travels with it


def model_directory_check(
    folder: Path, *, quantised: bool = False, any_writer: bool = False
) -> ModelFacts:
    """Read a Hugging Face model directory and say what it holds.

    quantised: whether weights that `quantised_model` wrote are taken too. They are for serving:
    what trains, scores or imports takes none. any_writer: whether OTHER_WRITERS are taken too.

    Raises ModelDirectoryError, naming the file, for anything that is not a known file holding what
    its name promises; for settings that would run or fetch code; for weights that are missing,
    overlap or reach outside their file; for an architecture Rondo does not know.
    """
    sizes = files_list(folder)
    for name in (_CONFIG, _TOKENIZER):
        if name not in sizes:
            raise ModelDirectoryError(name, "missing")
    config, quantisation = _config_read(folder / _CONFIG, quantised=quantised)
    architecture, role = _architecture_check(config, any_writer=any_writer)
    context_tokens = _size_check(config)
    if _GENERATION in sizes:
        settings_read(folder / _GENERATION)
    tensors = _weights_read(folder, sizes)
    chat_template = _tokenizer_read(folder, sizes)
    for name in sorted(sizes.keys() & _COMPANIONS):
        _companion_check(folder / name)
    numbers: dict[str, int] = {}
    parameters = 0
    for name, entry in tensors.items():
        if not quantisation or (entry.dtype in _DTYPE_NAMES and not _is_packed(name)):
            numbers[entry.dtype] = numbers.get(entry.dtype, 0) + entry.numbers
        parameters += _parameters(name, entry) if quantisation else entry.numbers
    if not numbers:
        raise ModelDirectoryError(_SINGLE, "holds quantised weights alone")
    most = max(numbers, key=lambda dtype: numbers[dtype])
    if most not in _DTYPE_NAMES:
        raise ModelDirectoryError(_SINGLE, f"most weights are {most}; wanted F32, BF16 or F16")
    return ModelFacts(
        architecture=architecture,
        role=role,
        parameters=parameters,
        dtype=_DTYPE_NAMES[most],
        context_tokens=context_tokens,
        chat_template=chat_template,
        quantisation=quantisation,
        files=tuple(sorted(sizes.keys() - _COMPANIONS)),
    )


def _is_packed(tensor: str) -> bool:
    """Whether a quantised model's tensor holds integers, or says what they stand for."""
    return tensor.endswith((f".{PACKED}", f".{SCALE}", f".{SHAPE}"))


def _parameters(tensor: str, entry: TensorEntry) -> int:
    """How many weights a quantised model's tensor holds: scales and shapes are none."""
    if tensor.endswith(f".{PACKED}"):
        return entry.numbers * PACKED_NUMBERS
    return 0 if _is_packed(tensor) else entry.numbers


def files_list(folder: Path, known: Collection[str] = ()) -> dict[str, int]:
    """Name → bytes of the files of a folder, all of them plain and known.

    known: the names there may be; none given, those a model is made of. Raises ModelDirectoryError.
    """
    if not folder.is_dir():
        raise ModelDirectoryError("", f"{folder.name or folder} is not a folder")
    sizes: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            mode = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(mode.st_mode):
                raise ModelDirectoryError(entry.name, "a link; a model is taken as plain files")
            if stat.S_ISDIR(mode.st_mode):
                raise ModelDirectoryError(entry.name, "a folder; a model's files lie side by side")
            if not stat.S_ISREG(mode.st_mode):
                raise ModelDirectoryError(entry.name, "not a plain file")
            _name_check(entry.name, known)
            sizes[entry.name] = mode.st_size
    return sizes


def _name_check(name: str, known: Collection[str]) -> None:
    own = {_CONFIG, _GENERATION, _TOKENIZER, _TOKENIZER_CONFIG, _SPECIAL_TOKENS, _TEMPLATE}
    if name in known:
        return
    if not known and (name in own | {_SINGLE, _INDEX} | _COMPANIONS or _SHARD.fullmatch(name)):
        return
    suffix = Path(name).suffix.lower()
    if suffix == ".py":
        raise ModelDirectoryError(name, "code; Rondo runs none that comes with a model")
    if suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz"):
        raise ModelDirectoryError(
            name, "may hold a pickle, which runs code when loaded; weights are taken as safetensors"
        )
    raise ModelDirectoryError(name, "not a file that Rondo knows of a model; take it out")


def _json_read(path: Path, limit: int = _MAX_JSON_BYTES) -> Any:
    if path.stat().st_size > limit:
        raise ModelDirectoryError(path.name, f"larger than {limit >> 20} MiB")
    try:
        return json_strict(path.read_bytes())
    except ValueError as error:
        raise ModelDirectoryError(path.name, f"not JSON: {error}") from error


def settings_read(path: Path) -> dict[str, Any]:
    """A settings file: an object, with nothing in it that runs or fetches code."""
    settings = _json_read(path)
    if not isinstance(settings, dict):
        raise ModelDirectoryError(path.name, "not a JSON object")
    _settings_check(path.name, settings, 0)
    return settings


def _config_read(path: Path, *, quantised: bool) -> tuple[dict[str, Any], str]:
    """(config.json without its quantisation, what that is called: empty for none)."""
    settings = _json_read(path)
    name = ""
    if quantised and isinstance(settings, dict) and "quantization_config" in settings:
        known = quantisation_known(settings.pop("quantization_config"))
        if known is None:
            raise ModelDirectoryError(
                path.name, "quantization_config: not one of the ways in which Rondo quantises"
            )
        name = quantisation_name(*known)
    if not isinstance(settings, dict):
        raise ModelDirectoryError(path.name, "not a JSON object")
    _settings_check(path.name, settings, 0)
    return settings, name


def _settings_check(file: str, value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ModelDirectoryError(file, "nested too deeply")
    if isinstance(value, list):
        for one in value:
            _settings_check(file, one, depth + 1)
    if isinstance(value, dict):
        for key, one in value.items():
            if key in _CODE_SETTINGS and one not in _HARMLESS_VALUES:
                raise ModelDirectoryError(
                    file, f"{key} asks for code of the model's own; Rondo runs none"
                )
            if key in _QUANTISED_SETTINGS and one is not None:
                raise ModelDirectoryError(
                    file,
                    f"{key}: quantised weights are not taken here; take what they were made of",
                )
            if key in _FILE_SETTINGS and isinstance(one, str) and re.search(r"[/\\]", one):
                raise ModelDirectoryError(file, f"{key} names a file outside the folder")
            _settings_check(file, one, depth + 1)


def _architecture_check(config: Mapping[str, Any], *, any_writer: bool) -> tuple[str, str]:
    """(class name, "causal" or "reward", or what OTHER_WRITERS says)."""
    family, named = config.get("model_type"), config.get("architectures")
    if any_writer and isinstance(family, str) and family in OTHER_WRITERS:
        if named != [OTHER_WRITERS[family][0]]:
            raise ModelDirectoryError(
                _CONFIG, f"architectures {named!r:.120} is not [{OTHER_WRITERS[family][0]!r}]"
            )
        return OTHER_WRITERS[family]
    if not isinstance(family, str) or family not in ARCHITECTURES:
        raise ModelDirectoryError(
            _CONFIG,
            f"model_type {family!r:.60} is not known; known are {', '.join(sorted(ARCHITECTURES))}",
        )
    causal, reward = ARCHITECTURES[family]
    if named == [causal]:
        return causal, "causal"
    if named == [reward]:
        return reward, "reward"
    raise ModelDirectoryError(
        _CONFIG, f"architectures {named!r:.120} is neither [{causal!r}] nor [{reward!r}]"
    )


def _size_check(config: Mapping[str, Any]) -> int:
    """The context in tokens; sizes that would take for ever to build are refused."""
    limits = {"vocab_size": 10_000_000, "num_hidden_layers": 1_000, "n_layer": 1_000}
    limits |= {"hidden_size": 1_000_000, "n_embd": 1_000_000, "intermediate_size": 10_000_000}
    limits |= {"num_layers": 1_000, "num_decoder_layers": 1_000, "d_model": 1_000_000}
    limits |= {"d_ff": 10_000_000, "attention_hidden_size": 1_000_000}
    for name, limit in limits.items():
        value = config.get(name)
        if value is not None and not (is_count(value) and 0 < value <= limit):
            raise ModelDirectoryError(_CONFIG, f"{name}: wanted 1 to {limit:,}, got {value!r:.40}")
    context = config.get("max_position_embeddings", config.get("n_positions"))
    if config.get("model_type") == "bloom":
        # ALiBi ends nowhere; BLOOM's folders note what it was trained on, or it was 2048.
        context = config.get("seq_length", 2048)
    if config.get("model_type") == "rwkv":
        context = config.get("context_length")  # that it was trained on: its state ends nowhere
    if not is_count(context) or not 0 < context <= 100_000_000:
        raise ModelDirectoryError(
            _CONFIG, f"max_position_embeddings: wanted the context in tokens, got {context!r:.40}"
        )
    return int(context)


def _weights_read(folder: Path, sizes: Mapping[str, int]) -> dict[str, TensorEntry]:
    shards = sorted(name for name in sizes if _SHARD.fullmatch(name))
    if _SINGLE in sizes:
        if shards or _INDEX in sizes:
            other = shards[0] if shards else _INDEX
            raise ModelDirectoryError(other, f"beside {_SINGLE}: which are the weights?")
        return safetensors_header(folder / _SINGLE)
    if _INDEX not in sizes:
        missing = _INDEX if shards else _SINGLE
        raise ModelDirectoryError(missing, "missing")
    index = _json_read(folder / _INDEX, _MAX_INDEX_BYTES)
    placed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(placed, dict) or not placed:
        raise ModelDirectoryError(_INDEX, "weight_map is missing")
    for tensor, name in placed.items():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise ModelDirectoryError(
                _INDEX, f"{tensor:.80} lies in {name!r:.80}, which is not a weight file's name"
            )
        if name not in sizes:
            raise ModelDirectoryError(name, f"missing; {_INDEX} names it")
    tensors: dict[str, TensorEntry] = {}
    for shard in shards:
        for tensor, entry in safetensors_header(folder / shard).items():
            if tensor in tensors:
                raise ModelDirectoryError(shard, f"{tensor:.80} is in another weight file too")
            if placed.get(tensor) != shard:
                raise ModelDirectoryError(shard, f"{tensor:.80} is not placed here by {_INDEX}")
            tensors[tensor] = entry
    for tensor, name in placed.items():
        if tensor not in tensors:
            raise ModelDirectoryError(name, f"{tensor:.80} is missing; {_INDEX} places it here")
    return tensors


def tokenizer_tokens(folder: Path) -> set[str]:
    """Every token of a model's vocabulary. Raises ModelDirectoryError for a folder without one."""
    path = folder / _TOKENIZER
    if not path.is_file():
        raise ModelDirectoryError(_TOKENIZER, "missing")
    tokenizer = _json_read(path, _MAX_TOKENIZER_BYTES)
    vocabulary = tokenizer["model"]["vocab"]
    known = vocabulary if isinstance(vocabulary, dict) else (one[0] for one in vocabulary)
    return {*known, *(one["content"] for one in tokenizer.get("added_tokens") or [])}


def _tokenizer_read(folder: Path, sizes: Mapping[str, int]) -> str:
    """Check the tokenizer's files. Returns its chat template, empty where there is none."""
    tokenizer = _json_read(folder / _TOKENIZER, _MAX_TOKENIZER_BYTES)
    model = tokenizer.get("model") if isinstance(tokenizer, dict) else None
    kinds = ("BPE", "Unigram", "WordPiece", "WordLevel")
    if not isinstance(model, dict) or model.get("type", "BPE") not in kinds:
        raise ModelDirectoryError(_TOKENIZER, "not a tokenizer: no model of a known type")
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        sound = all(is_count(one) for one in vocabulary.values())
    else:
        sound = isinstance(vocabulary, list) and all(
            isinstance(one, list) and len(one) == 2 and isinstance(one[0], str)
            for one in vocabulary
        )
    if not vocabulary or not sound:
        raise ModelDirectoryError(_TOKENIZER, "not a tokenizer: its vocabulary does not read")
    added = tokenizer.get("added_tokens") or []
    if not isinstance(added, list) or not all(
        isinstance(one, dict) and is_count(one.get("id")) and isinstance(one.get("content"), str)
        for one in added
    ):
        raise ModelDirectoryError(_TOKENIZER, "not a tokenizer: its added tokens do not read")
    template: Any = None
    if _TOKENIZER_CONFIG in sizes:
        settings = settings_read(folder / _TOKENIZER_CONFIG)
        template = settings.get("chat_template")
        kind = settings.get("tokenizer_class")
        if kind is not None and not (isinstance(kind, str) and re.fullmatch(r"\w{1,80}", kind)):
            raise ModelDirectoryError(_TOKENIZER_CONFIG, f"tokenizer_class {kind!r:.80}")
    if _SPECIAL_TOKENS in sizes:
        settings_read(folder / _SPECIAL_TOKENS)
    if _TEMPLATE in sizes:
        template = _text_read(folder / _TEMPLATE)
    named = template if isinstance(template, list) else [{"name": "default", "template": template}]
    texts: dict[str, str] = {}
    for one in named if template is not None else []:
        text = one.get("template") if isinstance(one, dict) else None
        if not isinstance(text, str) or len(text) > _MAX_TEMPLATE_CHARACTERS:
            where = _TEMPLATE if _TEMPLATE in sizes else _TOKENIZER_CONFIG
            raise ModelDirectoryError(
                where, f"chat_template: wanted text of at most {_MAX_TEMPLATE_CHARACTERS:,} letters"
            )
        texts[str(one.get("name"))] = text
    return texts.get("default", "")


def _companion_check(path: Path) -> None:
    if path.suffix == ".json":
        _json_read(path, _MAX_TEXT_BYTES)
    else:
        _text_read(path)


def _text_read(path: Path) -> str:
    if path.stat().st_size > _MAX_TEXT_BYTES:
        raise ModelDirectoryError(path.name, f"larger than {_MAX_TEXT_BYTES >> 20} MiB")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ModelDirectoryError(path.name, "not text") from error
    if "\0" in text:
        raise ModelDirectoryError(path.name, "not text")
    return text


def weights_bytes(folder: Path) -> int:
    """Bytes of a model directory's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


if __name__ == "__main__":
    try:
        print(json_canonical(dataclasses.asdict(model_directory_check(Path(sys.argv[1])))))
    except ModelDirectoryError as refused:
        raise SystemExit(f"refused: {refused}") from refused
