"""Keeps the last layer from computing what nobody reads."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignment.ml.shared_prefix.attention import IS_LAST, Pass

# What works on each token by itself, and whose result nobody sees but the token: all of a layer but
# its keys and values. Other names are computed everywhere, which costs time only.
_BY_TOKEN = (
    "mlp",
    "self_attn.q_proj",
    "self_attn.o_proj",
    "attn.c_proj",
    "post_attention_layernorm",
    "ln_2",
)


_FINAL_NORM = ("norm", "ln_f", "final_layernorm")


class LastLayer:
    """The hooks on a model's last layer, which computes only keys and values for all places.

    A score is read at one place an answer, so nearly all of the last layer's work would be thrown
    away, and of the norm behind it: a sixth of a model with six layers, and the same share of its
    backward pass. What is left out is 0, so that every module sees the shapes it is used to.
    """

    def __init__(self, base: PreTrainedModel) -> None:
        self._handles: list[Any] = []
        self._attention: list[nn.Module] = []
        backbone = getattr(base, base.base_model_prefix)
        stacks = [child for child in backbone.children() if isinstance(child, nn.ModuleList)]
        if len(stacks) != 1 or not len(stacks[0]):
            return
        layer = stacks[0][-1]
        # Where the layer begins too, not only the pass: checkpointing runs it again in backward.
        self._narrow(layer, [module for name, module in layer.named_modules() if name in _BY_TOKEN])
        self._narrow(backbone, [m for name, m in backbone.named_children() if name in _FINAL_NORM])
        for name, module in layer.named_modules():
            if name in ("self_attn", "attn"):
                setattr(module, IS_LAST, True)
                self._attention.append(module)

    def release(self) -> None:
        for handle in self._handles:
            handle.remove()
        for module in self._attention:
            delattr(module, IS_LAST)

    def _narrow(self, whole: nn.Module, parts: list[nn.Module]) -> None:
        """While `whole` runs a pass that reads few places, let `parts` compute those alone."""
        read: list[tuple[Tensor, int]] = []  # (places, tokens of the row), of the pass under way

        def enter(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            shared_prefix: Pass | None = kwargs.get("shared_prefix")
            if shared_prefix is not None and shared_prefix.read is not None:
                read.append((torch.cat(shared_prefix.read), shared_prefix.row.tokens))

        def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
            read.clear()

        def gather(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not read:
                return None
            values_TX, *rest = args
            return values_TX.index_select(1, read[0][0]), *rest

        def scatter(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
            if not read:
                return None
            places_S, tokens = read[0]
            everywhere = output.new_zeros((1, tokens, output.shape[-1]))
            return everywhere.index_copy(1, places_S, output)

        self._handles += [
            whole.register_forward_pre_hook(enter, with_kwargs=True),
            whole.register_forward_hook(leave, always_call=True),
        ]
        for part in parts:
            self._handles += [
                part.register_forward_pre_hook(gather),
                part.register_forward_hook(scatter),
            ]
