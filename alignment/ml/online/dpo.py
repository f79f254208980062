"""Online DPO: of the policy's own answers the better is made likelier than the worse.

    L = −log σ( β [ log π(y⁺|x)/π_ref(y⁺|x) − log π(y⁻|x)/π_ref(y⁻|x) ] )

Guo et al. 2024 (arXiv:2402.04792): DPO's loss (`alignment.ml.dpo`) on pairs that are drawn from the
policy as it is, and judged by a reward as it trains, so that labels never are of another policy's
answers. Of more than two answers the best and the worst are the pair (Dong et al. 2024,
arXiv:2405.07863). A prompt whose answers all have one score has no pair, and is counted. The first
of equal answers is taken.

By hand: `python -m alignment.ml.online.dpo RUN_DIR`.

Legend: B prompts, K answers of a prompt, P pairs of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from alignment.ml.configs import OnlineDpoConfig
from alignment.ml.dpo import dpo_losses
from alignment.ml.online.batch import Batch
from alignment.ml.online.losses import answer_sums, equal_prompts
from alignment.ml.online.training import online_run
from alignment.ml.online.updates import Learner
from alignment.ml.ppo.networks import autocast, token_logprobs
from alignment.ml.shared_prefix import Group, pack
from modelhub.ml.rundir import RunDir, program_run

_FIGURES = (
    "loss/policy_avg",
    "rewards/accuracies",
    "rewards/margins",
    "rewards/chosen",
    "rewards/rejected",
    "policy/approxkl_avg",
)


@dataclass(frozen=True)
class Pair:
    """The better and the worse answer to a prompt."""

    group: Group  # the prompt with the two of them
    drawn: tuple[float, float]  # Σ log p of each by the policy that drew them, nats
    reference: tuple[float, float]


def pairs_choose(batch: Batch, scores_BK: Tensor) -> list[Pair]:
    """The best and the worst answer of every prompt whose answers do not all score alike."""
    answers = scores_BK.shape[1]
    drawn, reference = answer_sums(batch.logprobs).tolist(), answer_sums(batch.reference).tolist()
    best, worst = scores_BK.argmax(1).tolist(), scores_BK.argmin(1).tolist()
    pairs = []
    for place, equal in enumerate(equal_prompts(scores_BK).tolist()):
        if equal:
            continue
        group, first = batch.groups[place], place * answers
        two = (best[place], worst[place])
        pairs.append(
            Pair(
                Group(group.prompt_T, [group.answers[one] for one in two]),
                (drawn[first + two[0]], drawn[first + two[1]]),
                (reference[first + two[0]], reference[first + two[1]]),
            )
        )
    return pairs


def minibatch_gradients(
    learner: Learner, pairs: Sequence[Pair], config: OnlineDpoConfig, places: Sequence[int]
) -> tuple[dict[str, float], int]:
    """Add the gradient of the mean loss over a minibatch's pairs, row by row.

    Returns the minibatch's figures and the tokens computed.
    """
    chosen = [pairs[place] for place in places]
    sums = dict.fromkeys(_FIGURES, 0.0)
    processes = learner.processes
    logprobs_of = partial(token_logprobs, temperature=config.temperature)
    tokens = sum(pair.group.tokens for pair in chosen)
    rows = pack(
        [pair.group for pair in chosen], processes.budget_tokens(config.budget_tokens, tokens)
    )
    for row, weight in processes.share(rows, cost=lambda row: row.tokens):
        lengths = [len(answer) for group in row.groups for answer in group.answers]
        with autocast(config.dtype):
            logprobs_S, _ = processes.forward(logprobs_of, learner.actor, row)
        policy_P2 = answer_sums(logprobs_S.split(lengths)).view(-1, 2)
        reference_P2 = policy_P2.new_tensor([chosen[index].reference for index in row.indices])
        drawn_P2 = policy_P2.new_tensor([chosen[index].drawn for index in row.indices])
        ratios_P2 = policy_P2 - reference_P2
        if config.loss == "ipo":
            ratios_P2 = ratios_P2 / ratios_P2.new_tensor(lengths).view(-1, 2)
        gaps_P = ratios_P2[:, 0] - ratios_P2[:, 1]
        losses_P = dpo_losses(gaps_P, config.loss, beta=config.beta)
        (weight * losses_P.sum() / len(chosen)).backward()
        with torch.no_grad():
            found = (
                losses_P,
                (gaps_P > 0).float() + 0.5 * (gaps_P == 0).float(),
                config.beta * gaps_P,
                config.beta * ratios_P2[:, 0],
                config.beta * ratios_P2[:, 1],
                0.5 * (policy_P2 - drawn_P2).square().mean(1),
            )
            for name, found_P in zip(_FIGURES, found, strict=True):
                sums[name] += weight * float(found_P.sum()) / len(chosen)
    return processes.sum(sums), tokens


def update(
    learner: Learner, batch: Batch, scores_BK: Tensor, *, step: int, config: OnlineDpoConfig
) -> tuple[dict[str, float], int]:
    """A step's updates. Returns their figures and the tokens computed."""
    pairs = pairs_choose(batch, scores_BK)
    return learner.update(
        range(len(pairs)),
        partial(minibatch_gradients, learner, pairs, config),
        step=step,
        iterations=config.iterations,
    )


def main(run: RunDir) -> None:
    config = run.config(OnlineDpoConfig)
    online_run(run, config, partial(update, config=config))


if __name__ == "__main__":
    program_run(main)
