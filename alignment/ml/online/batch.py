"""What a step learns from: drawn answers, how likely they were, and to whom.

Legend: B prompts, K answers of a prompt, T tokens of an answer, S tokens of a row's answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alignment.ml.configs import GroupSettings, OnlineSettings
from alignment.ml.online.losses import answer_sums
from alignment.ml.ppo.batch import by_answer_lay, row_values, rows_look
from alignment.ml.ppo.losses import kl_estimates
from alignment.ml.ppo.networks import autocast, reference_logprobs, token_logprobs
from alignment.ml.ppo.rewards import Answers
from alignment.ml.shared_prefix import Group, Row, pack
from modelhub.ml.parallel import ALONE, Processes


@dataclass(frozen=True)
class Batch:
    """A step's answers and the log-probability of each of their tokens: (T,), one an answer."""

    groups: list[Group]
    logprobs: list[Tensor]  # of the policy that drew them
    reference: list[Tensor]
    log_ratios_BK: Tensor  # log π/π_ref of each answer: the KL from the reference, k1

    def row(self, row: Row, places: Sequence[int], values: Sequence[Tensor]) -> list[Tensor]:
        """What belongs to the answers in a row, in its order. places: of the row's groups."""
        return row_values(self.groups, row, places, values)


@torch.no_grad()
def batch_make(
    answers: Answers,
    *,
    actor: Any,
    reference: Any | None,
    config: OnlineSettings,
    processes: Processes = ALONE,
) -> tuple[Batch, dict[str, float]]:
    """Log-probabilities of drawn answers under policy and reference, and the step's figures."""
    groups = answers.groups
    own_logprobs = partial(token_logprobs, temperature=config.temperature, entropy=True)

    def look(row: Row) -> Tensor:
        with autocast(config.dtype):
            logprobs_S, entropy_S = processes.forward(own_logprobs, actor, row)
            theirs_S = reference_logprobs(reference, actor, row, config.temperature, processes)
        return torch.stack([logprobs_S, entropy_S, theirs_S])

    tokens = sum(group.tokens for group in groups)
    rows = pack(groups, processes.budget_tokens(config.budget_tokens, tokens))
    found = rows_look(rows, look, quantities=3, processes=processes)
    ours, spread, theirs = ([one[place] for one in found] for place in range(3))
    logprobs, others = by_answer_lay(groups, rows, ours), by_answer_lay(groups, rows, theirs)
    ratios_BK = (answer_sums(logprobs) - answer_sums(others)).view(len(groups), -1)
    lengths = [len(one) for one in logprobs]
    figures = {
        "objective/kl": float(ratios_BK.mean()),
        "objective/entropy": float(-answer_sums(logprobs).mean()),
        "objective/response_length": sum(lengths) / len(lengths),
        "policy/entropy_avg": float(torch.cat(spread).mean()),
        "val/num_eos_tokens": float(answers.ended_B.sum()),
    }
    return Batch(groups, logprobs, others, ratios_BK), figures


def rewards_of(batch: Batch, scores_BK: Tensor, config: GroupSettings) -> Tensor:
    """Scores less β·KL of the whole answer, if the KL is in the reward, (B, K).

    Ahmadian et al. 2024 (arXiv:2402.14740), section 2.1: an answer is one action.
    """
    if config.kl_in != "reward":
        return scores_BK
    kl = [
        kl_estimates(own, other, config.kl_estimator)
        for own, other in zip(batch.logprobs, batch.reference, strict=True)
    ]
    return scores_BK - config.kl_coef * answer_sums(kl).view_as(scores_BK)
