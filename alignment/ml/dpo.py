"""Direct preference optimisation: the policy learns from rankings, with no reward model between.

A policy that is optimal for a reward under a KL penalty says what the reward was, up to a constant
of the prompt: r(x, y) = β log π(y | x) / π_ref(y | x). So the reward model's loss can be put on the
policy itself (Rafailov et al. 2023, arXiv:2305.18290, eq. 7). With Δ the difference of the log
ratios of the better and the worse answer:

    sigmoid       −log σ(βΔ − m)                                          Rafailov et al.
    conservative  −(1 − ε) log σ(βΔ) − ε log σ(−βΔ)                       Mitchell 2023
    robust        (−(1 − ε) log σ(βΔ) + ε log σ(−βΔ)) / (1 − 2ε)          arXiv:2403.00409, eq. 8
    hinge         max(0, 1 − βΔ + m)                                      arXiv:2305.10425
    ipo           (Δ' − 1 / (2β))², Δ' of the log ratios per token        arXiv:2310.12036, eq. 17

m: 0, or by degree of preference (an offset: arXiv:2402.10571). IPO's log ratios are divided by
their answers' tokens, as its authors told TRL they did. A ranking of more than two answers is one
example, the mean over its pairs, as for reward models; its answers are computed once, behind one
prompt (`shared_prefix`). An answer that was cut off has no end of turn, and none is learnt.

The reference is the policy before its first step. Its log-probabilities are computed once, before
training, and kept in the checkpoint. Killed and started again the run goes on to the same losses.

By hand: `python -m alignment.ml.dpo RUN_DIR`.

Legend: A answers of a row, K answers of a prompt, P pairs of a ranking.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.intervals import bootstrap_ratio
from alignment.ml.adapters import base_open, ending_tell
from alignment.ml.configs import DpoConfig
from alignment.ml.configs.reward import DEGREE_MARGINS
from alignment.ml.data import RankedGroup, Ranking, rankings_load, steps_places
from alignment.ml.preference import (
    logprobs_of,
    policy_make,
    ranked_describe,
    ranked_splits,
    reference_logprobs,
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

Reference = dict[str, list[list[float]]]  # of each split's groups, Σ log p of every answer

# ── loss ─────────────────────────────────────────────────────────────────────────────────────────


def dpo_losses(
    gaps_P: Tensor, kind: str, *, beta: float, label_smoothing: float = 0.0, margin: float = 0.0
) -> Tensor:
    """The loss of each pair, as the head of the module has them.

    gaps_P: Δ, log π/π_ref of the better answer less that of the worse, nats; for "ipo" each divided
    by its answer's tokens. kind: one of `DPO_LOSSES`. Returns shape (P,). Raises ValueError for
    another kind.
    """
    scaled_P = beta * gaps_P
    if kind == "sigmoid":
        return -F.logsigmoid(scaled_P - margin)
    if kind == "hinge":
        return F.relu(1 - scaled_P + margin)
    if kind == "ipo":
        return (gaps_P - 1 / (2 * beta)).square()
    right_P = -(1 - label_smoothing) * F.logsigmoid(scaled_P)
    wrong_P = -label_smoothing * F.logsigmoid(-scaled_P)
    if kind == "conservative":
        return right_P + wrong_P
    if kind == "robust":
        return (right_P - wrong_P) / (1 - 2 * label_smoothing)
    raise ValueError(f"no such loss: {kind!r}")


def ratios_of(policy_K: Tensor, reference_K: Sequence[float]) -> Tensor:
    """log π/π_ref of each answer, nats, shape (K,)."""
    return policy_K - policy_K.new_tensor(reference_K)


def group_loss(ratios_K: Tensor, group: RankedGroup, config: DpoConfig) -> Tensor:
    """The sum over the group's rankings of the mean loss of their pairs, by weight: a scalar."""
    if config.loss == "ipo":
        tokens_K = ratios_K.new_tensor([max(1, len(answer)) for answer in group.group.answers])
        ratios_K = ratios_K / tokens_K
    gaps_KK = ratios_K[:, None] - ratios_K[None, :]
    losses = [
        weight_of(one, config)
        * dpo_losses(
            gaps_KK[better_of(group, one).to(ratios_K.device)],
            config.loss,
            beta=config.beta,
            label_smoothing=config.label_smoothing,
            margin=margin_of(one, config),
        ).mean()
        for one in group.rankings
    ]
    return torch.stack(losses).sum()


