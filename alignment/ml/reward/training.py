"""The reward program: loss, loop and `main`. What it learns is at the head of the package.

Departures from InstructGPT: the head starts from 0, so training starts from equal scores; the
scores are shifted to mean 0 on demonstrations only where the run is given some.

Killed and started again it goes on from its last checkpoint to the same losses, bit for bit on the
CPU: the order of the data depends on the seed and the step alone, the checkpoint holds the rest.
On several processes (`modelhub.ml.parallel`) a step's rows are shared out, with the losses of one.

Legend: K answers of a prompt, M heads of the model.
"""

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from alignment.ml.adapters import (
    adapter_machine_check,
    adapter_publish,
    base_plain_check,
    trained_merge,
)
from alignment.ml.configs import RewardConfig
from alignment.ml.conversations import conversations_read
from alignment.ml.data import RankedData, RankedGroup, Ranking, rankings_load
from alignment.ml.ensemble import members_combine
from alignment.ml.losses import (
    centering_loss,
    pair_accuracy,
    preference_shares,
    ranking_loss,
    safety_loss,
    soft_ranking_loss,
)
from alignment.ml.reward.baselines import BagOfWords
from alignment.ml.reward.examples import (
    better_of,
    examples_choose,
    margin_of,
    steps_plan,
    template_check,
)
from alignment.ml.reward.model import (
    bootstrap_weights,
    demonstrations_lay,
    padding_set,
    parameter_groups,
    reward_model_make,
    reward_tokenizer_make,
    zero_set,
)
from alignment.ml.reward.report import (
    members_report,
    ranking_report,
    ranking_tables,
    safety_report,
)
from alignment.ml.rounding import weights_check, weights_round
from alignment.ml.shared_prefix import Group, member_scores, pack
from annotation.records import RANKINGS_NAME
from modelhub.ml.adapter import ModelInput, model_context, model_input
from modelhub.ml.checkpoint import (
    model_save,
    tokenizer_load,
    training_state_load,
    training_state_save,
)
from modelhub.ml.configs import RefusedError
from modelhub.ml.divergence import divergence_stop, rise_reason
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.optimizers import optimizer_check, optimizer_make
from modelhub.ml.parallel import Processes, processes_start
from modelhub.ml.rundir import RunDir

_TRIED_AT_LEAST = math.log(2)  # nats: the loss of equal scores, below which nothing has gone wrong

# ── loss ─────────────────────────────────────────────────────────────────────────────────────────


def group_weight(group: RankedGroup, config: RewardConfig) -> float:
    """How much the group counts in its step: as many as its rankings, or by their weights."""
    if config.soft_labels:
        judged = [*group.rankings, *group.tied]
        return fmean(_weight(one, config) for one in judged)
    return sum(_weight(one, config) for one in group.rankings)


def group_losses(scores_KM: Tensor, group: RankedGroup, config: RewardConfig) -> Tensor:
    """The sum over the group's rankings of their losses, the mean of the heads': a scalar.

    With soft labels the group's rankings are one. With several heads a prompt counts double for
    some and nothing for the others.
    """
    heads = bootstrap_weights(group.prompt_id, config)
    losses = [
        weight * _head_losses(scores_KM[:, head], group, config)
        for head, weight in enumerate(heads)
        if weight
    ]
    return torch.stack(losses).sum() / len(heads) if losses else 0.0 * scores_KM.sum()


def _head_losses(scores_K: Tensor, group: RankedGroup, config: RewardConfig) -> Tensor:
    judged = [*group.rankings, *group.tied]
    if config.soft_labels:
        share_KK = preference_shares(
            [(one.tiers, _weight(one, config)) for one in judged], len(scores_K)
        )
        margin = fmean(margin_of(one, config) for one in group.rankings)
        own = soft_ranking_loss(scores_K, share_KK, margin, label_smoothing=config.label_smoothing)
        total = group_weight(group, config) * own
    else:
        losses = [
            _weight(one, config)
            * ranking_loss(
                scores_K,
                better_of(group, one),
                margin_of(one, config),
                label_smoothing=config.label_smoothing,
            )
            for one in group.rankings
        ]
        total = torch.stack(losses).sum()
    if config.center_weight:
        weight = group_weight(group, config) * config.center_weight
        total = total + weight * centering_loss(scores_K)
    if config.safety_weight:
        for one in judged:
            if one.unsafe is not None:
                unsafe_K = torch.zeros(len(scores_K), dtype=torch.bool, device=scores_K.device)
                unsafe_K[list(one.unsafe)] = True
                weight = _weight(one, config) * config.safety_weight
                total = total + weight * safety_loss(scores_K, unsafe_K)
    return total


