"""Odds ratio preference optimisation: fine-tuning on what was chosen, away from what was not.

One stage and one model: no reward model, no reference (Hong et al. 2024, arXiv:2403.07691, eq. 6).
With p the likelihood of an answer, the geometric mean over its tokens, and odds = p / (1 − p):

    loss = − log p(y_w)  −  λ log σ( log odds(y_w) − log odds(y_l) )

The first term is fine-tuning's, so a base model may be started from; the second is weak where the
chosen answer is already the likelier. Of a ranking the answers of the best tier are written after,
their mean, and the second term is the mean over its pairs; of a pair that is the paper's. The loss
is on the answers' tokens alone, and an answer counts as one however long it is, as in the paper
(TRL's trainer takes the prompt's tokens into the first term, and the mean over all of a batch).

The answers of a prompt are computed once, behind it (`shared_prefix`). An answer that was cut off
has no end of turn, and none is learnt. Killed and started again the run goes on to the same losses.

By hand: `python -m alignment.ml.orpo RUN_DIR`.

Legend: A answers of a row, K answers of a prompt, P pairs of a ranking.
"""

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.intervals import bootstrap_ratio
from alignment.ml.adapters import base_open, ending_tell
from alignment.ml.configs import OrpoConfig
from alignment.ml.data import RankedData, RankedGroup, Ranking, rankings_load, steps_places
from alignment.ml.preference import (
    logprobs_of,
    policy_make,
    ranked_describe,
    ranked_splits,
    row_logprobs,
    step_figures,
    total_weight_of,
    weight_of,
)
from alignment.ml.reward.examples import better_of
from alignment.ml.sft import learning_rate, publish
from alignment.ml.shared_prefix import pack
from alignment.ml.validation import precision
from annotation.records import RANKINGS_NAME
from modelhub.ml.checkpoint import training_state_load, training_state_save
from modelhub.ml.divergence import divergence_stop, rise_reason
from modelhub.ml.optimizers import optimizer_make
from modelhub.ml.parallel import Processes, processes_start
from modelhub.ml.rundir import RunDir, program_run

_LOSS_FLOOR_NATS = 0.1  # per token: below it a tenfold rise of the loss is no divergence
# An answer of probability 1 has infinite odds; no float32 mean lies between this one and 0.
_LIKELIEST = -1e-7

# ── loss ─────────────────────────────────────────────────────────────────────────────────────────


def log_odds(logps_K: Tensor) -> Tensor:
    """log (p / (1 − p)) of each answer, p = exp(logps_K), without losing digits at either end.

    logps_K: mean log-probability of an answer's tokens, nats, below 0. log(1 − eˣ) is taken by
    expm1 near 0 and by log1p far from it (Mächler 2012).
    """
    logps_K = logps_K.clamp(max=_LIKELIEST)
    # Each branch is kept off the other's end, where its gradient is infinite and, times 0, NaN.
    near = (-torch.expm1(logps_K.clamp(min=-math.log(2)))).log()
    far = torch.log1p(-logps_K.clamp(max=-math.log(2)).exp())
    return logps_K - torch.where(logps_K > -math.log(2), near, far)


def odds_losses(better_P: Tensor, worse_P: Tensor) -> Tensor:
    """−log σ of the log odds ratio of each pair, nats, shape (P,).

    better_P, worse_P: mean log-probability of the answers' tokens. Paper: eq. 7.
    """
    return -F.logsigmoid(log_odds(better_P) - log_odds(worse_P))


def means_of(sums_K: Tensor, group: RankedGroup) -> Tensor:
    """Mean log-probability of each answer's tokens, from Σ log p, nats, shape (K,)."""
    return sums_K / sums_K.new_tensor([len(answer) for answer in group.group.answers])


def ranking_losses(logps_K: Tensor, group: RankedGroup, one: Ranking) -> tuple[Tensor, Tensor]:
    """(fine-tuning's loss on the best tier, the mean of its pairs' odds losses): scalars, nats."""
    places = better_of(group, one).nonzero()
    best = list(one.tiers[0])
    pairs_P = logps_K[places.to(logps_K.device)]
    return -logps_K[best].mean(), odds_losses(pairs_P[:, 0], pairs_P[:, 1]).mean()


