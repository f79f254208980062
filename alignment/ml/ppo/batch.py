"""What a step learns from: drawn answers with all that updates need of each of their tokens.

Legend: B answers of a step, T tokens of the longest, S tokens of a row's answers, Q quantities that
a token has.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alignment.ml.configs import PpoConfig
from alignment.ml.ppo.losses import (
    advantages_estimate,
    explained_variance,
    kl_estimates,
    masked_mean,
    token_rewards,
    whiten,
)
from alignment.ml.ppo.networks import (
    autocast,
    reference_logprobs,
    token_logprobs,
    token_values,
)
from alignment.ml.ppo.rewards import Answers
from alignment.ml.shared_prefix import Group, Row, pack
from modelhub.ml.parallel import ALONE, Processes


@dataclass(frozen=True)
class Batch:
    """A step's answers with all that updates need of each token: lists of (T,), one an answer."""

    groups: list[Group]
    logprobs: list[Tensor]  # of the policy that drew them
    values: list[Tensor]
    advantages: list[Tensor]
    returns: list[Tensor]

    def row(self, row: Row, places: Sequence[int], values: Sequence[Tensor]) -> Tensor:
        """Values of the answers in a row, in the row's order, (S,). places: of the row's groups."""
        return torch.cat(row_values(self.groups, row, places, values))


def row_values(
    groups: Sequence[Group], row: Row, places: Sequence[int], values: Sequence[Tensor]
) -> list[Tensor]:
    """What belongs to the answers in a row, in the row's order, of one an answer of all groups.

    places: of the row's groups among `groups`.
    """
    first = _firsts(groups)
    return [
        values[first[places[index]] + number]
        for index in row.indices
        for number in range(len(groups[places[index]].answers))
    ]


def _firsts(groups: Sequence[Group]) -> list[int]:
    """For each group, how many answers come before its first."""
    firsts, count = [], 0
    for group in groups:
        firsts.append(count)
        count += len(group.answers)
    return firsts


def by_answer_lay(
    groups: Sequence[Group], rows: Sequence[Row], found: Iterable[Tensor]
) -> list[Tensor]:
    """Flat values of rows, (S,) each, as one (T,) an answer, groups and answers in their order."""
    first = _firsts(groups)
    ordered: list[Tensor] = [torch.empty(0)] * sum(len(group.answers) for group in groups)
    for row, values_S in zip(rows, found, strict=True):
        lengths = [len(answer) for group in row.groups for answer in group.answers]
        parts = iter(values_S.split(lengths))
        for index, group in zip(row.indices, row.groups, strict=True):
            for number in range(len(group.answers)):
                ordered[first[index] + number] = next(parts)
    return ordered


@torch.no_grad()
def rows_look(
    rows: Sequence[Row], look: Callable[[Row], Tensor], *, quantities: int, processes: Processes
) -> list[Tensor]:
    """What `look` finds of every row, (Q, S) each, float32, in the rows' order.

    A row is looked at by one process, and what it found is every process's, to the bit: all that
    follows from it is computed everywhere, so that means and deviations are over the whole step.
    """
    found: dict[int, Tensor] = {}
    for place, weight in processes.share(range(len(rows)), cost=lambda place: rows[place].tokens):
        values_QS = look(rows[place])  # collective where the model is sharded, wanted or not
        if weight:
            found[place] = values_QS
    if processes.world == 1:
        return [found[place] for place in range(len(rows))]
    lengths = [sum(len(a) for group in row.groups for a in group.answers) for row in rows]
    parts = torch.zeros(quantities, sum(lengths), device=processes.device).split(lengths, dim=1)
    for place, values_QS in found.items():
        parts[place].copy_(values_QS)
    flat_QS = processes.tensor_sum(torch.cat(parts, dim=1))
    return list(flat_QS.split(lengths, dim=1))


@torch.no_grad()
def batch_make(
    answers: Answers,
    scores_B: Tensor,
    *,
    actor: Any,
    critic: Any,
    reference: Any | None,
    kl_coef: float,
    config: PpoConfig,
    processes: Processes = ALONE,
) -> tuple[Batch, dict[str, float]]:
    """Log-probabilities, values, rewards and advantages of drawn answers, and the step's figures.

    scores_B: each answer's score as PPO sees it. Raises NotFinite for a figure that is none.
    """
    groups = answers.groups
    own_logprobs = partial(token_logprobs, temperature=config.temperature, entropy=True)

    def look(row: Row) -> Tensor:
        with autocast(config.dtype):
            logprobs_S, entropy_S = processes.forward(own_logprobs, actor, row)
            theirs_S = reference_logprobs(reference, actor, row, config.temperature, processes)
            values_S = processes.forward(token_values, critic, row)
        return torch.stack([logprobs_S, entropy_S, theirs_S, values_S])

    tokens = sum(group.tokens for group in groups)
    rows = pack(groups, processes.budget_tokens(config.budget_tokens, tokens))
    found = rows_look(rows, look, quantities=4, processes=processes)
    ours, spread, theirs, worth = ([one[place] for one in found] for place in range(4))
    logprobs = by_answer_lay(groups, rows, ours)
    values = by_answer_lay(groups, rows, worth)
    lengths_B = torch.tensor([len(one) for one in logprobs])
    mask_BT = (torch.arange(int(lengths_B.max())) < lengths_B[:, None]).to(logprobs[0].device)
    logprobs_BT, values_BT, theirs_BT = (
        pad_sequence(one, batch_first=True)
        for one in (logprobs, values, by_answer_lay(groups, rows, theirs))
    )
    kl_BT = kl_estimates(logprobs_BT, theirs_BT, config.kl_estimator).masked_fill(~mask_BT, 0.0)
    rewards_BT = token_rewards(kl_BT, scores_B.to(kl_BT.device), mask_BT, kl_coef)
    if config.whiten_rewards:
        rewards_BT = whiten(rewards_BT, mask_BT, shift_mean=False)
    advantages_BT, returns_BT = advantages_estimate(
        rewards_BT, values_BT, mask_BT, gamma=config.gamma, lam=config.lam
    )
    white_BT = whiten(advantages_BT, mask_BT)

    def by_answer(values_BT: Tensor) -> list[Tensor]:
        return [own[:length] for own, length in zip(values_BT, lengths_B.tolist(), strict=True)]

    kl_B = kl_BT.sum(1)
    figures = {
        "objective/kl": float(kl_B.mean()),
        "objective/kl_coef": kl_coef,
        "objective/entropy": float(-logprobs_BT.masked_fill(~mask_BT, 0.0).sum(1).mean()),
        "objective/non_score_reward": float(-kl_coef * kl_B.mean()),
        "objective/rlhf_reward": float(scores_B.mean() - kl_coef * kl_B.mean()),
        "objective/response_length": float(lengths_B.float().mean()),
        "policy/entropy_avg": float(torch.cat(spread).mean()),
        "val/mean": float(masked_mean(values_BT, mask_BT)),
        "val/returns": float(masked_mean(returns_BT, mask_BT)),
        "val/explained_variance": explained_variance(values_BT, returns_BT, mask_BT),
        "val/num_eos_tokens": float(answers.ended_B.sum()),
    }
    return (
        Batch(groups, logprobs, values, by_answer(white_BT), by_answer(returns_BT)),
        figures,
    )