def _weight(ranking: Ranking, config: RewardConfig) -> float:
    return ranking.weight if config.annotator_weights else 1.0


def step_gradients(
    model: Any, groups: Sequence[RankedGroup], config: RewardConfig, processes: Processes
) -> tuple[dict[str, float], int]:
    """Add the gradient of the mean ranking loss of `groups` to the model's, row by row.

    How the groups fall into rows changes nothing but rounding. Returns the step's figures (loss,
    accuracy, reward_mean, margin; of an ensemble spread, the standard deviation of its heads) and
    the tokens computed.
    """
    total = sum(group_weight(group, config) for group in groups)
    tokens = sum(group.group.tokens for group in groups)
    loss = right = gaps = pairs = score_sum = spread_sum = answers = 0.0
    budget_tokens = processes.budget_tokens(config.budget_tokens, tokens)
    rows = pack([group.group for group in groups], budget_tokens)
    for row, weight in processes.share(rows, cost=lambda row: row.tokens):
        with _autocast(model, config.dtype):
            row_scores = processes.forward(member_scores, model, row)
        own = [groups[index] for index in row.indices]
        row_loss = sum(
            group_losses(scores_KM, group, config)
            for scores_KM, group in zip(row_scores, own, strict=True)
        )
        (weight * row_loss / total).backward()
        loss += weight * float(row_loss.detach())
        for scores_KM, group in zip(row_scores, own, strict=True):
            values = _combined(scores_KM.detach(), config)
            score_sum += weight * float(values.sum())
            spread_sum += weight * float(scores_KM.detach().std(1, unbiased=False).sum())
            answers += weight * len(values)
            for ranking in group.rankings:
                mask_KK = better_of(group, ranking)
                own_right, own_pairs = pair_accuracy(values, mask_KK)
                right += weight * own_right
                pairs += weight * own_pairs
                gap = (values[:, None] - values[None, :]).cpu()[mask_KK].sum()
                gaps += weight * float(gap)
    processes.gradients_sum(model.parameters())
    sums = processes.sum(
        {"loss": loss, "right": right, "gaps": gaps, "pairs": pairs}
        | {"scores": score_sum, "spreads": spread_sum, "answers": answers}
    )
    figures = {
        "loss": sums["loss"] / total,
        "accuracy": sums["right"] / sums["pairs"],
        "reward_mean": sums["scores"] / sums["answers"],
        "margin": sums["gaps"] / sums["pairs"],
    }
    if config.heads > 1:
        figures["spread"] = sums["spreads"] / sums["answers"]
    return figures, tokens


def _combined(scores_KM: Tensor, config: RewardConfig) -> Tensor:
    return members_combine(scores_KM, config.combine, uncertainty_weight=config.uncertainty_weight)


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def member_scores_of(
    model: Any,
    groups: Sequence[Group],
    config: RewardConfig,
    processes: Processes | None = None,
) -> list[Tensor]:
    """The scores of each head for each group, float32 on the CPU, shape (K, M).

    With `processes` every one of them calls this and computes all, as a sharded model asks.
    """
    found: list[Tensor] = [torch.empty(0)] * len(groups)
    for row in pack(groups, config.budget_tokens):
        with _autocast(model, config.dtype):
            if processes is None:
                row_scores = member_scores(model, row)
            else:
                row_scores = processes.forward(member_scores, model, row)
        for index, scores_KM in zip(row.indices, row_scores, strict=True):
            found[index] = scores_KM.cpu()
    return found


def scores_of(
    model: Any,
    groups: Sequence[RankedGroup],
    config: RewardConfig,
    processes: Processes | None = None,
) -> list[Tensor]:
    """The model's scores of each group, float32 on the CPU, shape (K,)."""
    found = member_scores_of(model, [group.group for group in groups], config, processes)
    return [_combined(scores_KM, config) for scores_KM in found]


def learning_rate_share(step: int, *, steps: int, config: RewardConfig) -> float:
    """The share of the peak at step 0 … steps − 1: linear warm-up, then a cosine to its end."""
    warmup = math.ceil(config.warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - 1 - warmup)
    cosine = (1 + math.cos(math.pi * done)) / 2
    return config.lr_final_share + (1 - config.lr_final_share) * cosine


