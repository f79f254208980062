"""Group relative policy optimisation: clipped updates of tokens, advantages within a prompt.

    J = E[ Σ_k Σ_t w_kt ( min(ρ_kt A_k, clip(ρ_kt, 1 − ε, 1 + ε') A_k) − β KL_kt ) ]
    A_k = (r_k − mean r) / std r        ρ_kt = π(y_kt) / π_old(y_kt)

Shao et al. 2024 (arXiv:2402.03300), eq. 3 and 4, where ε' = ε and every answer counts alike: w is
1/(K·|y_k|). Liu et al. 2025 ("Dr. GRPO", arXiv:2503.20783) divide by neither the deviation nor the
length. Yu et al. 2025 ("DAPO", arXiv:2503.14476) let every token count alike, clip upwards later,
and draw others in place of prompts whose answers all have one score (`redraw`).

By hand: `python -m alignment.ml.online.grpo RUN_DIR`.

Legend: B prompts, K answers of a prompt, S tokens of a row's answers.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from alignment.ml.configs import GrpoConfig
from alignment.ml.online.batch import Batch, rewards_of
from alignment.ml.online.losses import equal_prompts, group_advantages, token_shares
from alignment.ml.online.training import online_run
from alignment.ml.online.updates import RATIO_FIGURES, Learner, ratio_figures
from alignment.ml.ppo.losses import kl_estimates, policy_losses
from alignment.ml.ppo.networks import autocast, token_logprobs
from alignment.ml.shared_prefix import pack
from modelhub.ml.rundir import RunDir, program_run


def advantages_of(batch: Batch, scores_BK: Tensor, config: GrpoConfig) -> Tensor:
    """What each answer is worth among its prompt's, the KL in it if asked for, (B, K)."""
    return group_advantages(rewards_of(batch, scores_BK, config), config.scale_rewards)


def minibatch_gradients(
    learner: Learner, batch: Batch, advantages_BK: Tensor, config: GrpoConfig, places: Sequence[int]
) -> tuple[dict[str, float], int]:
    """Add the gradient of a minibatch's loss, its tokens counted as asked for, row by row.

    Returns the minibatch's figures, means over its tokens but for the loss, and the tokens
    computed.
    """
    groups = [batch.groups[place] for place in places]
    advantages = list(advantages_BK.flatten())
    lengths = [len(answer) for group in groups for answer in group.answers]
    shares = iter(token_shares(lengths, config.loss, max_tokens=config.max_tokens))
    share_of = [[next(shares) for _ in group.answers] for group in groups]
    has_kl = config.kl_in == "loss" and config.kl_coef > 0
    sums = dict.fromkeys(("loss/policy_avg", *RATIO_FIGURES, *["loss/kl_avg"] * has_kl), 0.0)
    processes = learner.processes
    logprobs_of = partial(token_logprobs, temperature=config.temperature)
    tokens = sum(group.tokens for group in groups)
    rows = pack(groups, processes.budget_tokens(config.budget_tokens, tokens))
    for row, weight in processes.share(rows, cost=lambda row: row.tokens):
        old = batch.row(row, places, batch.logprobs)
        old_S = torch.cat(old)
        lengths_A = torch.tensor([len(one) for one in old], device=old_S.device)
        advantages_A = torch.stack(batch.row(row, places, advantages))
        shares_A = old_S.new_tensor([share for index in row.indices for share in share_of[index]])
        shares_S = shares_A.repeat_interleave(lengths_A)
        with autocast(config.dtype):
            logprobs_S, _ = processes.forward(logprobs_of, learner.actor, row)
        losses_S, held_S = policy_losses(
            logprobs_S,
            old_S,
            advantages_A.repeat_interleave(lengths_A),
            cliprange=config.cliprange,
            cliprange_high=config.cliprange_high,
        )
        found = ratio_figures(logprobs_S - old_S, held_S)
        loss = (shares_S * losses_S).sum()
        total = loss
        if has_kl:
            kl_S = kl_estimates(
                logprobs_S, torch.cat(batch.row(row, places, batch.reference)), config.kl_estimator
            )
            found["loss/kl_avg"] = kl_S
            total = total + config.kl_coef * (shares_S * kl_S).sum()
        (weight * total).backward()
        sums["loss/policy_avg"] += weight * float(loss.detach())
        for name, values_S in found.items():
            sums[name] += weight * float(values_S.detach().sum()) / sum(lengths)
    return processes.sum(sums), tokens


def update(
    learner: Learner, batch: Batch, scores_BK: Tensor, *, step: int, config: GrpoConfig
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
    config = run.config(GrpoConfig)
    online_run(run, config, partial(update, config=config))


if __name__ == "__main__":
    program_run(main)
