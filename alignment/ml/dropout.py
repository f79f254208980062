"""Residual dropout for any decoder: of what attention and MLP add to the residual stream.

Most architectures of today have none of their own; InstructGPT was fine-tuned with 0.2 (Ouyang et
al. 2022, arXiv:2203.02155, appendix C.1). Where one has it (GPT-2), this takes its place.
"""

from typing import Any

import torch.nn.functional as F
from torch import nn

from alignment.ml.shared_prefix.support import base_model
from modelhub.ml.alibi import has_alibi
from modelhub.ml.configs import RefusedError

_SUBLAYERS = ("self_attn", "attn", "attention", "mlp")


def dropout_end(model: nn.Module) -> None:
    """Switch off every dropout of the model's own, and a router's noise: training and looking, or
    drawing, must see the same model."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "hidden_dropout", "jitter_noise"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def residual_dropout_set(model: Any, share: float) -> None:
    """Drop `share` of the numbers behind every attention and MLP while the model trains.

    Raises RefusedError for a decoder whose blocks are built otherwise.
    """
    base = base_model(model)
    if has_alibi(base):  # BLOOM's parts add the residual themselves, behind a dropout of their own
        for module in base.modules():
            if isinstance(getattr(module, "hidden_dropout", None), float):
                module.hidden_dropout = share
        return
    backbone = getattr(base, base.base_model_prefix)
    stacks = [child for child in backbone.children() if isinstance(child, nn.ModuleList)]
    parts = [
        part
        for layer in (stacks[0] if len(stacks) == 1 else [])
        for name, part in layer.named_children()
        if name in _SUBLAYERS
    ]
    if not parts:
        raise RefusedError(f"dropout: {type(base).__name__} has no attention and MLP by name")
    for part in parts:
        for name, inner in part.named_children():
            if isinstance(inner, nn.Dropout) and name in ("resid_dropout", "dropout"):
                inner.p = 0.0
        part.register_forward_hook(lambda module, _args, out: _dropped(module, out, share))


def _dropped(module: nn.Module, output: Any, share: float) -> Any:
    if not module.training:
        return output
    if isinstance(output, tuple):
        return (F.dropout(output[0], share), *output[1:])
    return F.dropout(output, share)