def _autocast(model: Any, dtype: str) -> AbstractContextManager[Any]:
    return torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == "bfloat16")


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def train(
    run: RunDir,
    model: Any,
    groups: Sequence[RankedGroup],
    data: RankedData,
    config: RewardConfig,
    processes: Processes,
) -> dict[str, Any]:
    """Train to the end, from the newest checkpoint if there is one.

    Returns facts about the training: every step's loss and gradient norm, steps, tokens, seconds.
    """
    plan = steps_plan(groups, config)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer_make(parameter_groups(model, config), kind=config.optimizer, lr=config.lr)
    done: dict[str, Any] = {"step": 0, "losses": [], "grad_norms": [], "tokens": 0, "seconds": 0.0}
    if (latest := run.checkpoint_latest()) is not None:
        done = training_state_load(latest[1], model=model, optimizer=optimizer)
        print(f"resuming behind step {done['step']} of {len(plan)}", flush=True)
    model.train()
    for step in range(done["step"], len(plan)):
        started = time.perf_counter()
        share = learning_rate_share(step, steps=len(plan), config=config)
        for group in optimizer.param_groups:
            group["lr"] = share * group["peak"]
        optimizer.zero_grad(set_to_none=True)
        own = [groups[i] for i in plan[step]]
        figures, tokens = step_gradients(model, own, config, processes)
        grad_norm = processes.gradients_clip(parameters, config.max_grad_norm)
        seconds = time.perf_counter() - started
        figures |= {
            "lr": share * config.lr,
            "grad_norm": float(grad_norm),
            "tokens_per_s": tokens / seconds,
        }
        # NaN ends the run here, with the last good checkpoint behind it and no weight touched.
        run.metric(step + 1, figures)
        done = {
            "step": step + 1,
            "losses": [*done["losses"], figures["loss"]],
            "grad_norms": [*done["grad_norms"], figures["grad_norm"]],
            "tokens": done["tokens"] + tokens,
            "seconds": done["seconds"] + seconds,
        }
        _divergence_check(done, config)
        optimizer.step()
        if config.evaluate_every_steps and (step + 1) % config.evaluate_every_steps == 0:
            _validate(run, step + 1, model, data, config, processes)
        if (step + 1) % config.checkpoint_every_steps == 0 or step + 1 == len(plan):
            _checkpoint(run, model, optimizer, done)
        run.progress(step + 1, len(plan), "steps")
        print(f"step {step + 1}/{len(plan)}  {_line(figures)}", flush=True)
    return done


def _divergence_check(done: dict[str, Any], config: RewardConfig) -> None:
    divergence_stop(
        done["step"],
        rise_reason("loss", done["losses"], factor=config.loss_rise_limit, floor=_TRIED_AT_LEAST),
        rise_reason(
            "grad_norm",
            done["grad_norms"],
            factor=config.grad_norm_rise_limit,
            floor=config.max_grad_norm,
        ),
    )


def _checkpoint(run: RunDir, model: Any, optimizer: Any, done: dict[str, Any]) -> None:
    def write(folder: Path) -> None:
        training_state_save(folder, model=model, optimizer=optimizer, values=done)

    run.checkpoint_publish(done["step"], write)


def _validate(
    run: RunDir,
    step: int,
    model: Any,
    data: RankedData,
    config: RewardConfig,
    processes: Processes,
) -> None:
    groups = data.of_split("validation")
    model.eval()
    report = ranking_report(scores_of(model, groups, config, processes), groups, config)
    model.train()
    if report is not None:
        run.metric(
            step,
            {f"validation_{name}": report[name] for name in ("loss", "accuracy", "score_mean")},
        )


