"""BLOOM on a shared row: distances behind the prompt, by the same kernels.

ALiBi adds slope · position to the score of a key, and positions of an answer continue the prompt's,
so the bias of a row comes from its positions rather than its places. It goes into the product that
every attention computes anyway, as two columns more:

    [q, 1, 1] · [k, b √D, r √D] / √D  =  q · k / √D + slope · position

b is the bias to bfloat16's precision and r what that leaves of it, so that halves lose nothing of
it either.

Legend: T tokens of a row, H heads, D head width.
"""

from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.bloom.modeling_bloom import BloomAttention, dropout_add

from alignment.ml.shared_prefix.attention import ALIBI_ATTACHED, Pass, row_attention
from alignment.ml.shared_prefix.support import UnsupportedModelError
from modelhub.ml.alibi import alibi_along


@dataclass(frozen=True)
class RowBias:
    """What every layer gets in ALiBi's place while a row is run."""

    shared_prefix: Pass
    bias_HT: Tensor  # slope · position of each key, float32


def alibi_attach(base: PreTrainedModel) -> None:
    """Let a BLOOM run rows. Without one it computes as before."""
    backbone: Any = getattr(base, base.base_model_prefix)
    passes: list[Pass | None] = [None]  # of the forward under way

    def enter(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        passes[0] = kwargs.get("shared_prefix")

    def build(_backbone: nn.Module, mask: Tensor, heads: int, dtype: Any) -> Tensor | RowBias:
        if passes[0] is None:
            return alibi_along(heads, mask, dtype)
        if passes[0].virtual is not None:
            raise UnsupportedModelError("prefix tuning of a model with ALiBi: take lora, p_tuning")
        positions_T = passes[0].row.position_ids()[0].to(mask.device)
        longest = mask.new_ones(1, int(positions_T.max()) + 1)
        places_HL = alibi_along(heads, longest, torch.float32)[:, 0]
        return RowBias(passes[0], places_HL[:, positions_T])

    backbone.register_forward_pre_hook(enter, with_kwargs=True)
    backbone.build_alibi_tensor = MethodType(build, backbone)
    for module in backbone.modules():
        if isinstance(module, BloomAttention):
            module.forward = MethodType(_forward, module)
    setattr(base, ALIBI_ATTACHED, True)


def _forward(
    self: Any,
    hidden_states: Tensor,
    residual: Tensor,
    alibi: Tensor | RowBias,
    attention_mask: Tensor,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """BloomAttention's own, but for a row's attention."""
    if not isinstance(alibi, RowBias):
        return BloomAttention.forward(
            self, hidden_states, residual, alibi, attention_mask, **kwargs
        )
    query, key, value = self._reshape(self.query_key_value(hidden_states))
    width = query.shape[-1]
    bias_1HT1 = (alibi.bias_HT * width**0.5)[None, :, :, None]
    coarse = bias_1HT1.bfloat16().float()
    columns = torch.cat([coarse, bias_1HT1 - coarse], dim=-1).to(key.dtype)
    ones = query.new_ones((*query.shape[:-1], 2))
    mixed, _ = row_attention(
        self,
        torch.cat([query, ones], dim=-1),
        torch.cat([key, columns], dim=-1),
        torch.cat([value, torch.zeros_like(ones)], dim=-1),
        None,
        dropout=self.attention_dropout.p if self.training else 0.0,
        scaling=width**-0.5,
        shared_prefix=replace(alibi.shared_prefix, read=None),
    )
    output = self.dense(mixed[..., :width].reshape(*hidden_states.shape).to(hidden_states.dtype))
    return dropout_add(output, residual, self.hidden_dropout, self.training), None