def margin_of(ranking: Ranking, config: DpoConfig) -> float:
    """How far apart a ranking's implicit rewards should be at least, nats."""
    if not ranking.degree:
        return 0.0
    return DEGREE_MARGINS[config.degree_margin][ranking.degree - 1]


def loss_start(config: DpoConfig) -> float:
    """The loss of the reference itself, nats: what training starts from, margins aside."""
    smoothing = config.label_smoothing
    return float(
        dpo_losses(torch.zeros(1), config.loss, beta=config.beta, label_smoothing=smoothing)
    )


@dataclass
class Sums:
    """Figures over groups that add up."""

    loss: float = 0.0
    right: float = 0.0  # pairs whose better answer has the higher implicit reward; equal: one half
    pairs: float = 0.0
    gap: float = 0.0  # βΔ
    better: float = 0.0  # β log π/π_ref of the better answer of every pair
    worse: float = 0.0

    def add(self, ratios_K: Tensor, loss: float, group: RankedGroup, config: DpoConfig) -> None:
        """A group's own, weights aside but for the loss."""
        rewards = (config.beta * ratios_K).tolist()
        self.loss += loss
        for high, low in group.pairs:
            gap = rewards[high] - rewards[low]
            self.right += (gap > 0) + 0.5 * (gap == 0)
            self.pairs += 1
            self.gap += gap
            self.better += rewards[high]
            self.worse += rewards[low]

    def described(self, total_weight: float) -> dict[str, float]:
        """As metrics: the loss by weight, the others by pair."""
        return {
            "loss": self.loss / total_weight,
            "accuracy": self.right / self.pairs,
            "margin": self.gap / self.pairs,
            "reward_better": self.better / self.pairs,
            "reward_worse": self.worse / self.pairs,
        }