def _line(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


def reports_make(model: Any, data: RankedData, config: RewardConfig) -> dict[str, Any]:
    """All that is said of the model's judgement, as result.json has it.

    "held_out_all" is there only where earlier rounds have rankings to add; "held_out_tables" take
    the held-out pairs apart; "safety" and "ensemble" only where there is something to say.
    """
    held_out = data.of_split("held_out", config.held_out_batches)
    everything = data.of_split("held_out")
    splits = {"validation": data.of_split("validation"), "held_out": held_out}
    if sum(len(one.rankings) for one in everything) > sum(len(one.rankings) for one in held_out):
        splits["held_out_all"] = everything
    words = BagOfWords(data.of_split("train"))
    reports: dict[str, Any] = {}
    for name, groups in splits.items():
        members = member_scores_of(model, [group.group for group in groups], config)
        scores = [_combined(scores_KM, config) for scores_KM in members]
        baselines = {"bag_of_words": words.scores(groups)}
        reports[name] = ranking_report(scores, groups, config, baselines)
        if name == "held_out" and groups:
            reports["held_out_tables"] = ranking_tables(scores, groups, config)
            if (safety := safety_report(scores, groups)) is not None:
                reports["safety"] = safety
            if config.heads > 1:
                reports["ensemble"] = members_report(members, groups, config)
    return reports


def _zero_find(
    model: Any, demonstrations: Sequence[Group], data: RankedData, config: RewardConfig
) -> dict[str, Any]:
    """Set the scores' zero where the run says what has mean 0; returns what was done, to be told.

    On demonstrations, if there are any; else, of an ensemble, on its training answers, for the
    heads' scores are compared with each other.
    """
    if demonstrations:
        groups, name = list(demonstrations), "demonstrations"
    elif config.heads > 1:
        groups, name = [group.group for group in data.of_split("train")], "training answers"
    else:
        return {}
    answers = sum(len(group.answers) for group in groups)
    shifts = zero_set(model, member_scores_of(model, groups, config))
    print(f"mean score 0 on {answers} {name}: shifted by {shifts}", flush=True)
    return {"zero": {"on": name, "answers": answers, "shifts": shifts}}


def _publish(
    run: RunDir,
    model: Any,
    base: ModelInput,
    tokenizer: Any,
    config: RewardConfig,
    notes: list[str],
) -> tuple[dict[str, Any], str]:
    """(what the output is, its role): the model, or the adapter with its head by itself."""
    if config.publish == "adapter":
        return adapter_publish(run, model, base), "adapter"
    folder = run.output("model")
    padding_set(model, tokenizer)
    if tokenizer.pad_token_id is None:
        notes.append(
            "the vocabulary has no token to pad with that is not the end of a turn: tools that "
            "score padded batches cannot use this model, Rondo needs no padding"
        )
    model_save(model, tokenizer, folder, dtype="bfloat16")
    facts = model_directory_check(folder)
    return {
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "dtype": facts.dtype,
        "context_tokens": facts.context_tokens,
        "chat_template": facts.chat_template,
    }, "model"


def main(run: RunDir) -> None:
    config = run.config(RewardConfig)
    adapter_machine_check(config)
    optimizer_check(config.optimizer)
    base = model_input(run, "base")
    base_plain_check(base, config)
    tokenizer = reward_tokenizer_make(base.whole, config)
    if run.has_input("policy"):
        template_check(tokenizer_load(run.input("policy")), tokenizer)
    if run.has_input("demonstrations") and config.safety_weight:
        raise RefusedError(
            "demonstrations would move the scores' zero, which reward.safety_weight gives a "
            "meaning: σ(score) is to be the probability of a safe answer"
        )
    max_tokens = min(config.max_tokens, model_context(base) - config.own_tokens)
    demonstrations: list[Group] = []
    if run.has_input(
        "demonstrations"
    ):  # refused here where none can be scored, not behind training
        given = conversations_read(run.input("demonstrations"), config.split_shares)
        demonstrations = demonstrations_lay(given, tokenizer, max_tokens=max_tokens)
    data = rankings_load(run.input("rankings") / RANKINGS_NAME, tokenizer, max_tokens=max_tokens)
    groups, notes = examples_choose(data, config, max_tokens=max_tokens)
    for note in notes:
        print(f"note: {note}", flush=True)
    print(f"{data.rankings} rankings, {len(groups)} groups to train on", flush=True)
    processes = processes_start()
    model = reward_model_make(base, config, tokenizer)
    processes.prepare(model)
    done = train(run, model, groups, data, config, processes)
    model = processes.gather(model, lambda: reward_model_make(base, config, tokenizer))
    if model is None:
        return  # the first of the processes tests and publishes
    # What is tested below is what is published: no weight changes when it is saved.
    if config.publish == "merged":
        model = trained_merge(model)
        weights_check(model)
        weights_round(model, seed=config.seed)
    model.eval()
    zero = _zero_find(model, demonstrations, data, config)
    reports = reports_make(model, data, config)
    if reports["held_out"] is not None:
        found = reports["held_out"]
        print(f"held out: accuracy {found['accuracy']:.3f} on {found['pairs']} pairs", flush=True)
    facts, output = _publish(run, model, base, tokenizer, config, notes)
    run.succeed(
        outputs={output: output},
        result={
            **facts,
            "notes": notes,
            **zero,
            **reports,
            "train": {
                "rankings": sum(len(group.rankings) for group in groups),
                "prompts": len({group.prompt_id for group in groups}),
                "pairs": sum(len(group.pairs) for group in groups),
                "rankings_too_long": data.too_long,
                "rankings_without_pairs": data.without_pairs,
                "rankings_identical": data.identical,
                "longest_tokens": data.longest_tokens,
                "steps": done["step"],
                "tokens": done["tokens"],
                "seconds": done["seconds"],
                "tokens_per_s": done["tokens"] / done["seconds"],
            },
            "losses": done["losses"],
        },
    )