@dataclass
class Sums:
    """Figures over groups that add up."""

    nll: float = 0.0  # by weight
    odds_loss: float = 0.0
    right: float = 0.0  # pairs whose better answer is the likelier, by token; equal: one half
    pairs: float = 0.0
    gap: float = 0.0  # log odds ratio
    better: float = 0.0  # mean log-probability of the better answer of every pair
    worse: float = 0.0

    def add(self, logps_K: Tensor, nll: float, odds_loss: float, group: RankedGroup) -> None:
        """A group's own, weights aside but for the losses."""
        logps, odds = logps_K.tolist(), log_odds(logps_K).tolist()
        self.nll += nll
        self.odds_loss += odds_loss
        for high, low in group.pairs:
            gap = odds[high] - odds[low]
            self.right += (gap > 0) + 0.5 * (gap == 0)
            self.pairs += 1
            self.gap += gap
            self.better += logps[high]
            self.worse += logps[low]

    def loss(self, config: OrpoConfig) -> float:
        return self.nll + config.odds_weight * self.odds_loss

    def described(self, total_weight: float, config: OrpoConfig) -> dict[str, float]:
        """As metrics: the losses by weight, the others by pair."""
        return {
            "loss": self.loss(config) / total_weight,
            "nll": self.nll / total_weight,
            "odds_loss": self.odds_loss / total_weight,
            "accuracy": self.right / self.pairs,
            "log_odds": self.gap / self.pairs,
            "logp_better": self.better / self.pairs,
            "logp_worse": self.worse / self.pairs,
        }


def group_losses(logps_K: Tensor, group: RankedGroup, config: OrpoConfig) -> tuple[Tensor, Tensor]:
    """The sums over the group's rankings, by weight, of both losses: scalars."""
    found = [
        (weight_of(one, config), *ranking_losses(logps_K, group, one)) for one in group.rankings
    ]
    nll = torch.stack([weight * nll for weight, nll, _ in found]).sum()
    return nll, torch.stack([weight * odds for weight, _, odds in found]).sum()


def step_gradients(
    model: Any, groups: Sequence[RankedGroup], config: OrpoConfig, processes: Processes
) -> tuple[dict[str, float], int]:
    """Add the gradient of the mean loss of the groups' rankings to the model's, row by row.

    Returns (metrics, tokens computed). How the groups fall into rows changes nothing but rounding.
    """
    total = total_weight_of(groups, config)
    tokens = sum(group.group.tokens for group in groups)
    rows = pack(
        [group.group for group in groups], processes.budget_tokens(config.budget_tokens, tokens)
    )
    sums = Sums()
    for row, weight in processes.share(rows, cost=lambda row: row.tokens):
        with precision(config):
            policy_A = processes.forward(row_logprobs, model, row)
        parts = policy_A.split([len(group.answers) for group in row.groups])
        losses = []
        for index, sums_K in zip(row.indices, parts, strict=True):
            logps_K = means_of(sums_K, groups[index])
            nll, odds_loss = group_losses(logps_K, groups[index], config)
            losses.append(nll + config.odds_weight * odds_loss)
            if weight:
                sums.add(
                    logps_K.detach(), float(nll.detach()), float(odds_loss.detach()), groups[index]
                )
        (weight * torch.stack(losses).sum() / total).backward()
    processes.gradients_sum(model.parameters())
    return Sums(**processes.sum(asdict(sums))).described(total, config), tokens


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────


def groups_see(
    model: Any, groups: Sequence[RankedGroup], config: OrpoConfig, processes: Processes
) -> list[Sums]:
    """Each group's figures under the policy as it is."""
    found = []
    logprobs = logprobs_of(model, [one.group for one in groups], config, processes)
    for own, group in zip(logprobs, groups, strict=True):
        logps_K = means_of(torch.tensor(own), group)
        nll, odds_loss = group_losses(logps_K, group, config)
        sums = Sums()
        sums.add(logps_K, float(nll), float(odds_loss), group)
        found.append(sums)
    return found