def step_gradients(
    model: Any,
    groups: Sequence[RankedGroup],
    reference: Sequence[Sequence[float]],
    config: DpoConfig,
    processes: Processes,
) -> tuple[dict[str, float], int]:
    """Add the gradient of the mean loss of the groups' rankings to the model's, row by row.

    reference: of each group, Σ log p of its answers. Returns (metrics, tokens computed). How the
    groups fall into rows changes nothing but rounding.
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
        for index, policy_K in zip(row.indices, parts, strict=True):
            ratios_K = ratios_of(policy_K, reference[index])
            losses.append(group_loss(ratios_K, groups[index], config))
            if weight:
                sums.add(ratios_K.detach(), float(losses[-1].detach()), groups[index], config)
        (weight * torch.stack(losses).sum() / total).backward()
    processes.gradients_sum(model.parameters())
    return Sums(**processes.sum(asdict(sums))).described(total), tokens


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────


def groups_see(
    logprobs: Sequence[Sequence[float]],
    reference: Sequence[Sequence[float]],
    groups: Sequence[RankedGroup],
    config: DpoConfig,
) -> list[Sums]:
    """Each group's figures, from its answers' log-probabilities under policy and reference."""
    found = []
    for policy, given, group in zip(logprobs, reference, groups, strict=True):
        ratios_K = ratios_of(torch.tensor(policy), given)
        sums = Sums()
        sums.add(ratios_K, float(group_loss(ratios_K, group, config)), group, config)
        found.append(sums)
    return found


def seen_together(
    seen: Sequence[Sums], groups: Sequence[RankedGroup], config: DpoConfig
) -> dict[str, float]:
    """The metrics of all groups together."""
    fields = asdict(Sums())
    summed = Sums(**{name: sum(getattr(one, name) for one in seen) for name in fields})
    return summed.described(total_weight_of(groups, config))


def held_out_report(
    before: Sequence[Sums],
    after: Sequence[Sums],
    groups: Sequence[RankedGroup],
    config: DpoConfig,
) -> dict[str, Any]:
    """A split before and after training; intervals are 95 % bootstrap ones over prompts.

    `difference`: the mean loss after less before. `accuracy`: pairs whose better answer has the
    higher implicit reward; the reference itself is at one half.
    """
    losses: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    rights: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for old, new, group in zip(before, after, groups, strict=True):
        losses[group.prompt_id][0] += new.loss - old.loss
        losses[group.prompt_id][1] += total_weight_of([group], config)
        rights[group.prompt_id][0] += new.right
        rights[group.prompt_id][1] += new.pairs
    found: dict[str, Any] = {
        "prompts": len(losses),
        "pairs": int(sum(one.pairs for one in after)),
        "loss_before": seen_together(before, groups, config)["loss"],
        **{f"{k}_after": v for k, v in seen_together(after, groups, config).items()},
    }
    if len(losses) > 1:  # one prompt has no spread
        for name, parts in (("difference", losses), ("accuracy", rights)):
            items = [(top, bottom) for top, bottom in parts.values()]
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


def steps_plan(groups: Sequence[RankedGroup], config: DpoConfig) -> list[list[int]]:
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
    config: DpoConfig,
    model: Any,
    groups: Mapping[str, Sequence[RankedGroup]],
    reference_make: Any,
    processes: Processes,
) -> tuple[list[Trained], Reference]:
    """Take every step, from the last checkpoint on. Returns what each saw, and the reference.

    groups: by split; reference_make: called without a checkpoint, for the split's log-probabilities
    under the policy as it is. Raises NotFinite before a step whose loss or gradient is NaN or
    infinite is taken, Diverged before one at which they have run away.
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
        reference: Reference = values["reference"]
        print(f"going on after step {len(taken)}", flush=True)
    else:
        reference = {split: reference_make(own) for split, own in groups.items()}
        print(f"reference: {sum(map(len, reference.values()))} prompts", flush=True)
    run.progress(len(taken), len(plan), "steps")
    for number in range(len(taken), len(plan)):
        started = time.monotonic()
        lr = learning_rate(number, steps=len(plan), config=config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        places = plan[number]
        figures, tokens = step_gradients(
            model,
            [groups["train"][place] for place in places],
            [reference["train"][place] for place in places],
            config,
            processes,
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
                floor=loss_start(config),
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
            logprobs = logprobs_of(model, [one.group for one in own], config, processes)
            seen = groups_see(logprobs, reference["validation"], own, config)
            described = seen_together(seen, own, config)
            run.metric(len(taken), step_figures(described, "validation"))
        run.progress(len(taken), len(plan), "steps")
        if len(taken) % config.checkpoint_every_steps == 0 and len(taken) < len(plan):
            values = {"taken": [list(astuple(one)) for one in taken], "reference": reference}
            run.checkpoint_publish(
                len(taken),
                lambda folder, values=values: training_state_save(
                    folder, model=model, optimizer=optimizer, values=values
                ),
            )
    return taken, reference


def main(run: RunDir) -> None:
    config = run.config(DpoConfig)
    given, tokenizer, context_tokens = base_open(run, config)
    max_tokens = min(config.max_tokens, context_tokens)
    data = rankings_load(run.input("rankings") / RANKINGS_NAME, tokenizer, max_tokens=max_tokens)
    groups, notes = ranked_splits(
        data, config, max_tokens=max_tokens, degrees=config.degree_margin != "none"
    )
    for note in notes:
        print(f"note: {note}", flush=True)
    print(f"{data.rankings} rankings, {len(groups['train'])} groups to train on", flush=True)
    processes = processes_start()
    torch.manual_seed(config.seed)
    model = policy_make(given, config)
    ending_tell(model, tokenizer)
    processes.prepare(model)
    model.to(processes.device)
    taken, reference = train(
        run,
        config,
        model,
        groups,
        lambda own: reference_logprobs(model, given, [one.group for one in own], config, processes),
        processes,
    )
    reports: dict[str, Any] = {}
    for split in ("validation", "held_out"):
        if split not in groups:
            continue
        own = groups[split]
        before = groups_see(reference[split], reference[split], own, config)
        logprobs = logprobs_of(model, [one.group for one in own], config, processes)
        after = groups_see(logprobs, reference[split], own, config)
        reports[split] = held_out_report(before, after, own, config)
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
