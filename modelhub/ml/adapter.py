"""Adapters as files: saved beside the name of their base, loaded on that base and no other.

    folder/ adapter_config.json         PEFT's settings, the base named by its artifact's sha256
            adapter_model.safetensors   float32; what was trained, and nothing of the base
            reward.json                 of a reward model: how its head is read, which was trained

In float32 LoRA is loaded merged: the weights a model would have that had been trained whole. In
halves it stays beside its base, for most of its changes are smaller than bfloat16's steps, and a
rounded sum would lose them. Prefix and P-tuning change no weights; their tokens come in front,
which is what `virtual_cache` is for.

A run that reads a model in some role reads an adapter there as well: its base is the input of that
role with `_base` behind it (`model_input`).
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import DynamicCache, PreTrainedModel

from modelhub.ml.adapter_directory import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BASE_PREFIX,
    REWARD_SETTINGS,
    AdapterFacts,
    RewardHead,
    adapter_directory_check,
    is_adapter,
)
from modelhub.ml.checkpoint import FILE_MODE, CheckpointError, dtype_named, model_load
from modelhub.ml.manifest import MANIFEST_NAME, manifest_sha256
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.rundir import RunDir


@dataclass(frozen=True)
class ModelInput:
    """A model as a run is given it: a whole one, or an adapter with its base."""

    folder: Path
    base: Path | None = None

    @property
    def whole(self) -> Path:
        """Where the tokenizer and the architecture are: the base of an adapter."""
        return self.base or self.folder


def model_input(run: RunDir, role: str) -> ModelInput:
    """The model of a role, every byte verified; of an adapter with its base.

    Raises CheckpointError for an adapter without the input `<role>_base`, or on another base than
    its own.
    """
    folder = run.input(role)
    if not is_adapter(folder):
        return ModelInput(folder)
    facts = adapter_directory_check(folder)
    if not run.has_input(f"{role}_base"):
        raise CheckpointError(
            f"input {role} is an adapter: the run needs its base too, as input {role}_base "
            f"(artifact {facts.base_sha256[:12]})"
        )
    given = ModelInput(folder, run.input(f"{role}_base"))
    base_check(facts, given.whole)
    return given


def model_context(given: ModelInput, *, quantised: bool = False, any_writer: bool = False) -> int:
    """Tokens there are for prompt and answer: an adapter's own take theirs from the base's."""
    facts = model_directory_check(given.whole, quantised=quantised, any_writer=any_writer)
    context = facts.context_tokens
    if given.base is None:
        return context
    return context - adapter_directory_check(given.folder).virtual_tokens


def base_check(facts: AdapterFacts, base: Path) -> None:
    """Raise CheckpointError unless `base` is the artifact the adapter was trained on."""
    found = manifest_sha256(json.loads((base / MANIFEST_NAME).read_text(encoding="utf-8")))
    if found != facts.base_sha256:
        raise CheckpointError(
            f"the adapter was trained on artifact {facts.base_sha256[:12]}, and this base is "
            f"{found[:12]}: on another base its numbers mean nothing"
        )


def model_input_load(
    given: ModelInput,
    *,
    dtype: str | torch.dtype,
    role: str = "causal",
    new_head: bool = False,
    merge: bool = True,
    quantised: bool = False,
    any_writer: bool = False,
) -> Any:
    """The model of an input, in evaluation mode, on the CPU: `model_load`, adapters included.

    An adapter that is not merged comes as a PEFT model; merge: whether LoRA in float32 is.
    """
    if given.base is None:
        return model_load(
            given.folder,
            dtype=dtype,
            role=role,
            new_head=new_head,
            quantised=quantised,
            any_writer=any_writer,
        )
    facts = adapter_directory_check(given.folder)
    base_check(facts, given.base)
    if facts.role != role:
        raise CheckpointError(f"the adapter is for a {facts.role} model, wanted {role}")
    heads = facts.reward.heads if facts.reward else 1
    model = model_load(given.base, dtype=dtype, role=role, new_head=role == "reward", heads=heads)
    if facts.reward:
        _reward_head_set(model, facts.reward)
    adapted = _adapter_put(model, given.folder).eval()
    if merge and facts.kind == "lora" and dtype_named(dtype) == torch.float32:
        return adapted.merge_and_unload().eval()
    return adapted


def _reward_head_set(model: PreTrainedModel, head: RewardHead) -> None:
    """Give a base the settings by which the adapter's head is read, in place of any of its own."""
    model.config.reward_heads = head.heads
    model.config.reward_combine = head.combine
    model.config.reward_uncertainty_weight = head.uncertainty_weight
    model.config.reward_shifts = list(head.shifts)