def seen_together(
    seen: Sequence[Sums], groups: Sequence[RankedGroup], config: OrpoConfig
) -> dict[str, float]:
    """The metrics of all groups together."""
    fields = asdict(Sums())
    summed = Sums(**{name: sum(getattr(one, name) for one in seen) for name in fields})
    return summed.described(total_weight_of(groups, config), config)


def held_out_report(
    before: Sequence[Sums],
    after: Sequence[Sums],
    groups: Sequence[RankedGroup],
    config: OrpoConfig,
) -> dict[str, Any]:
    """A split before and after training; intervals are 95 % bootstrap ones over prompts.

    `difference`: the mean loss after less before; `accuracy`: pairs whose better answer is the
    likelier; `accuracy_difference` and `log_odds_difference`: these after less before.
    """
    parts: dict[str, dict[str, list[float]]] = {
        name: defaultdict(lambda: [0.0, 0.0])
        for name in ("difference", "accuracy", "accuracy_difference", "log_odds_difference")
    }
    for old, new, group in zip(before, after, groups, strict=True):
        for name, top, bottom in (
            (
                "difference",
                new.loss(config) - old.loss(config),
                total_weight_of([group], config),
            ),
            ("accuracy", new.right, new.pairs),
            ("accuracy_difference", new.right - old.right, new.pairs),
            ("log_odds_difference", new.gap - old.gap, new.pairs),
        ):
            parts[name][group.prompt_id][0] += top
            parts[name][group.prompt_id][1] += bottom
    found: dict[str, Any] = {
        "prompts": len(parts["difference"]),
        "pairs": int(sum(one.pairs for one in after)),
        **{f"{k}_before": v for k, v in seen_together(before, groups, config).items()},
        **{f"{k}_after": v for k, v in seen_together(after, groups, config).items()},
    }
    if found["prompts"] > 1:  # one prompt has no spread
        for name, by_prompt in parts.items():
            items = [(top, bottom) for top, bottom in by_prompt.values()]
            found[name] = asdict(
                bootstrap_ratio(items, samples=config.bootstrap_samples, seed=config.seed)
            )
    return found


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Trained:
    """What one step saw, as the checkpoint keeps it."""

    loss: float
    accuracy: float
    grad_norm: float  # before it was clipped
    tokens: int
    seconds: float


def groups_written(data: RankedData) -> tuple[RankedData, int]:
    """Without groups that have an answer of no token, which has no odds, and how many they are."""
    kept = [one for one in data.groups if all(one.group.answers)]
    return replace(data, groups=kept), len(data.groups) - len(kept)


def steps_plan(groups: Sequence[RankedGroup], config: OrpoConfig) -> list[list[int]]:
    """The groups of every step, as places in `groups`: all epochs, each in an order of its own."""
    epochs = steps_places(
        [len(group.rankings) for group in groups],
        epochs=config.epochs,
        per_step=config.rankings_per_step,
        seed=config.seed,
    )
    return [places for steps in epochs for places in steps]


