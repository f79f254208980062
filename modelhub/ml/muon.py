"""Muon: a matrix moves by its momentum made orthogonal, every direction at one speed.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the size of a step is that of Liu et al.
2025 (arXiv:2502.16982), section 2.2. torch's own makes orthogonal in bfloat16 whatever the machine:
on a processor without instructions for it that takes ten times as long as the rest of a step
(docs/experiments.md). Here it is float32 there; in bfloat16 the steps are torch's.
"""

import torch
from torch import Tensor

from modelhub.ml.hardware import bfloat16_multiplies

MOMENTUM = 0.95
_ITERATIONS = 5
# Of Jordan's quintic: the steepest at 0 that keeps singular values within about [0.7, 1.2].
_A, _B, _C = 3.4445, -4.7750, 2.0315
_LEAST_NORM = 1e-7


def muon_step(
    weight: Tensor, gradient: Tensor, momentum: Tensor, *, lr: float, weight_decay: float
) -> None:
    """Move a matrix, in place; its momentum too (Nesterov's).

    lr: a step has the root mean square of AdamW's at this rate. weight_decay: decoupled.
    """
    momentum.lerp_(gradient, 1 - MOMENTUM)
    update = orthogonalised(gradient.lerp(momentum, MOMENTUM))
    weight.mul_(1 - lr * weight_decay)
    weight.add_(update, alpha=-lr * 0.2 * max(weight.shape) ** 0.5)


def orthogonalised(matrix: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The matrix with singular values near 1: U S' Vᵀ of its U S Vᵀ, by Newton and Schulz.

    dtype: of the products; by default bfloat16 where this machine multiplies in it.
    Returns `dtype`, of the matrix's shape.
    """
    if dtype is None:
        dtype = torch.bfloat16 if bfloat16_multiplies() else torch.float32
    is_tall = matrix.size(0) > matrix.size(1)
    x = matrix.to(dtype, copy=True)
    if is_tall:
        x = x.T
    x.div_(x.norm().clamp(min=_LEAST_NORM))
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.T if is_tall else x
