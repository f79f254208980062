"""Kahneman-Tversky optimisation: the policy learns from answers that are good or bad by themselves.

No answer needs another to be compared with. With r = log π(y | x) / π_ref(y | x), the implicit
reward of direct preference optimisation, an answer is worth what it lies above a reference point
z0, seen as prospect theory has it: gains and losses both level off (Ethayarajh et al. 2024,
arXiv:2402.01306, eq. 8).

    loss = λ_D (1 − σ(β (r − z0)))    of a desirable answer
           λ_U (1 − σ(β (z0 − r)))    of an undesirable one
    z0   = max(0, mean of log π(y' | x) / π_ref(y' | x))

z0 is the policy's distance from the reference, KL(π ‖ π_ref), estimated as the paper does without a
sample: from the step's own answers, each behind the next prompt of the step, where the two fit into
the model's context. It has no gradient.

Answers come from ratings, by two thresholds, and from rankings (`unpaired`). The answers of a
prompt are computed once, behind it (`shared_prefix`), and so are the mismatched ones. A step always
has both classes, or there would be nothing to tell them apart by. The paper wants
λ_D·n_D / (λ_U·n_U) in 1 to 3/2; where it is not, the weights that would do are said, or with
`balance` taken.

The reference is the policy before its first step. Its log-probabilities, mismatched pairs of every
step included, are computed once, before training, and kept in the checkpoint. Killed and started
again the run goes on to the same losses.

By hand: `python -m alignment.ml.kto RUN_DIR`.

Legend: A answers of a row, K answers of a prompt.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from statistics import fmean
from typing import Any

import torch

from alignment.ml.adapters import base_open, ending_tell
from alignment.ml.configs import KtoConfig
from alignment.ml.kto_loss import (
    Logprobs,
    Seen,
    Sums,
    group_losses,
    groups_see,
    held_out_report,
    loss_start,
    reference_point,
)
from alignment.ml.preference import (
    logprobs_of,
    policy_make,
    reference_logprobs,
    row_logprobs,
    step_figures,
)
from alignment.ml.sft import learning_rate, publish
from alignment.ml.shared_prefix import Group, pack, window_least
from alignment.ml.unpaired import (
    UnpairedGroup,
    classes_of,
    mismatched,
    unpaired_read,
    unpaired_steps,
    weights_balance,
)
from alignment.ml.validation import precision
from modelhub.ml.checkpoint import training_state_load, training_state_save
from modelhub.ml.divergence import PATIENCE_STEPS, above_reason, divergence_stop, rise_reason
from modelhub.ml.optimizers import optimizer_make
from modelhub.ml.parallel import Processes, processes_start
from modelhub.ml.rundir import RunDir, program_run


def step_gradients(
    model: Any,
    groups: Sequence[UnpairedGroup],
    matched: Sequence[Sequence[float]],
    others: Sequence[Sequence[float]],
    config: KtoConfig,
    processes: Processes,
    *,
    context_tokens: int,
) -> tuple[dict[str, float], int]:
    """Add the gradient of the mean loss of the groups' answers to the model's, row by row.

    matched: the reference's Σ log p of each group's answers; others: of `mismatched` groups.
    context_tokens: what the model has for prompt and answer.
    Returns (metrics, tokens computed). How the groups fall into rows changes nothing but rounding.
    """
    own = [group.group for group in groups]
    apart = mismatched(own, context_tokens=context_tokens)
    z0 = reference_point(logprobs_of(model, apart, config, processes), others)
    answers = sum(len(group.desirable_K) for group in groups)
    tokens = sum(group.tokens for group in own)
    rows = pack(own, processes.budget_tokens(config.budget_tokens, tokens))
    sums = Sums()
    for row, weight in processes.share(rows, cost=lambda row: row.tokens):
        with precision(config):
            policy_A = processes.forward(row_logprobs, model, row)
        parts = policy_A.split([len(group.answers) for group in row.groups])
        losses = []
        for index, policy_K in zip(row.indices, parts, strict=True):
            ratios_K = policy_K - policy_K.new_tensor(matched[index])
            losses.append(group_losses(ratios_K, z0, groups[index], config))
            if weight:
                sums.add(ratios_K.detach(), losses[-1].detach(), z0, groups[index], config.beta)
        (weight * torch.cat(losses).sum() / answers).backward()
    processes.gradients_sum(model.parameters())
    found = Sums(**processes.sum(asdict(sums))).described(z0)
    return found, tokens + sum(group.tokens for group in apart)


@dataclass(frozen=True)
class Reference:
    """Σ log p under the policy before its first step, of each split."""

    matched: dict[str, Logprobs]  # of its groups
    others: dict[str, list[Logprobs]]  # of the mismatched groups of every step; a split is one step


@dataclass(frozen=True)
class Trained:
    """What one step saw, as the checkpoint keeps it."""

    loss: float
    accuracy: float
    kl: float
    grad_norm: float  # before it was clipped
    tokens: int
    seconds: float


def reference_make(
    groups: Mapping[str, Sequence[UnpairedGroup]],
    plan: Sequence[Sequence[int]],
    logprobs_make: Callable[[Sequence[Group]], Logprobs],
    *,
    context_tokens: int,
) -> Reference:
    """The reference of every split and step, in one pass over all of them."""
    steps = {
        split: plan if split == "train" else [range(len(own))] for split, own in groups.items()
    }
    asked = {split: [one.group for one in own] for split, own in groups.items()}
    apart = {
        split: [
            mismatched([asked[split][place] for place in places], context_tokens=context_tokens)
            for places in own
        ]
        for split, own in steps.items()
    }
    everything = [group for own in asked.values() for group in own]
    everything += [group for own in apart.values() for step in own for group in step]
    found = iter(logprobs_make(everything))
    return Reference(
        matched={split: [next(found) for _ in own] for split, own in asked.items()},
        others={
            split: [[next(found) for _ in step] for step in own] for split, own in apart.items()
        },
    )


def split_see(
    model: Any,
    split: str,
    groups: Sequence[UnpairedGroup],
    reference: Reference,
    config: KtoConfig,
    processes: Processes,
    *,
    context_tokens: int,
) -> Seen:
    """A split that is not learnt from, as the policy sees it now."""
    own = [one.group for one in groups]
    apart = mismatched(own, context_tokens=context_tokens)
    found = logprobs_of(model, [*own, *apart], config, processes)
    given = reference.matched[split], reference.others[split][0]
    return groups_see((found[: len(own)], found[len(own) :]), given, groups, config)


def train(
    run: RunDir,
    config: KtoConfig,
    model: Any,
    groups: Mapping[str, Sequence[UnpairedGroup]],
    logprobs_make: Callable[[Sequence[Group]], Logprobs],
    processes: Processes,
    *,
    context_tokens: int,
) -> tuple[list[Trained], Reference]:
    """Take every step, from the last checkpoint on. Returns what each saw, and the reference.

    groups: by split; logprobs_make: called without a checkpoint, for log-probabilities under the
    policy as it is. Raises NotFinite before a step whose loss or gradient is NaN or infinite is
    taken, Diverged before one at which they have run away.
    """
    plan = unpaired_steps(
        groups["train"],
        epochs=config.epochs,
        per_step=config.examples_per_step,
        seed=config.seed,
    )
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
        reference = Reference(**values["reference"])
        print(f"going on after step {len(taken)}", flush=True)
    else:
        reference = reference_make(groups, plan, logprobs_make, context_tokens=context_tokens)
        print(f"reference: {sum(map(len, reference.matched.values()))} prompts", flush=True)
    # No answer's loss can be more than its weight: it has risen if it was a tenth of the start.
    floor = loss_start(groups["train"], config) / (config.loss_rise_limit or 1.0)
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
            [reference.matched["train"][place] for place in places],
            reference.others["train"][number],
            config,
            processes,
            context_tokens=context_tokens,
        )
        norm = float(processes.gradients_clip(weights, config.max_grad_norm))
        seconds = time.monotonic() - started
        loss, accuracy, kl = (figures[name] for name in ("loss", "accuracy", "kl"))
        taken.append(Trained(loss, accuracy, kl, norm, tokens, seconds))
        more = {"grad_norm": norm, "lr": lr, "tokens_per_s": tokens / seconds}
        run.metric(number + 1, step_figures(figures | more))
        divergence_stop(
            number + 1,
            rise_reason(
                "the loss",
                [one.loss for one in taken],
                factor=config.loss_rise_limit,
                floor=floor,
            ),
            rise_reason(
                "the gradient's norm",
                [one.grad_norm for one in taken],
                factor=config.grad_norm_rise_limit,
                floor=config.max_grad_norm,
            ),
            above_reason(
                "the distance from the reference (kl)",
                [one.kl for one in taken],
                limit=config.kl_limit,
                patience=PATIENCE_STEPS,
            ),
        )
        optimizer.step()
        optimizer.zero_grad()
        every, own = config.evaluate_every_steps, groups.get("validation")
        if own and every and len(taken) % every == 0:
            described = split_see(
                model,
                "validation",
                own,
                reference,
                config,
                processes,
                context_tokens=context_tokens,
            ).described()
            run.metric(len(taken), step_figures(described, "validation"))
        run.progress(len(taken), len(plan), "steps")
        if len(taken) % config.checkpoint_every_steps == 0 and len(taken) < len(plan):
            values = {
                "taken": [list(astuple(one)) for one in taken],
                "reference": asdict(reference),
            }
            run.checkpoint_publish(
                len(taken),
                lambda folder, values=values: training_state_save(
                    folder, model=model, optimizer=optimizer, values=values
                ),
            )
    return taken, reference


def main(run: RunDir) -> None:
    config = run.config(KtoConfig)
    given, tokenizer, context_tokens = base_open(run, config)
    # A window is as good as the end of the context: neither an answer behind its own prompt nor one
    # behind another's is computed where attention would not reach back to the prompt's start.
    if window_tokens := window_least(given.whole):
        context_tokens = min(context_tokens, window_tokens - config.own_tokens)
    max_tokens = min(config.max_tokens, context_tokens)
    data, notes = unpaired_read(run, config, tokenizer, max_tokens=max_tokens)
    groups = {
        split: own for split in ("train", "validation", "held_out") if (own := data.of_split(split))
    }
    desirable, undesirable = classes_of(groups["train"])
    config, note = weights_balance(desirable, undesirable, config)
    if note is not None:
        notes.append(note)
    for note in notes:
        print(f"note: {note}", flush=True)
    print(f"{desirable} desirable, {undesirable} undesirable answers to train on", flush=True)
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
        lambda asked: reference_logprobs(model, given, asked, config, processes),
        processes,
        context_tokens=context_tokens,
    )
    reports: dict[str, Any] = {}
    for split in ("validation", "held_out"):
        if split not in groups:
            continue
        own = groups[split]
        start = reference.matched[split], reference.others[split][0]
        before = groups_see(start, start, own, config)
        after = split_see(
            model, split, own, reference, config, processes, context_tokens=context_tokens
        )
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
            "prompts": len(groups["train"]),
            "desirable": desirable,
            "undesirable": undesirable,
            "undecided": data.undecided,
            "desirable_weight": config.desirable_weight,
            "undesirable_weight": config.undesirable_weight,
            "notes": notes,
            "steps": len(taken),
            "loss_first": taken[0].loss,
            "loss_last_steps": fmean(one.loss for one in taken[-10:]),
            "kl_last_steps": fmean(one.kl for one in taken[-10:]),
            "tokens_per_s": sum(one.tokens for one in taken) / sum(one.seconds for one in taken),
            **reports,
        },
    )


if __name__ == "__main__":
    program_run(main)
