"""Several reward models' scores as one: pure functions.

    mean        1/M Σ r_m
    worst       min r_m                          worst-case optimisation
    uncertain   1/M Σ r_m − w · var r_m          uncertainty-weighted optimisation

Coste et al. 2023 (arXiv:2310.02743), section 3: what members disagree about is where a policy finds
answers that only the reward model likes. `weights_average` is WARM (Ramé et al. 2024,
arXiv:2401.12187): one model with the mean of the members' weights, as cheap to ask as one.

A Bradley-Terry score has no zero of its own. Members are put on a common one (`shifts_common`)
before their scores are compared: else the worst is merely the member with the lowest zero.

Legend: K answers of a prompt, M members.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignment.ml.configs.reward import COMBINATIONS
from annotation.doubt import doubt_of


def members_combine(scores_KM: Tensor, how: str, *, uncertainty_weight: float = 0.5) -> Tensor:
    """One score for each answer, shape (K,).

    how: one of COMBINATIONS. The variance is over the M members (divided by M). Raises ValueError
    for another.
    """
    if how == "mean":
        return scores_KM.mean(1) if scores_KM.shape[1] > 1 else scores_KM[:, 0]
    if how == "worst":
        return scores_KM.amin(1)
    if how == "uncertain":
        return scores_KM.mean(1) - uncertainty_weight * scores_KM.var(1, unbiased=False)
    raise ValueError(f"how: wanted {', '.join(COMBINATIONS)}, got {how!r}")


def shifts_common(scores: Sequence[Tensor]) -> list[float]:
    """What to take from each member's scores so that its mean over these answers is 0.

    scores: of each group, shape (K, M). Every answer counts the same. Returns M numbers.
    """
    return [float(mean) for mean in torch.cat(list(scores)).double().mean(0)]


def disagreement_report(scores: Sequence[Tensor]) -> dict[str, float]:
    """How far members are apart on groups of answers.

    scores: of each group of two answers or more, (K, M). spread: mean over answers of the members'
    standard deviation, in nats, each member's own zero taken off. disagreement_bits and
    near_tie_bits: mean over groups of the two parts of `annotation.doubt.doubt_of`, which orders
    the annotators' queue.
    """
    shifts_M = torch.tensor(shifts_common(scores))
    spreads = torch.cat([(one.double() - shifts_M).std(1, unbiased=False) for one in scores])
    doubts = [doubt_of(one.tolist()) for one in scores if len(one) > 1]
    count = max(1, len(doubts))
    return {
        "members": int(scores[0].shape[1]),
        "spread": float(spreads.mean()),
        "disagreement_bits": sum(one.disagreement for one in doubts) / count,
        "near_tie_bits": sum(one.near_tie for one in doubts) / count,
    }


def weights_average(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each weight over the members, in the first one's dtypes; counted in float64.

    Members must have gone out from one model, or the mean of their weights is no model. Raises
    ValueError naming the first weight that one lacks or has in another shape.
    """
    first = members[0]
    for number, member in enumerate(members[1:], 2):
        for name in first.keys() | member.keys():
            if name not in first or name not in member or first[name].shape != member[name].shape:
                raise ValueError(f"member {number} has another {name} than member 1")
    return {
        name: torch.stack([member[name].double() for member in members]).mean(0).to(weight.dtype)
        for name, weight in first.items()
    }
