"""Adapters that put tokens of their own in front of a prompt: prefix tuning and P-tuning.

A packed row holds many prompts, and each must see the adapter's tokens behind its own start. PEFT
puts them in front of the row alone, so every prompt but the first is computed wrongly, in silence.
Here every prompt of a row gets places for them, at the positions they have when a prompt is alone:

    tokens     v0 v1 p0 p1 | a0 a1 | b0      positions   0 1 2 3 | 4 5 | 4

P-tuning fills the places with its embeddings. Prefix tuning has keys and values for each layer
instead: they take those of the places, and what else is computed there nobody reads. So a row is
exact as it is without an adapter, gradients included, and who runs rows sees none of it: the places
are put in on the way into the model and taken out on the way back.

Legend: W virtual tokens, T tokens of a row without them, N key heads, D head width, C hidden width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignment.ml.shared_prefix.rows import Row
from alignment.ml.shared_prefix.support import UnsupportedModelError


@dataclass(frozen=True)
class Virtual:
    """An adapter's own tokens, for one pass: one of the two is there."""

    tokens: int  # W
    embeddings_WC: Tensor | None = None
    layers: tuple[tuple[Tensor, Tensor], ...] = ()  # keys and values, (1, N, W, D) each


def virtual_tokens(model: Any) -> Virtual | None:
    """What the active adapter puts in front of a prompt, with gradients; None if nothing."""
    config = getattr(model, "active_peft_config", None)
    # The second: inside `with model.disable_adapter()`, where a method reads the base as reference.
    if config is None or not config.is_prompt_learning or model._adapters_disabled:
        return None
    if config.peft_type == "P_TUNING":
        embeddings_1WC = model.get_prompt(batch_size=1)
        return Virtual(config.num_virtual_tokens, embeddings_WC=embeddings_1WC[0])
    if config.peft_type == "PREFIX_TUNING":
        cache = model.get_prompt(batch_size=1)
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        return Virtual(config.num_virtual_tokens, layers=layers)
    raise UnsupportedModelError(f"{config.peft_type} has no place on a shared row")


def places_of(row: Row, tokens: int) -> tuple[Tensor, Tensor]:
    """(the adapter's places, all others) of a row made by `Row.behind`: indices, ascending."""
    virtual = torch.zeros(row.tokens, dtype=torch.bool)
    for span in row.spans:
        virtual[span.start : span.start + tokens] = True
    return virtual.nonzero()[:, 0], (~virtual).nonzero()[:, 0]
