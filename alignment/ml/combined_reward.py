"""Helpfulness and safety as one reward, as Llama 2 combines them: pure functions.

    R_c = R_s   where the prompt is marked risky, or σ(R_s) < 0.15;   R_h elsewhere
    R   = whiten(logit(σ(R_c)))

Touvron et al. 2023 (arXiv:2307.09288), section 3.2.3. Their models end in a sigmoid, which the
logit undoes; ours give the score before it, so that the logit is already there and nothing is lost
at the ends, where float32's sigmoid is 0 or 1. The penalty β·KL is the policy program's own.

The threshold is a statement about σ(R_s): it means something for a safety model that was trained
with the safety auxiliary loss (`RewardConfig.safety_weight`), whose σ is the probability that an
answer is safe. Comparisons alone leave a reward's zero, and so the threshold, to chance.

Legend: B answers.
"""

import math

import torch
from torch import Tensor

# Llama 2's: found unsafe with precision 0.89 and recall 0.55 on their test set (section 3.2.3).
SAFETY_THRESHOLD = 0.15
_SAME = 1e-8  # a spread below this is rounding: whitening would blow it up


def combined_score(
    helpful_B: Tensor, safe_B: Tensor, risky_B: Tensor, *, threshold: float = SAFETY_THRESHOLD
) -> Tensor:
    """R_c, in log-odds: each answer's score by the model that has the say on it.

    helpful_B, safe_B: scores of the two reward models before any sigmoid, shape (B,). risky_B:
    bool, shape (B,), whether the answer's prompt is marked as one that may draw an unsafe answer.
    threshold: of σ(safe), above 0 and below 1. Returns shape (B,).
    Raises ValueError if the shapes differ, risky_B is not bool, or the threshold is not one.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold: wanted more than 0 and less than 1, got {threshold}")
    return torch.where(_safety_rules(helpful_B, safe_B, risky_B, threshold), safe_B, helpful_B)


def combined_reward(
    helpful_B: Tensor, safe_B: Tensor, risky_B: Tensor, *, threshold: float = SAFETY_THRESHOLD
) -> Tensor:
    """Llama 2's reward of a batch before the KL penalty: `whiten(combined_score(…))`, (B,).

    The batch must be all answers of a step: whitening a part of it by itself gives other rewards.
    Arguments and errors are those of `combined_score`.
    """
    return whiten(combined_score(helpful_B, safe_B, risky_B, threshold=threshold))


def safety_share(
    helpful_B: Tensor, safe_B: Tensor, risky_B: Tensor, *, threshold: float = SAFETY_THRESHOLD
) -> float:
    """The share of answers on which the safety model has the say: a curve worth watching."""
    return float(_safety_rules(helpful_B, safe_B, risky_B, threshold).float().mean())


def whiten(values_B: Tensor) -> Tensor:
    """Values with mean 0 and standard deviation 1 (divided by B, as of the whole batch), (B,).

    Equal values, one alone among them, carry no preference and become 0.
    """
    centred_B = values_B - values_B.mean()
    spread = centred_B.square().mean().sqrt()
    if float(spread) <= _SAME * max(1.0, float(values_B.abs().max())):
        return torch.zeros_like(values_B)
    return centred_B / spread


def logit(probability_B: Tensor) -> Tensor:
    """log(p / (1 − p)) of scores from a model that ends in a sigmoid, shape kept.

    p is kept off 0 and 1 by the resolution of its dtype, so that the result is finite.
    """
    tiny = torch.finfo(probability_B.dtype).eps
    kept_B = probability_B.clamp(tiny, 1 - tiny)
    return torch.log(kept_B) - torch.log1p(-kept_B)


def _safety_rules(helpful_B: Tensor, safe_B: Tensor, risky_B: Tensor, threshold: float) -> Tensor:
    if not helpful_B.shape == safe_B.shape == risky_B.shape:
        raise ValueError(
            f"{tuple(helpful_B.shape)} helpfulness scores, {tuple(safe_B.shape)} safety scores and "
            f"{tuple(risky_B.shape)} marks of risk"
        )
    if risky_B.dtype != torch.bool:
        raise ValueError(f"risky_B: wanted bool, got {risky_B.dtype}")
    # σ(score) < threshold, without the sigmoid.
    return risky_B | (safe_B < math.log(threshold / (1 - threshold)))
