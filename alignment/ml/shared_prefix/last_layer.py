"""Keeps the last layer from computing what nobody reads."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignment.ml.shared_prefix.attention import IS_LAST, Pass

# What works on each token by itself, and whose result nobody sees but the token: all of a layer but
# its keys and values. Other names are computed everywhere, which costs time only.
_BY_TOKEN = ("mlp", "self_attn.q_proj", "self_attn.o_proj", "attn.c_proj")


class LastLayer:
    """The hooks on a model's last layer, which computes only keys and values for all places.

    A score is read at one place an answer, so nearly all of the last layer's work would be thrown
    away: a sixth of a model with six layers, and the same share of its backward pass.
    """

    def __init__(self, base: PreTrainedModel) -> None:
        self.read_S: Tensor | None = None
        self.tokens = 0
        self._handles: list[Any] = []
        self._attention: list[nn.Module] = []
        stacks = [
            child
            for child in getattr(base, base.base_model_prefix).children()
            if isinstance(child, nn.ModuleList)
        ]
        if len(stacks) != 1 or not len(stacks[0]):
            return
        layer = stacks[0][-1]
        self._handles += [
            layer.register_forward_pre_hook(self._enter, with_kwargs=True),
            layer.register_forward_hook(self._leave, always_call=True),
        ]
        for name, module in layer.named_modules():
            if name in _BY_TOKEN:
                self._handles += [
                    module.register_forward_pre_hook(self._gather),
                    module.register_forward_hook(self._scatter),
                ]
            elif name in ("self_attn", "attn"):
                setattr(module, IS_LAST, True)
                self._attention.append(module)

    def release(self) -> None:
        for handle in self._handles:
            handle.remove()
        for module in self._attention:
            delattr(module, IS_LAST)

    def _enter(self, _layer: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        # Here and not where the pass begins: checkpointing runs the layer again in backward.
        shared_prefix: Pass | None = kwargs.get("shared_prefix")
        if shared_prefix is not None and shared_prefix.read is not None:
            self.read_S = torch.cat(shared_prefix.read)
            self.tokens = shared_prefix.row.tokens

    def _leave(self, _layer: nn.Module, _args: Any, _output: Any) -> None:
        self.read_S = None

    def _gather(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.read_S is None:
            return None
        values_TX, *rest = args
        return values_TX.index_select(1, self.read_S), *rest

    def _scatter(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        if self.read_S is None:
            return None
        everywhere = output.new_zeros((1, self.tokens, output.shape[-1]))
        return everywhere.index_copy(1, self.read_S, output)
