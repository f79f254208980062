"""ALiBi on masks of any shape: BLOOM wherever another decoder may stand.

ALiBi adds to a score the head's slope times the key's distance (Press et al. 2021,
arXiv:2108.12409). Softmax leaves out what all keys of a query share, so slope times the key's place
does the same, counted from any start. transformers counts the places from the mask, which must then
be one number a token; here they are counted along the row, whatever mask comes with it.
"""

from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

ALIBI_FAMILIES = ("bloom",)


def has_alibi(model: Any) -> bool:
    """Whether the model is one of those that this module knows."""
    return model.config.model_type in ALIBI_FAMILIES


def alibi_prepare(model: Any) -> None:
    """Let a BLOOM take masks of four dimensions; other models are left as they are."""
    if has_alibi(model):
        backbone = getattr(model, model.base_model_prefix)
        backbone.build_alibi_tensor = MethodType(_build, backbone)


def alibi_along(heads: int, mask: Tensor, dtype: Any) -> Tensor:
    """Slope times place of every key of a row, (B · H, 1, L): mask's last dimension is L."""
    return build_alibi_tensor(mask.new_ones(mask.shape[0], mask.shape[-1]), heads, dtype)


def _build(_backbone: nn.Module, mask: Tensor, heads: int, dtype: Any) -> Tensor:
    return alibi_along(heads, mask, dtype)
