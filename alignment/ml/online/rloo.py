"""REINFORCE leave-one-out: an answer is as good as it is better than the others to its prompt.

    ∇J = E[ 1/K Σ_k ( R_k − 1/(K−1) Σ_{j≠k} R_j ) ∇ log π(y_k | x) ]        R = r − β KL

Ahmadian et al. 2024 (arXiv:2402.14740), eq. 7: an answer is one action, so its log-probability is
the sum over its tokens, and the KL is taken from its reward as a whole. With more than one update a
step (`minibatches`, `iterations`) the ratio of the whole answer is clipped, as TRL's trainer does.

By hand: `python -m alignment.ml.online.rloo RUN_DIR`.

Legend: B prompts, K answers of a prompt, A answers of a row, S tokens of a row's answers.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from alignment.ml.configs import RlooConfig
from alignment.ml.online.batch import Batch, rewards_of
from alignment.ml.online.losses import (
    advantages_normalize,
    answer_sums,
    equal_prompts,
    leave_one_out,
)
from alignment.ml.online.training import online_run
from alignment.ml.online.updates import RATIO_FIGURES, Learner, ratio_figures
from alignment.ml.ppo.losses import kl_estimates, policy_losses
from alignment.ml.ppo.networks import autocast, token_logprobs
from alignment.ml.shared_prefix import pack
from modelhub.ml.rundir import RunDir, program_run


def advantages_of(batch: Batch, scores_BK: Tensor, config: RlooConfig) -> Tensor:
    """What each answer is worth above the others to its prompt, (B, K), the KL in it if asked."""
    found_BK = leave_one_out(rewards_of(batch, scores_BK, config))
    return advantages_normalize(found_BK) if config.normalize_advantages else found_BK


def minibatch_gradients(
    learner: Learner, batch: Batch, advantages_BK: Tensor, config: RlooConfig, places: Sequence[int]
) -> tuple[dict[str, float], int]:
    """Add the gradient of the mean loss over a minibatch's answers, row by row.

    Returns the minibatch's figures and the tokens computed.
    """
    groups = [batch.groups[place] for place in places]
    answers = sum(len(group.answers) for group in groups)
    advantages = list(advantages_BK.flatten())
    has_kl = config.kl_in == "loss" and config.kl_coef > 0
    sums = dict.fromkeys(("loss/policy_avg", *RATIO_FIGURES, *["loss/kl_avg"] * has_kl), 0.0)
    processes = learner.processes
    logprobs_of = partial(token_logprobs, temperature=config.temperature)
    tokens = sum(group.tokens for group in groups)
    rows = pack(groups, processes.budget_tokens(config.budget_tokens, tokens))
    for row, weight in processes.share(rows, cost=lambda row: row.tokens):
        old = batch.row(row, places, batch.logprobs)
        with autocast(config.dtype):
            logprobs_S, _ = processes.forward(logprobs_of, learner.actor, row)
        own = logprobs_S.split([len(one) for one in old])
        sums_A, old_A = answer_sums(own), answer_sums(old)
        losses_A, held_A = policy_losses(
            sums_A,
            old_A,
            torch.stack(batch.row(row, places, advantages)),
            cliprange=config.cliprange,
        )
        found = {"loss/policy_avg": losses_A, **ratio_figures(sums_A - old_A, held_A)}
        total = losses_A.sum()
        if has_kl:
            kl_S = kl_estimates(
                logprobs_S, torch.cat(batch.row(row, places, batch.reference)), config.kl_estimator
            )
            found["loss/kl_avg"] = kl_S
            total = total + config.kl_coef * kl_S.sum()
        (weight * total / answers).backward()
        for name, values in found.items():
            sums[name] += weight * float(values.detach().sum()) / answers
    return processes.sum(sums), tokens


def update(
    learner: Learner, batch: Batch, scores_BK: Tensor, *, step: int, config: RlooConfig
) -> tuple[dict[str, float], int]:
    """A step's updates. Returns their figures and the tokens computed."""
    advantages_BK = advantages_of(batch, scores_BK, config)
    dropped_B = equal_prompts(scores_BK) & (config.equal_groups == "drop")
    return learner.update(
        [place for place, dropped in enumerate(dropped_B.tolist()) if not dropped],
        partial(minibatch_gradients, learner, batch, advantages_BK, config),
        step=step,
        iterations=config.iterations,
        target_kl=config.target_kl,
    )


def main(run: RunDir) -> None:
    config = run.config(RlooConfig)
    online_run(run, config, partial(update, config=config))


if __name__ == "__main__":
    program_run(main)
