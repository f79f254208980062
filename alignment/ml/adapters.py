"""Adapters for training, by PEFT: LoRA, QLoRA, prefix tuning, P-tuning. Shared by every method.

A method loads its model, calls `adapter_attach`, and trains what requires a gradient; at the end it
publishes the model merged (`trained_merge`) or the adapter alone (`modelhub.ml.adapter`). With no
adapter in the settings every weight is trained and both do nothing.

    LoRA      W + (alpha / r) · B A, for every linear layer; A drawn at random, B 0
    QLoRA     the same, W in 4-bit NormalFloat
    prefix    keys and values in front of every layer's own, the same for every prompt
    P-tuning  embeddings in front of the prompt, from a small network over trained inputs

All run on packed rows, exactly (`shared_prefix.virtual`).
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
)

from alignment.ml.configs import SftConfig
from alignment.ml.configs.adapters import AdapterSettings
from alignment.ml.configs.preference import PreferenceSettings
from alignment.ml.rounding import weights_check
from alignment.ml.shared_prefix.support import base_model
from modelhub.ml.adapter import ModelInput, adapter_save, model_context, model_input
from modelhub.ml.alibi import has_alibi
from modelhub.ml.chat import end_of_turn_id
from modelhub.ml.checkpoint import CheckpointError, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.manifest import MANIFEST_NAME, manifest_sha256
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.optimizers import optimizer_check
from modelhub.ml.rundir import RunDir

_TASKS = {"causal": "CAUSAL_LM", "reward": "SEQ_CLS"}


def adapter_machine_check(settings: AdapterSettings) -> None:
    """Raise RefusedError if this machine cannot train the adapter; before any model is loaded."""
    if settings.adapter != "qlora":
        return
    if not torch.cuda.is_available():
        raise RefusedError("qlora needs an NVIDIA GPU, and there is none: take adapter lora")
    if find_spec("bitsandbytes") is None:
        raise RefusedError(
            "qlora needs the package bitsandbytes, which is not installed: install it, or take "
            "adapter lora"
        )
    if settings.publish != "adapter":
        raise RefusedError(
            "qlora trains on rounded weights: publish the adapter, and merge it into the model "
            "as it is (program merge_adapter)"
        )


def base_plain_check(given: ModelInput, settings: AdapterSettings) -> None:
    """Raise RefusedError if an adapter is to be published on a base that is one itself."""
    if given.base is not None and (settings.publish == "adapter" or settings.adapter == "qlora"):
        raise RefusedError("the base is an adapter itself: merge it first (program merge_adapter)")


def base_open(run: RunDir, config: SftConfig | PreferenceSettings) -> tuple[ModelInput, Any, int]:
    """(what to start from, its tokenizer, tokens its context has beside an adapter's own).

    Raises RefusedError for what this machine, or this adapter, cannot train.
    """
    adapter_machine_check(config)
    optimizer_check(config.optimizer)
    given = model_input(run, "base")
    base_plain_check(given, config)
    return given, tokenizer_load(given.whole), model_context(given) - config.own_tokens


def quantised_load(folder: Path, *, role: str = "causal") -> Any:
    """A model in 4-bit NormalFloat for QLoRA, its products in bfloat16, on the GPU.

    The folder was verified and checked by the caller, as for `model_load`.
    """
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    loader = AutoModelForCausalLM if role == "causal" else AutoModelForSequenceClassification
    more = {} if role == "causal" else {"num_labels": 1}
    model = loader.from_pretrained(
        folder,
        quantization_config=quantised,
        device_map={"": torch.cuda.current_device()},
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        attn_implementation="sdpa",
        **more,
    )
    return peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def adapter_attach(model: Any, settings: AdapterSettings, *, role: str = "causal") -> Any:
    """The model with the adapter that the settings ask for, or the model itself if none.

    Draws from torch's generator. role "reward": the head `score` is trained too, whole. Weights of
    the adapter are float32.
    """
    if not settings.adapter:
        return model
    task: Any = _TASKS[role]
    head = ["score"] if role == "reward" else None
    config: peft.PeftConfig
    if settings.adapter in ("lora", "qlora"):
        config = peft.LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=linear_names(model),
            modules_to_save=head,
            task_type=task,
        )
    elif settings.adapter == "prefix":
        if has_alibi(base_model(model)):
            raise RefusedError(
                "adapter prefix: a model with ALiBi has no place for a prefix's keys; take lora or "
                "p_tuning"
            )
        config = peft.PrefixTuningConfig(num_virtual_tokens=settings.virtual_tokens, task_type=task)
    else:
        config = peft.PromptEncoderConfig(
            num_virtual_tokens=settings.virtual_tokens,
            encoder_hidden_size=settings.encoder_width,
            task_type=task,
        )
    adapted = peft.get_peft_model(model, config)
    if settings.adapter == "prefix":
        _prefix_start(adapted)
    return adapted


def ending_tell(model: Any, tokenizer: Any) -> None:
    """Print it if the base cannot write the token that ends a turn, and an adapter never will.

    A base that was not trained as a chat may have a row of zeros for it in its output layer, which
    adapters leave as it is: every answer would run into the length limit.
    """
    ending = end_of_turn_id(tokenizer)
    head = base_model(model).get_output_embeddings().weight
    if hasattr(model, "peft_config") and not head[ending].any():
        print(
            f"{tokenizer.decode([ending])!r}, which ends a turn, has an output row of zeros, which "
            "an adapter does not change: the model will not learn to end its answers",
            flush=True,
        )


def linear_names(model: Any) -> list[str]:
    """Names of the linear layers of a decoder's blocks: attention and MLP, no head.

    The last parts of their names, as `target_modules` and vLLM take them, sorted. GPT-2 writes its
    linear layers as Conv1D.
    """
    names = set()
    for name, module in model.named_modules():
        linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if linear and any(part.isdigit() for part in name.split(".")):
            names.add(name.rpartition(".")[2])
    return sorted(names)


@torch.no_grad()
def _prefix_start(adapted: Any) -> None:
    """Start a prefix at the keys and values of real tokens, not at random ones.

    Random keys draw attention away from the prompt, and training begins with a broken model
    (Li and Liang 2021, section 4.3). The tokens are spread over the vocabulary.
    """
    encoder = adapted.prompt_encoder["default"]
    base = adapted.get_base_model()
    base = getattr(base, base.base_model_prefix)  # a reward model's head has no cache to give
    tokens = encoder.embedding.weight.shape[0]
    vocabulary = base.get_input_embeddings().num_embeddings
    ids = torch.linspace(0, vocabulary - 1, tokens).long()[None].to(base.device)
    cache = base(input_ids=ids, use_cache=True).past_key_values
    # PEFT lays a virtual token as layer by layer its key, then its value, head by head.
    parts = [
        part[0].transpose(0, 1).reshape(tokens, -1)
        for layer in cache.layers
        for part in (layer.keys, layer.values)
    ]
    encoder.embedding.weight.copy_(torch.cat(parts, dim=1))


def adapter_publish(run: RunDir, model: Any, given: ModelInput) -> dict[str, Any]:
    """Write what was trained on `given`, a whole model, as output `adapter`; facts for the result.

    The same for every method, so that a version says of itself what another's does.
    """
    weights_check(model)
    manifest = json.loads((given.folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    adapter = adapter_save(model, run.output("adapter"), base_sha256=manifest_sha256(manifest))
    facts = model_directory_check(given.folder)
    return {
        "architecture": facts.architecture,
        "context_tokens": facts.context_tokens,
        "chat_template": facts.chat_template,
        "adapter": adapter.kind,
        "parameters": adapter.parameters,
        "dtype": "float32",
        "base_sha256": adapter.base_sha256,
    }


def adapted_weights(model: Any) -> set[str]:
    """Names in the base model of the weights that a LoRA changes."""
    return {
        name.removeprefix("base_model.model.") + ".weight"
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


def trained_merge(model: Any) -> Any:
    """The model with its adapter, if it has one, merged; what was trained requires gradients.

    Raises CheckpointError for an adapter that has no weights of the model to be merged into.
    """
    if not hasattr(model, "peft_config"):
        return model
    if any(config.is_prompt_learning for config in model.peft_config.values()):
        raise CheckpointError("prefix and P-tuning cannot be merged: publish the adapter")
    adapted = adapted_weights(model)
    merged = model.merge_and_unload()
    for name, weight in merged.named_parameters():
        weight.requires_grad_(name in adapted or name == "score.weight")
    return merged
