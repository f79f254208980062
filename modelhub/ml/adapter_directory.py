"""Is this folder an adapter, and nothing but one? Answered by reading it before anything loads.

An adapter is what was trained beside a model: two files, adapter_config.json (PEFT's, so that other
tools load it too) and adapter_model.safetensors. It means something on one base alone, so its
settings name that base by the sha256 of its artifact. As with a model (`model_directory`), a folder
passes only if all that is in it is known: of PEFT's settings those below, each checked; every other
must say nothing, for some of them name modules to import or files to open.

Standard library only. By hand: `python -m modelhub.ml.adapter_directory FOLDER`.
"""

import dataclasses
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhub.ml.configs import RefusedError
from modelhub.ml.manifest import MANIFEST_NAME
from modelhub.ml.model_directory import files_list, settings_read
from modelhub.ml.records import json_canonical
from modelhub.ml.safetensors_file import ModelDirectoryError, TensorEntry, safetensors_header

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
REWARD_SETTINGS = "reward.json"  # beside a reward model's adapter: how its head is read
BASE_PREFIX = "sha256:"

# peft_type → what Rondo calls it.
KINDS = {"LORA": "lora", "PREFIX_TUNING": "prefix", "P_TUNING": "p_tuning"}
_ROLES = {"CAUSAL_LM": "causal", "SEQ_CLS": "reward"}
_LORA_TENSOR = re.compile(r"base_model\.model\.([\w.]+)\.lora_(A|B)\.weight")
# A reward model's head, whole, by PEFT's name for it: under a LoRA, and under virtual tokens.
HEAD_TENSORS = {
    "lora": "base_model.model.score.weight",
    "prefix": "base_model.score.weight",
    "p_tuning": "base_model.score.weight",
}
COMBINATIONS = ("mean", "worst", "uncertain")
_MAX_HEADS = 64
_TARGET = re.compile(r"[A-Za-z_][\w.]{0,199}")
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_MAX_RANK, _MAX_VIRTUAL_TOKENS = 4096, 16384


@dataclass(frozen=True, kw_only=True)
class AdapterFacts:
    """What an adapter directory says about itself."""

    kind: str  # "lora", "prefix" or "p_tuning"
    role: str  # "causal" or "reward"
    base_sha256: str  # the artifact it was trained on
    parameters: int  # numbers stored in it
    rank: int  # of lora; 0 of others
    virtual_tokens: int  # of prefix and p_tuning; 0 of lora
    files: tuple[str, ...]
    reward: "RewardHead | None" = None  # of role "reward"


@dataclass(frozen=True, kw_only=True)
class RewardHead:
    """How the head of a reward model is read, as a whole model's config.json says it."""

    heads: int = 1
    combine: str = "mean"
    uncertainty_weight: float = 0.0
    shifts: tuple[float, ...] = ()  # taken off each head's score; empty: nothing is


def is_adapter(folder: Path) -> bool:
    """Whether the folder says it is an adapter; `adapter_directory_check` holds it to that."""
    return (folder / ADAPTER_CONFIG).is_file()


