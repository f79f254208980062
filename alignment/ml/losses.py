"""Losses as pure functions: tensors in, a scalar out.

Legend: K candidates of one prompt. Of distillation: S tokens, V vocabulary, K likeliest tokens, O
outcomes, which are either the vocabulary or K tokens and all the others as one.
"""

import math
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


def ranking_loss(
    scores_K: Tensor,
    better_KK: Tensor,
    margin: Tensor | float = 0.0,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean over a ranking's pairs of -log σ(score of the better - score of the worse - margin).

    Ouyang et al. 2022 (arXiv:2203.02155), eq. 1: all pairs of a ranking are one example, weighted
    by one over their number, here the number of untied pairs since ties are left out, as theirs
    were. With K = 2 it is the Bradley-Terry loss.

    scores_K: shape (K,). better_KK: from `better_mask`. margin: how far apart the pair should be, a
    number or shape (K, K) with [i, j] for the pair i above j; Touvron et al. 2023
    (arXiv:2307.09288), section 3.2.2, set it by the degree of preference. label_smoothing: the
    chance that a label is the wrong way round, below one half; the loss is then the expected one
    over both labels (Mitchell's conservative DPO does the same), each with its margin.
    Returns a scalar, nats per pair. Raises ValueError if the shapes differ or no pair is untied.
    """
    gaps = _gaps(scores_K, better_KK)
    own = -F.logsigmoid(gaps - _margin_of(margin, better_KK)).mean()
    if not label_smoothing:
        return own
    other = -F.logsigmoid(-gaps - _margin_of(margin, better_KK)).mean()
    return (1 - label_smoothing) * own + label_smoothing * other


def preference_shares(
    rankings: Iterable[tuple[Iterable[Sequence[int]], float]], candidates: int
) -> Tensor:
    """What several annotators say of each pair: float (K, K), [i, j] the share that put i above j.

    rankings: (tiers, weight of its annotator), tiers as in `better_mask`. A tie counts one half
    either way; who did not judge one of the two does not count. NaN where nobody judged the pair,
    and on the diagonal.
    """
    won_KK = torch.zeros(candidates, candidates)
    judged_KK = torch.zeros(candidates, candidates)
    for tiers, weight in rankings:
        tiers = list(tiers)
        above_KK = better_mask(tiers, candidates)
        named_K = torch.zeros(candidates, dtype=torch.bool)
        named_K[[place for tier in tiers for place in tier]] = True
        both_KK = named_K[:, None] & named_K[None, :]
        tied_KK = both_KK & ~above_KK & ~above_KK.T
        won_KK += weight * (above_KK.float() + 0.5 * tied_KK.float())
        judged_KK += weight * both_KK.float()
    return (won_KK / judged_KK).fill_diagonal_(math.nan)


def soft_ranking_loss(
    scores_K: Tensor,
    share_KK: Tensor,
    margin: Tensor | float = 0.0,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean over judged pairs of -[p log σ(gap - margin) + (1 - p) log σ(-gap - margin)].

    The cross-entropy of the model's belief with the annotators' own split, so that a pair they
    disagree about asks for a small gap instead of two large ones in turn.

    share_KK: p, from `preference_shares`; NaN for pairs that do not count. Others: `ranking_loss`.
    Raises ValueError if the shapes differ or no pair was judged.
    """
    share_KK = share_KK.to(scores_K.device)
    judged_KK = torch.triu(~share_KK.isnan(), diagonal=1)
    gaps = _gaps(scores_K, judged_KK)
    share = share_KK[judged_KK].to(gaps.dtype)
    share = share + label_smoothing * (1 - 2 * share)
    apart = _margin_of(margin, judged_KK)
    return -(share * F.logsigmoid(gaps - apart) + (1 - share) * F.logsigmoid(-gaps - apart)).mean()


def safety_loss(scores_K: Tensor, unsafe_K: Tensor) -> Tensor:
    """Mean over answers of -log σ(score) where the answer is safe, -log σ(-score) where it is not.

    Llama 2's safety auxiliary loss (Touvron et al. 2023, arXiv:2307.09288, Table 29) in the form of
    a cross-entropy; the paper gives no formula. It gives a score's zero, which comparisons leave
    open, a meaning: σ(score) becomes the probability that the answer is safe.

    unsafe_K: bool, shape (K,). Returns a scalar, nats per answer.
    """
    signs_K = 1 - 2 * unsafe_K.to(scores_K)
    return -F.logsigmoid(signs_K * scores_K).mean()


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


# Probability that the tokens which are not among the likeliest have at least: 1 − Σ p in float32
# knows no smaller one, and its logarithm has to stay finite.
_TAIL_FLOOR = 1e-6


def token_divergence(student_SO: Tensor, teacher_SO: Tensor, *, beta: float) -> Tensor:
    """How far the student's distribution is from the teacher's at each token, nats, shape (S,).

        β = 0       KL(teacher ‖ student), forward
        β = 1       KL(student ‖ teacher), reverse
        0 < β < 1   β KL(teacher ‖ m) + (1 − β) KL(student ‖ m),  m = β teacher + (1 − β) student

    Agarwal et al. 2024 (arXiv:2306.13649), eq. 1, with P the teacher: generalised Jensen–Shannon.
    Divided by β it tends to the forward KL as β goes to 0, by 1 − β to the reverse as β goes to 1.

    student_SO, teacher_SO: log-probabilities of the same outcomes, all finite. Raises ValueError if
    the shapes differ or β is not from 0 to 1.
    """
    if student_SO.shape != teacher_SO.shape:
        raise ValueError(f"student {tuple(student_SO.shape)}, teacher {tuple(teacher_SO.shape)}")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta: wanted 0 to 1, got {beta}")
    if beta == 0:
        return (teacher_SO.exp() * (teacher_SO - student_SO)).sum(-1)
    if beta == 1:
        return (student_SO.exp() * (student_SO - teacher_SO)).sum(-1)
    mixed_SO = torch.logaddexp(teacher_SO + math.log(beta), student_SO + math.log1p(-beta))
    of_teacher_S = (teacher_SO.exp() * (teacher_SO - mixed_SO)).sum(-1)
    of_student_S = (student_SO.exp() * (student_SO - mixed_SO)).sum(-1)
    return beta * of_teacher_S + (1 - beta) * of_student_S


def outcomes_top(logprobs_SV: Tensor, ids_SK: Tensor) -> Tensor:
    """log p of the tokens `ids_SK`, and behind them of all the other tokens together, (S, K + 1).

    With outcomes thrown together a divergence is never larger, and it is 0 where it was 0; with
    every token named it is the same.
    """
    return rest_append(logprobs_SV.gather(-1, ids_SK))


def rest_append(logprobs_SK: Tensor) -> Tensor:
    """K log-probabilities, and behind them that of all other outcomes together, (S, K + 1)."""
    rest_S1 = (1 - logprobs_SK.exp().sum(-1, keepdim=True)).clamp_min(_TAIL_FLOOR).log()
    return torch.cat([logprobs_SK, rest_S1], dim=-1)


def _gaps(scores_K: Tensor, pairs_KK: Tensor) -> Tensor:
    """score[i] - score[j] of the pairs that are true, in their order in the mask."""
    if pairs_KK.shape != (len(scores_K), len(scores_K)):
        raise ValueError(f"{len(scores_K)} scores and a mask of shape {tuple(pairs_KK.shape)}")
    pairs_KK = pairs_KK.to(scores_K.device)
    if not pairs_KK.any():
        raise ValueError("a ranking without an untied pair has no loss")
    return (scores_K[:, None] - scores_K[None, :])[pairs_KK]


def _margin_of(margin: Tensor | float, pairs_KK: Tensor) -> Tensor | float:
    if isinstance(margin, Tensor) and margin.ndim == 2:
        return margin[pairs_KK.to(margin.device)]
    return margin
