"""The arithmetic of PPO as pure functions: tensors in, tensors out.

Legend: B answers, T tokens of the longest, S tokens of several answers one behind the other. In
(B, T) tensors an answer's tokens come first; `mask_BT` is true on them, and what lies behind them
is put to 0.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the true places, a scalar. Raises ValueError if there are none."""
    if not mask.any():
        raise ValueError("a mean over no token")
    return values[mask].mean()


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Values of the masked places brought to variance 1, and to mean 0 unless `shift_mean` is off.

    Any one shape. Without the shift a reward keeps its sign and its level, as in Ziegler et al.
    2019's code. The variance is the unbiased one. A single place has no spread: it is left as it
    is, or put to 0 with the shift. Places outside the mask become 0.
    """
    mean = masked_mean(values, mask)
    count = int(mask.sum())
    variance = values[mask].var() if count > 1 else torch.zeros_like(mean)
    scale = torch.rsqrt(variance + 1e-8) if count > 1 else torch.ones_like(mean)
    whitened = (values - mean) * scale
    if not shift_mean:
        whitened = whitened + mean
    return whitened.masked_fill(~mask, 0.0)


def kl_estimates(logprobs: Tensor, reference_logprobs: Tensor, estimator: str) -> Tensor:
    """An estimate of KL(policy ‖ reference) at each token that the policy drew, in nats.

    "k1": the log-ratio, unbiased, of either sign. "k3": ratio − 1 − log-ratio of the reference to
    the policy, unbiased too and never negative (Schulman 2020, "Approximating KL divergence").
    "k2": half the log-ratio's square, biased and never negative; of the three it is the one whose
    own gradient is the KL's, on average over the policy's tokens.
    """
    gap = reference_logprobs - logprobs
    if estimator == "k1":
        return -gap
    if estimator == "k2":
        return 0.5 * gap.square()
    if estimator == "k3":
        return torch.expm1(gap) - gap
    raise ValueError(f"estimator: wanted k1, k2 or k3, got {estimator!r}")


def token_rewards(kl_BT: Tensor, scores_B: Tensor, mask_BT: Tensor, kl_coef: float) -> Tensor:
    """The reward of each token: −β·KL at every one, and the answer's score at its last, (B, T).

    Ziegler et al. 2019 (arXiv:1909.08593), eq. 2, spread over the tokens. TRL's trainer puts the
    score on the first token of padding where there is one (trl issue 3750); here it is always the
    last token that the policy wrote. Raises ValueError for an answer without a token.
    """
    lengths_B = mask_BT.sum(1)
    if not (lengths_B > 0).all():
        raise ValueError("an answer without a token has no place for its score")
    rewards_BT = (-kl_coef * kl_BT).masked_fill(~mask_BT, 0.0)
    last_B1 = (lengths_B - 1)[:, None]
    return rewards_BT.scatter_add(1, last_B1, scores_B.to(rewards_BT.dtype)[:, None])


def advantages_estimate(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: (advantages, returns), each (B, T), not whitened.

        δ_t = r_t + γ·V_{t+1} − V_t        A_t = Σ_l (γλ)^l δ_{t+l}        R_t = A_t + V_t

    Schulman et al. 2016 (arXiv:1506.02438), eq. 16. V_t is the value before token t; behind the
    last token an answer is over, and worth 0.
    """
    values_BT = values_BT.masked_fill(~mask_BT, 0.0)
    rewards_BT = rewards_BT.masked_fill(~mask_BT, 0.0)
    later_B = torch.zeros_like(values_BT[:, 0])
    next_B = torch.zeros_like(later_B)
    found = []
    for t in reversed(range(values_BT.shape[1])):
        delta_B = rewards_BT[:, t] + gamma * next_B - values_BT[:, t]
        later_B = torch.where(mask_BT[:, t], delta_B + gamma * lam * later_B, 0.0)
        next_B = values_BT[:, t]
        found.append(later_B)
    advantages_BT = torch.stack(found[::-1], dim=1)
    return advantages_BT, (advantages_BT + values_BT).masked_fill(~mask_BT, 0.0)


def policy_losses(
    logprobs_S: Tensor,
    old_logprobs_S: Tensor,
    advantages_S: Tensor,
    *,
    cliprange: float,
    cliprange_high: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(loss of each token, whether the clip held it back), each (S,).

        max(−A·ρ, −A·clip(ρ, 1 − ε, 1 + ε'))        ρ = π(token) / π_old(token)

    Schulman et al. 2017 (arXiv:1707.06347), eq. 7. cliprange_high: ε', ε unless given.
    """
    high = cliprange if cliprange_high is None else cliprange_high
    ratio_S = torch.exp(logprobs_S - old_logprobs_S)
    free_S = -advantages_S * ratio_S
    held_S = -advantages_S * ratio_S.clamp(1.0 - cliprange, 1.0 + high)
    return torch.maximum(free_S, held_S), held_S > free_S


def value_losses(
    values_S: Tensor, old_values_S: Tensor, returns_S: Tensor, *, cliprange_value: float
) -> tuple[Tensor, Tensor]:
    """(loss of each token, whether the clip held it back), each (S,).

    Half the larger of the squared errors of the value and of the value kept within
    `cliprange_value` of the old one. 0 clips nothing.
    """
    free_S = (values_S - returns_S).square()
    if not cliprange_value:
        return 0.5 * free_S, torch.zeros_like(free_S, dtype=torch.bool)
    near_S = old_values_S + (values_S - old_values_S).clamp(-cliprange_value, cliprange_value)
    held_S = (near_S - returns_S).square()
    return 0.5 * torch.maximum(free_S, held_S), held_S > free_S


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 − Var(R − V) / Var(R) over the masked tokens: 1 is a perfect critic, 0 a constant one.

    0 where the returns do not vary.
    """
    returns_S, values_S = returns[mask].double(), values[mask].double()
    spread = returns_S.var(unbiased=False)
    if spread == 0:
        return 0.0
    return float(1 - (returns_S - values_S).var(unbiased=False) / spread)


def entropies(logits_SV: Tensor) -> Tensor:
    """The entropy of each token's distribution, nats, (S,)."""
    logs_SV = F.log_softmax(logits_SV, dim=-1)
    return -(logs_SV.exp() * logs_SV).sum(-1)


@dataclass(frozen=True)
class AdaptiveKl:
    """The controller of the KL's coefficient (Ziegler et al. 2019, section 2.2).

    It grows while an answer's KL is over the target and shrinks while it is under it, by at most
    0.2 of itself for every `horizon` answers.
    """

    target: float  # nats per answer
    horizon: float  # answers

    def next(self, kl_coef: float, kl: float, answers: int) -> float:
        """The coefficient after `answers` answers of mean KL `kl`, nats.

        Raises ValueError for a KL that is not finite.
        """
        if not math.isfinite(kl):
            raise ValueError(f"the KL is {kl}")
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return kl_coef * (1.0 + error * answers / self.horizon)
