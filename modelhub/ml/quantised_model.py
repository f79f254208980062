"""Quantise a model's weights, write them, and load them as they will be served.

A weight w becomes s · round(w / s), s a scale its row or its group of neighbours has in common. The
scale that uses the whole range of the integers is not the best: a little is won by cutting off the
largest weights, so of a few smaller scales the one with the least squared error is taken (as AWQ's
and GPTQ's tools search it). Rounded once, without data: no text can have an influence.

Legend: O outputs of a layer, I inputs, G groups of a row, N numbers of a group.
"""

import json
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationConfig,
    QuantizationStatus,
    apply_quantization_config,
)
from torch import Tensor, nn

from modelhub.ml.checkpoint import files_mode_set, model_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.quantisation import NOT_QUANTISED, quantisation_settings

_SHRINKS = tuple(1 - step / 50 for step in range(16))  # of a scale: 1.00, 0.98, … 0.70


def scales_search(weight_OI: Tensor, *, bits: int, group_size: int) -> Tensor:
    """The scale of each group with the least squared error, float32, (O, G).

    group_size: 0 for whole rows. Integers go from −2^(bits−1) to 2^(bits−1) − 1; the scale that
    cuts nothing off is the largest magnitude over half of that range, (2^bits − 1) / 2.
    """
    groups_OGN = weight_OI.float().unflatten(-1, (-1, group_size or weight_OI.shape[-1]))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    # A group of zeros keeps a scale that divides.
    widest_OG = (groups_OGN.abs().amax(-1) / ((high - low) / 2)).clamp_min(1e-12)
    best_OG, least_OG = widest_OG, torch.full_like(widest_OG, torch.inf)
    for shrink in _SHRINKS:
        scale_OG = widest_OG * shrink
        scale_OGN = scale_OG[..., None]
        rounded_OGN = (groups_OGN / scale_OGN).round().clamp(low, high) * scale_OGN
        error_OG = (groups_OGN - rounded_OGN).square().sum(-1)
        better_OG = error_OG < least_OG
        best_OG = torch.where(better_OG, scale_OG, best_OG)
        least_OG = torch.where(better_OG, error_OG, least_OG)
    return best_OG


@torch.no_grad()
def model_quantise(model: Any, *, scheme: str, group_size: int) -> int:
    """Quantise every linear layer of a model in place, but for its output layer.

    Afterwards its forward pass rounds as the served model's will. Returns how many layers that are.
    Raises RefusedError for a model without any, or with one that a group does not fit.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name not in NOT_QUANTISED
    }
    if not layers:
        raise RefusedError(
            f"{type(model).__name__} has no linear layer of the kind that is quantised"
        )
    for name, layer in layers.items():
        if scheme == "w4a16" and layer.in_features % group_size:
            raise RefusedError(
                f"{name} has {layer.in_features} inputs, which is no multiple of the group size "
                f"{group_size}: take a smaller one, or w8a8"
            )
    settings = quantisation_settings(scheme, group_size)
    settings["quantization_status"] = "frozen"
    apply_quantization_config(model, QuantizationConfig.model_validate(settings))
    bits = 8 if scheme == "w8a8" else 4
    for layer in layers.values():
        scale = scales_search(layer.weight, bits=bits, group_size=group_size)
        layer.weight_scale.data = scale.to(layer.weight_scale.dtype)
        layer.quantization_status = QuantizationStatus.FROZEN
    return len(layers)


def quantised_save(
    model: Any, tokenizer: Any, folder: Path, *, scheme: str, group_size: int
) -> None:
    """Write a model that `model_quantise` has quantised; the model itself is compressed by it."""
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # The library's own words, but for what it adds of the way there.
    config["quantization_config"] = quantisation_settings(scheme, group_size)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    files_mode_set(folder)


def quantised_load(folder: Path, *, dtype: str) -> Any:
    """The model as transformers serves it: its numbers are the quantised ones."""
    return model_load(folder, dtype=dtype, quantised=True)