def train(
    run: RunDir,
    config: OrpoConfig,
    model: Any,
    groups: Mapping[str, Sequence[RankedGroup]],
    processes: Processes,
) -> tuple[list[Trained], dict[str, list[Sums]]]:
    """Take every step, from the last checkpoint on.

    groups: by split. Returns what each step saw, and how the splits that are not learnt from were
    seen before the first. Raises NotFinite before a step whose loss or gradient is NaN or infinite
    is taken, Diverged before one at which they have run away.
    """
    plan = steps_plan(groups["train"], config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = optimizer_make(
        [{"params": weights, "weight_decay": config.weight_decay}],
        kind=config.optimizer,
        lr=config.lr,
    )
    taken: list[Trained] = []
    if (latest := run.checkpoint_latest()) is not None:
        values = training_state_load(latest[1], model=model, optimizer=optimizer)
        taken = [Trained(*one) for one in values["taken"]]
        before = {split: [Sums(*one) for one in own] for split, own in values["before"].items()}
        print(f"going on after step {len(taken)}", flush=True)
    else:
        before = {
            split: groups_see(model, own, config, processes)
            for split, own in groups.items()
            if split != "train"
        }
    run.progress(len(taken), len(plan), "steps")
    for number in range(len(taken), len(plan)):
        started = time.monotonic()
        lr = learning_rate(number, steps=len(plan), config=config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        figures, tokens = step_gradients(
            model, [groups["train"][place] for place in plan[number]], config, processes
        )
        norm = float(processes.gradients_clip(weights, config.max_grad_norm))
        seconds = time.monotonic() - started
        taken.append(Trained(figures["loss"], figures["accuracy"], norm, tokens, seconds))
        more = {"grad_norm": norm, "lr": lr, "tokens_per_s": tokens / seconds}
        run.metric(number + 1, step_figures(figures | more))
        divergence_stop(
            number + 1,
            rise_reason(
                "the loss",
                [one.loss for one in taken],
                factor=config.loss_rise_limit,
                floor=_LOSS_FLOOR_NATS,
            ),
            rise_reason(
                "the gradient's norm",
                [one.grad_norm for one in taken],
                factor=config.grad_norm_rise_limit,
                floor=config.max_grad_norm,
            ),
        )
        optimizer.step()
        optimizer.zero_grad()
        every, own = config.evaluate_every_steps, groups.get("validation")
        if own and every and len(taken) % every == 0:
            seen = groups_see(model, own, config, processes)
            described = seen_together(seen, own, config)
            run.metric(len(taken), step_figures(described, "validation"))
        run.progress(len(taken), len(plan), "steps")
        if len(taken) % config.checkpoint_every_steps == 0 and len(taken) < len(plan):
            values = {
                "taken": [list(astuple(one)) for one in taken],
                "before": {
                    split: [list(astuple(one)) for one in own] for split, own in before.items()
                },
            }
            run.checkpoint_publish(
                len(taken),
                lambda folder, values=values: training_state_save(
                    folder, model=model, optimizer=optimizer, values=values
                ),
            )
    return taken, before


def main(run: RunDir) -> None:
    config = run.config(OrpoConfig)
    given, tokenizer, context_tokens = base_open(run, config)
    max_tokens = min(config.max_tokens, context_tokens)
    data, unwritten = groups_written(
        rankings_load(run.input("rankings") / RANKINGS_NAME, tokenizer, max_tokens=max_tokens)
    )
    groups, notes = ranked_splits(data, config, max_tokens=max_tokens, degrees=False)
    if unwritten:
        notes.append(f"{unwritten} groups left out: an answer of no token")
    for note in notes:
        print(f"note: {note}", flush=True)
    print(f"{data.rankings} rankings, {len(groups['train'])} groups to train on", flush=True)
    processes = processes_start()
    torch.manual_seed(config.seed)
    model = policy_make(given, config)
    ending_tell(model, tokenizer)
    processes.prepare(model)
    model.to(processes.device)
    taken, before = train(run, config, model, groups, processes)
    reports: dict[str, Any] = {
        split: held_out_report(
            before[split],
            groups_see(model, groups[split], config, processes),
            groups[split],
            config,
        )
        for split in ("validation", "held_out")
        if split in groups
    }
    model = processes.gather(model, lambda: policy_make(given, config))
    if model is None:
        return  # the first rank publishes
    facts = publish(run, config, model, given, tokenizer)
    output = config.publish if config.publish == "adapter" else "model"
    run.succeed(
        outputs={output: output},
        result={
            **facts,
            **ranked_describe(data, groups["train"], notes),
            "steps": len(taken),
            "loss_first": taken[0].loss,
            "loss_last_steps": fmean(one.loss for one in taken[-10:]),
            "tokens_per_s": sum(one.tokens for one in taken) / sum(one.seconds for one in taken),
            **reports,
        },
    )


if __name__ == "__main__":
    program_run(main)