def adapter_directory_check(folder: Path) -> AdapterFacts:
    """Read an adapter directory and say what it holds.

    Raises ModelDirectoryError, naming the file, for anything that is not known or does not fit:
    another file, another kind of adapter, a setting that names code or files, no base, weights that
    are not the settings' own.
    """
    known = {ADAPTER_CONFIG, ADAPTER_WEIGHTS, REWARD_SETTINGS, "README.md", MANIFEST_NAME}
    sizes = files_list(folder, known=known)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if name not in sizes:
            raise ModelDirectoryError(name, "missing")
    settings = settings_read(folder / ADAPTER_CONFIG)
    kind = KINDS.get(str(settings.get("peft_type")))
    role = _ROLES.get(str(settings.get("task_type")))
    if kind is None or role is None:
        raise ModelDirectoryError(
            ADAPTER_CONFIG,
            f"peft_type {settings.get('peft_type')!r:.40}, task_type "
            f"{settings.get('task_type')!r:.40}: known are {', '.join(KINDS)} for "
            f"{', '.join(_ROLES)}",
        )
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", base):
        raise ModelDirectoryError(
            ADAPTER_CONFIG, "base_model_name_or_path does not name its base by sha256:…"
        )
    _settings_check(settings, kind)
    tensors = safetensors_header(folder / ADAPTER_WEIGHTS)
    reward, head = None, None
    if role == "reward":
        reward = reward_head_read(folder)
        head = tensors.pop(HEAD_TENSORS[kind], None)
        if head is None or len(head.shape) != 2 or head.shape[0] != reward.heads:
            raise ModelDirectoryError(
                ADAPTER_WEIGHTS, f"wanted the head score.weight, of {reward.heads} rows"
            )
    elif REWARD_SETTINGS in sizes:
        raise ModelDirectoryError(REWARD_SETTINGS, "beside an adapter that scores nothing")
    if kind == "lora":
        _lora_check(settings, tensors)
    elif tensors.keys() != {"prompt_embeddings"}:
        raise ModelDirectoryError(ADAPTER_WEIGHTS, "wanted prompt_embeddings and nothing else")
    elif tensors["prompt_embeddings"].shape[:1] != (settings["num_virtual_tokens"],):
        raise ModelDirectoryError(ADAPTER_WEIGHTS, "prompt_embeddings is of other virtual tokens")
    numbers = sum(entry.numbers for entry in tensors.values())
    return AdapterFacts(
        kind=kind,
        role=role,
        base_sha256=base.removeprefix(BASE_PREFIX),
        parameters=numbers + (head.numbers if head else 0),
        rank=settings["r"] if kind == "lora" else 0,
        virtual_tokens=0 if kind == "lora" else settings["num_virtual_tokens"],
        files=(ADAPTER_CONFIG, ADAPTER_WEIGHTS, *([REWARD_SETTINGS] if reward else [])),
        reward=reward,
    )


def reward_head_read(folder: Path) -> RewardHead:
    """What reward.json says. Raises ModelDirectoryError for a setting that is not known, or of
    another kind; without the file for its absence: scores read otherwise look like scores."""
    if not (folder / REWARD_SETTINGS).is_file():
        raise ModelDirectoryError(REWARD_SETTINGS, "missing")
    told = settings_read(folder / REWARD_SETTINGS)

    def number(value: Any) -> bool:
        return type(value) in (int, float) and abs(value) < 1e6  # NaN is not

    shifts = told.get("shifts", [])
    sound = (
        told.keys() <= {"heads", "combine", "uncertainty_weight", "shifts"}
        and type(told.get("heads")) is int
        and 1 <= told["heads"] <= _MAX_HEADS
        and told.get("combine", "mean") in COMBINATIONS
        and number(told.get("uncertainty_weight", 0.0))
        and isinstance(shifts, list)
        and len(shifts) in (0, told["heads"])
        and all(map(number, shifts))
    )
    if not sound:
        raise ModelDirectoryError(
            REWARD_SETTINGS, "wanted heads, combine, uncertainty_weight and shifts, one a head"
        )
    return RewardHead(**{**told, "shifts": tuple(shifts)})


