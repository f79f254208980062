"""The arithmetic of methods without a critic as pure functions: tensors in, tensors out.

Legend: B prompts, K answers of a prompt, A answers of several prompts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_TINY = 1e-4  # kept under a deviation, as DeepSeek's code and TRL do


def equal_prompts(scores_BK: Tensor) -> Tensor:
    """Whether all answers of a prompt have the same score, bool (B,): they tell it nothing.

    The same to rounding: a reward model's score of one text twice may differ in its last digits.
    """
    spread_B = scores_BK.amax(1) - scores_BK.amin(1)
    return spread_B <= 1e-6 * scores_BK.abs().amax(1).clamp(min=1.0)


def leave_one_out(rewards_BK: Tensor) -> Tensor:
    """Each reward less the mean of the other answers' to its prompt, (B, K).

    Kool et al. 2019; Ahmadian et al. 2024 (arXiv:2402.14740), eq. 7. A baseline that does not
    depend on the answer it is taken from leaves the gradient unbiased.
    Raises ValueError for fewer than two answers.
    """
    answers = _answers_check(rewards_BK)
    others_BK = (rewards_BK.sum(1, keepdim=True) - rewards_BK) / (answers - 1)
    return rewards_BK - others_BK


def group_advantages(rewards_BK: Tensor, scale: str) -> Tensor:
    """Each reward less its prompt's mean, divided by a deviation, (B, K).

    Shao et al. 2024 (arXiv:2402.03300), section 4.1.2, with "group": the deviation of the prompt's
    own answers. "batch": of all answers. "none": it is not divided (Liu et al. 2025,
    arXiv:2503.20783), so that prompts of which nearly all answers are right, or wrong, weigh no
    more than others. Deviations are the unbiased ones, 1e-4 added.
    Raises ValueError for fewer than two answers or another scale.
    """
    _answers_check(rewards_BK)
    centred_BK = rewards_BK - rewards_BK.mean(1, keepdim=True)
    if scale == "none":
        return centred_BK
    if scale == "group":
        return centred_BK / (rewards_BK.std(1, keepdim=True) + _TINY)
    if scale == "batch":
        return centred_BK / (rewards_BK.std() + _TINY)
    raise ValueError(f"scale: wanted group, batch or none, got {scale!r}")


def advantages_normalize(advantages_BK: Tensor) -> Tensor:
    """Advantages of mean 0 and deviation 1 over all answers, shape kept."""
    return (advantages_BK - advantages_BK.mean()) / (advantages_BK.std() + _TINY)


def token_shares(lengths: Sequence[int], loss: str, *, max_tokens: int) -> list[float]:
    """How much a token of each answer counts in a minibatch's loss, one an answer.

    "grpo": answers count alike, 1 / (answers · tokens of its answer), so that a token of a long
    answer counts less (Shao et al. 2024, eq. 3). "dapo": tokens count alike, 1 / (all tokens)
    (Yu et al. 2025, arXiv:2503.14476, eq. 8). "dr_grpo": 1 / (answers · max_tokens), whatever the
    answers' lengths (Liu et al. 2025). Raises ValueError for an answer without a token or another
    loss.
    """
    if not lengths or min(lengths) < 1:
        raise ValueError(f"answers of {list(lengths)} tokens: one at least is wanted of each")
    if loss == "grpo":
        return [1 / (len(lengths) * length) for length in lengths]
    if loss == "dapo":
        return [1 / sum(lengths)] * len(lengths)
    if loss == "dr_grpo":
        return [1 / (len(lengths) * max_tokens)] * len(lengths)
    raise ValueError(f"loss: wanted grpo, dapo or dr_grpo, got {loss!r}")


def answer_sums(values: Sequence[Tensor]) -> Tensor:
    """The sum over each answer's tokens, (A,)."""
    return torch.stack([own.sum() for own in values])


def _answers_check(rewards_BK: Tensor) -> int:
    answers = rewards_BK.shape[1]
    if answers < 2:
        raise ValueError("one answer has no other to be weighed against: two or more are wanted")
    return answers
