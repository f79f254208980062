"""Losses as pure functions: tensors in, a scalar out.

Legend: K candidates of one prompt.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def better_mask(tiers: Iterable[Sequence[int]], candidates: int) -> Tensor:
    """Which answer is judged better than which: bool (K, K), [i, j] true if i is above j.

    tiers: places of candidates, best tier first. Ties, and candidates in no tier, are false
    throughout. Raises ValueError for a place outside 0..K-1 or named twice.
    """
    level_K = torch.full((candidates,), -1)
    for level, tier in enumerate(tiers):
        for place in tier:
            if not 0 <= place < candidates:
                raise ValueError(f"tiers name candidate {place} of {candidates}")
            if level_K[place] >= 0:
                raise ValueError(f"tiers name candidate {place} twice")
            level_K[place] = level
    judged_K = level_K >= 0
    return (level_K[:, None] < level_K[None, :]) & judged_K[:, None] & judged_K[None, :]


def ranking_loss(scores_K: Tensor, better_KK: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """Mean over a ranking's pairs of -log σ(score of the better - score of the worse - margin).

    Ouyang et al. 2022 (arXiv:2203.02155), eq. 1: all pairs of a ranking are one example, weighted
    by one over their number, here the number of untied pairs since ties are left out, as theirs
    were. With K = 2 it is the Bradley-Terry loss.

    scores_K: shape (K,). better_KK: from `better_mask`. margin: how far apart the pair should be, a
    number or shape (K, K) with [i, j] for the pair i above j; Touvron et al. 2023
    (arXiv:2307.09288), section 3.2.2, set it by the degree of preference.
    Returns a scalar, nats per pair. Raises ValueError if the shapes differ or no pair is untied.
    """
    if better_KK.shape != (len(scores_K), len(scores_K)):
        raise ValueError(f"{len(scores_K)} scores and a mask of shape {tuple(better_KK.shape)}")
    better_KK = better_KK.to(scores_K.device)
    if not better_KK.any():
        raise ValueError("a ranking without an untied pair has no loss")
    gaps_KK = scores_K[:, None] - scores_K[None, :] - margin
    return -F.logsigmoid(gaps_KK[better_KK]).mean()


def centering_loss(scores_K: Tensor) -> Tensor:
    """Mean of the squared scores, a scalar: keeps a reward's free constant near 0.

    Eisenstein et al. 2023 (arXiv:2312.09244), section 3, apply it to the sum of a pair's scores;
    on rankings of any length it is applied to each score.
    """
    return scores_K.square().mean()


def pair_accuracy(scores_K: Tensor, better_KK: Tensor) -> tuple[float, int]:
    """(pairs whose better answer has the higher score, pairs); equal scores count one half."""
    gaps_KK = scores_K[:, None] - scores_K[None, :]
    gaps = gaps_KK[better_KK.to(scores_K.device)]
    right = (gaps > 0).sum() + 0.5 * (gaps == 0).sum()
    return float(right), int(better_KK.sum())