def _settings_check(settings: Mapping[str, Any], kind: str) -> None:
    """Every setting is one of the kind's own, or says nothing."""

    def count(low: int, high: int) -> Any:
        return lambda value: type(value) is int and low <= value <= high

    text = {"peft_type", "task_type", "base_model_name_or_path", "peft_version"}
    known: dict[str, Any] = dict.fromkeys(text, lambda value: isinstance(value, str))
    known["inference_mode"] = lambda value: isinstance(value, bool)
    known["modules_to_save"] = lambda value: value in (None, ["score"])
    if kind == "lora":
        known |= {
            "r": count(1, _MAX_RANK),
            "lora_alpha": lambda value: type(value) in (int, float) and 0 < value < 1e6,
            "lora_dropout": lambda value: type(value) in (int, float) and 0 <= value < 1,
            "target_modules": _are_targets,
            "bias": lambda value: value == "none",
            "init_lora_weights": lambda value: value is True,
            "fan_in_fan_out": lambda value: isinstance(value, bool),
        }
    else:
        known |= {
            "num_virtual_tokens": count(1, _MAX_VIRTUAL_TOKENS),
            "num_layers": count(1, 1000),
            "num_attention_heads": count(1, 10_000),
            "num_transformer_submodules": count(1, 1),
            "token_dim": count(1, 10_000_000),
            "encoder_hidden_size": count(1, 10_000_000),
        }
    if kind == "p_tuning":
        known |= {
            "encoder_num_layers": count(1, 100),
            "encoder_reparameterization_type": lambda value: value == "MLP",
        }
    for name, value in settings.items():
        says_nothing = value is None or value is False or value in ("", 0, {}, [])
        if name in known and not known[name](value):
            raise ModelDirectoryError(ADAPTER_CONFIG, f"{name} {value!r:.60} is not taken")
        if name not in known and not says_nothing:
            raise ModelDirectoryError(ADAPTER_CONFIG, f"{name} is not a setting Rondo takes")
    needed = ("r", "lora_alpha", "target_modules") if kind == "lora" else ("num_virtual_tokens",)
    for name in needed:
        if name not in settings:
            raise ModelDirectoryError(ADAPTER_CONFIG, f"{name} is missing")


def _are_targets(value: Any) -> bool:
    """Names of modules, never a pattern: a regular expression from outside can run for ever."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= 100_000
        and all(isinstance(one, str) and _TARGET.fullmatch(one) for one in value)
    )


def _lora_check(settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> None:
    parts: dict[str, set[str]] = {}
    for name, entry in tensors.items():
        found = _LORA_TENSOR.fullmatch(name)
        if found is None:
            raise ModelDirectoryError(ADAPTER_WEIGHTS, f"{name:.80} is not a LoRA weight")
        module, part = found.groups()
        parts.setdefault(module, set()).add(part)
        inner = entry.shape[0] if part == "A" else entry.shape[-1]
        if len(entry.shape) != 2 or inner != settings["r"]:
            raise ModelDirectoryError(ADAPTER_WEIGHTS, f"{name:.80} is not of rank {settings['r']}")
    for module, own in sorted(parts.items()):
        if own != {"A", "B"}:
            raise ModelDirectoryError(ADAPTER_WEIGHTS, f"{module:.80} has one of its two parts")
        if not any(
            module == one or module.endswith("." + one) for one in settings["target_modules"]
        ):
            raise ModelDirectoryError(ADAPTER_WEIGHTS, f"{module:.80} is not among target_modules")
    if not parts:
        raise ModelDirectoryError(ADAPTER_WEIGHTS, "holds no LoRA weight")


def vllm_rank(folder: Path) -> int:
    """The rank that vLLM makes room for: the least it knows that holds the adapter's.

    Raises RefusedError for adapters that put tokens in front of a prompt, and for larger ranks.
    """
    facts = adapter_directory_check(folder)
    if facts.kind != "lora":
        raise RefusedError(
            f"vLLM serves no {facts.kind} adapter, LoRA alone: take engine transformers"
        )
    fitting = [rank for rank in _VLLM_RANKS if rank >= facts.rank]
    if not fitting:
        raise RefusedError(
            f"vLLM serves LoRA up to rank {_VLLM_RANKS[-1]}, and this is {facts.rank}: "
            "merge it (program merge_adapter), or take engine transformers"
        )
    return fitting[0]


if __name__ == "__main__":
    try:
        print(json_canonical(dataclasses.asdict(adapter_directory_check(Path(sys.argv[1])))))
    except ModelDirectoryError as refused:
        raise SystemExit(f"refused: {refused}") from refused