def reward_head_of(model: Any) -> RewardHead:
    """How the head of a reward model, an adapter on it or not, is read."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return RewardHead(
        heads=next(base.score.parameters()).shape[0],
        combine=getattr(base.config, "reward_combine", "mean"),
        uncertainty_weight=getattr(base.config, "reward_uncertainty_weight", 0.0),
        shifts=tuple(getattr(base.config, "reward_shifts", None) or ()),
    )


def _adapter_put(model: PreTrainedModel, folder: Path) -> Any:
    """The model with the adapter's weights on it. Raises CheckpointError for any that do not fit"""
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    # PEFT would take the base's hash for the place of another model, and warn.
    config = peft.PeftConfig.from_peft_type(**{**settings, "base_model_name_or_path": None})
    adapted = peft.get_peft_model(model, config)
    saved = load_file(folder / ADAPTER_WEIGHTS)
    own = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    for name in sorted(own.keys() ^ saved.keys()):
        raise CheckpointError(f"{ADAPTER_WEIGHTS}: {name} is on one side only")
    for name, tensor in saved.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(f"{ADAPTER_WEIGHTS}: {name} has another shape than the base asks")
    peft.set_peft_model_state_dict(adapted, saved)
    return adapted


def adapter_save(model: Any, folder: Path, *, base_sha256: str) -> AdapterFacts:
    """Write the adapter of a PEFT model. The same weights give the same bytes."""
    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": BASE_PREFIX + base_sha256, "inference_mode": True}
    kept: dict[str, Any] = {}
    for name, value in sorted(config.items()):
        if hasattr(value, "value"):
            value = value.value  # an enumeration's
        if isinstance(value, set | frozenset):
            value = sorted(value)
        if value is not None and value is not False and value not in ("", 0, {}, []):
            kept[name] = value
    for name in _SETTINGS_OF_NO_USE:
        kept.pop(name, None)
    if kept.get("modules_to_save"):
        kept["modules_to_save"] = ["score"]  # PEFT adds other names that a head may have
    kept["inference_mode"] = True
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS]
    written[0].write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: one.detach().float().cpu().contiguous() for name, one in state.items()}
    save_file(tensors, written[1], metadata={"format": "pt"})
    if kept["task_type"] == "SEQ_CLS":
        head = asdict(reward_head_of(model))
        written.append(folder / REWARD_SETTINGS)
        written[2].write_text(json.dumps(head, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in written:
        os.chmod(path, FILE_MODE)  # noqa: PTH101 (as checkpoint does)
    return adapter_directory_check(folder)


# What PEFT writes for kinds of LoRA that are not trained here.
_SETTINGS_OF_NO_USE = ("megatron_core", "qalora_group_size", "runtime_config", "revision")


@torch.no_grad()
def virtual_cache(model: Any) -> DynamicCache | None:
    """Keys and values in front of every prompt, for a sampler; None for a model without any.

    Prefix tuning has them as they are. P-tuning's are those that its embeddings give: tokens in
    front see nothing that comes later, so they are the same for every prompt.
    """
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return None
    virtual = model.get_prompt(batch_size=1)
    base = model.get_base_model()
    if not isinstance(virtual, torch.Tensor):
        cache = DynamicCache()
        for number, layer in enumerate(virtual.layers):
            cache.update(layer.keys.to(base.dtype), layer.values.to(base.dtype), number)
        return cache
    cache = DynamicCache()
    base(inputs_embeds=virtual.to(base.dtype), past_key_values=cache, use_cache=True)
    return cache
