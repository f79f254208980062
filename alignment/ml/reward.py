"""The reward model: a score for an answer, learnt from people's rankings.

    loss = mean over rankings of  −1/|P| Σ_{(w, l) ∈ P} log σ(r(x, y_w) − r(x, y_l) − margin)

with P the untied pairs of a ranking (Ouyang et al. 2022, arXiv:2203.02155, eq. 1; the margin is
Touvron et al. 2023's, arXiv:2307.09288, section 3.2.2). r is a linear head on the policy's own
checkpoint, read at the answer's last token: the end of its turn where it ended, so that an answer
that was cut off can be told from one that was finished. The prompt is paid once for all its answers
and all their rankings (`shared_prefix`).

Departures from InstructGPT: the head starts from 0, so training starts from equal scores; the
scores are not shifted behind training, `center_weight` keeps them near 0 instead.

Killed and started again it goes on from its last checkpoint to the same losses, bit for bit on the
CPU: the order of the data depends on the seed and the step alone, the checkpoint holds the rest.
On several processes (`modelhub.ml.parallel`) a step's rows are shared out, with the losses of one.

By hand: `python -m alignment.ml.reward RUN_DIR`.

Legend: K answers of a prompt.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from torch import Tensor, nn

from alignment.intervals import bootstrap_ratio
from alignment.ml.allocator import memory_keep
from alignment.ml.configs import RewardConfig
from alignment.ml.data import RankedData, RankedGroup, rankings_load, steps_places
from alignment.ml.losses import better_mask, centering_loss, pair_accuracy, ranking_loss
from alignment.ml.rounding import weights_check, weights_round
from alignment.ml.shared_prefix import answer_scores, attach, pack
from modelhub.ml.chat import end_of_turn_id
from modelhub.ml.checkpoint import (
    model_load,
    model_save,
    tokenizer_load,
    training_state_load,
    training_state_save,
)
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.parallel import Processes, processes_start
from modelhub.ml.rundir import RunDir, program_run

# ── data ─────────────────────────────────────────────────────────────────────────────────────────


def training_check(data: RankedData, *, max_tokens: int) -> list[RankedGroup]:
    """The groups to train on. Raises RefusedError, saying what was read, if there is no pair."""
    groups = data.of_split("train")
    if not groups:
        raise RefusedError(
            f"there is no pair to train on: {data.rankings} rankings were read; "
            f"{data.without_pairs} put no answer above another, {data.too_long} have a prompt and "
            f"answer of more than {max_tokens} tokens (the longest has {data.longest_tokens}), and "
            f"the other {data.rankings - data.without_pairs - data.too_long} are not of the "
            "training split"
        )
    return groups


def steps_plan(groups: Sequence[RankedGroup], config: RewardConfig) -> list[list[int]]:
    """The groups of every step, as places in `groups`: all epochs, each in an order of its own.

    An epoch's steps are even, of about `rankings_per_step` rankings; a group's stay together.
    """
    epochs = steps_places(
        [len(group.rankings) for group in groups],
        epochs=config.epochs,
        per_step=config.rankings_per_step,
        seed=config.seed,
    )
    return [places for steps in epochs for places in steps]


# ── loss ─────────────────────────────────────────────────────────────────────────────────────────


def group_losses(scores_K: Tensor, group: RankedGroup, config: RewardConfig) -> Tensor:
    """The sum over the group's rankings of their losses, a scalar."""
    masks = [better_mask(tiers, len(scores_K)) for tiers in group.rankings]
    total = torch.stack([ranking_loss(scores_K, mask, config.margin) for mask in masks]).sum()
    if config.center_weight:
        total = total + len(masks) * config.center_weight * centering_loss(scores_K)
    return total


def step_gradients(
    model: Any, groups: Sequence[RankedGroup], config: RewardConfig, processes: Processes
) -> tuple[dict[str, float], int]:
    """Add the gradient of the mean ranking loss of `groups` to the model's, row by row.

    How the groups fall into rows changes nothing but rounding. Returns the step's figures (loss,
    accuracy, reward_mean, margin) and the tokens computed.
    """
    rankings = sum(len(group.rankings) for group in groups)
    tokens = sum(group.group.tokens for group in groups)
    loss = right = gaps = pairs = score_sum = answers = 0.0
    budget_tokens = processes.budget_tokens(config.budget_tokens, tokens)
    rows = pack([group.group for group in groups], budget_tokens)
    for row, weight in processes.share(rows, cost=lambda row: row.tokens):
        with _autocast(model, config.dtype):
            row_scores = processes.forward(answer_scores, model, row)
        own = [groups[index] for index in row.indices]
        row_loss = sum(
            group_losses(scores_K, group, config)
            for scores_K, group in zip(row_scores, own, strict=True)
        )
        (weight * row_loss / rankings).backward()
        loss += weight * float(row_loss.detach())
        for scores_K, group in zip(row_scores, own, strict=True):
            values = scores_K.detach()
            score_sum += weight * float(values.sum())
            answers += weight * len(values)
            for tiers in group.rankings:
                mask_KK = better_mask(tiers, len(values))
                own_right, own_pairs = pair_accuracy(values, mask_KK)
                right += weight * own_right
                pairs += weight * own_pairs
                gap = (values[:, None] - values[None, :]).cpu()[mask_KK].sum()
                gaps += weight * float(gap)
    processes.gradients_sum(model.parameters())
    sums = processes.sum(
        {"loss": loss, "right": right, "gaps": gaps, "pairs": pairs, "scores": score_sum}
        | {"answers": answers}
    )
    figures = {
        "loss": sums["loss"] / rankings,
        "accuracy": sums["right"] / sums["pairs"],
        "reward_mean": sums["scores"] / sums["answers"],
        "margin": sums["gaps"] / sums["pairs"],
    }
    return figures, tokens


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def scores_of(
    model: Any,
    groups: Sequence[RankedGroup],
    config: RewardConfig,
    processes: Processes | None = None,
) -> list[Tensor]:
    """The model's scores of each group, float32 on the CPU, shape (K,).

    With `processes` every one of them calls this and computes all, as a sharded model asks.
    """
    found: list[Tensor] = [torch.empty(0)] * len(groups)
    for row in pack([group.group for group in groups], config.budget_tokens):
        with _autocast(model, config.dtype):
            if processes is None:
                row_scores = answer_scores(model, row)
            else:
                row_scores = processes.forward(answer_scores, model, row)
        for index, scores_K in zip(row.indices, row_scores, strict=True):
            found[index] = scores_K.cpu()
    return found


def ranking_report(
    scores: Sequence[Tensor], groups: Sequence[RankedGroup], config: RewardConfig
) -> dict[str, Any] | None:
    """How well scores agree with rankings, beside a baseline that knows an answer's length only.

    accuracy: share of pairs whose better answer has the higher score, equal scores one half, with
    a 95 % bootstrap interval over prompts (a prompt's pairs are not independent; None for fewer
    than two prompts). length_accuracy: the same where the score is the number of characters.
    over_length: the first less the second, with an interval of its own: both are on the same pairs.
    accuracy_when_shorter_won: on the pairs that length gets wrong; None if there are none.
    loss: mean over rankings, without centring.
    Returns None, not a number, where there is nothing to test on.
    """
    if not groups:
        return None
    by_prompt: dict[str, _Counts] = {}
    losses: list[float] = []
    shorter_right, shorter_pairs = 0.0, 0
    for scores_K, group in zip(scores, groups, strict=True):
        lengths_K = torch.tensor(group.characters_K, dtype=torch.float32)
        counts = by_prompt.setdefault(group.prompt_id, _Counts())
        for tiers in group.rankings:
            mask_KK = better_mask(tiers, len(scores_K))
            losses.append(float(ranking_loss(scores_K, mask_KK, config.margin)))
            right, pairs = pair_accuracy(scores_K, mask_KK)
            counts.right += right
            counts.pairs += pairs
            counts.right_by_length += pair_accuracy(lengths_K, mask_KK)[0]
            shorter_KK = mask_KK & (lengths_K[:, None] < lengths_K[None, :])
            right, pairs = pair_accuracy(scores_K, shorter_KK)
            shorter_right, shorter_pairs = shorter_right + right, shorter_pairs + pairs
    found = list(by_prompt.values())
    all_scores = torch.cat(list(scores)).tolist()
    return {
        "rankings": len(losses),
        "prompts": len(by_prompt),
        "pairs": sum(len(group.pairs) for group in groups),
        "chance": 0.5,
        **_share("accuracy", [(one.right, one.pairs) for one in found], config),
        **_share("length_accuracy", [(one.right_by_length, one.pairs) for one in found], config),
        **_share(
            "over_length", [(one.right - one.right_by_length, one.pairs) for one in found], config
        ),
        "accuracy_when_shorter_won": shorter_right / shorter_pairs if shorter_pairs else None,
        "loss": fmean(losses),
        "score_mean": fmean(all_scores),
        "score_std": pstdev(all_scores),
    }


@dataclass
class _Counts:
    """Of one prompt: pairs, and how many of them the scores and the lengths get right."""

    pairs: int = 0
    right: float = 0.0
    right_by_length: float = 0.0


def _share(
    name: str, parts: Sequence[tuple[float, float]], config: RewardConfig
) -> dict[str, float | None]:
    if len(parts) < 2:
        return {name: parts[0][0] / parts[0][1], f"{name}_low": None, f"{name}_high": None}
    found = bootstrap_ratio(parts, samples=config.bootstrap_samples, seed=config.seed)
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


# ── model ────────────────────────────────────────────────────────────────────────────────────────


def reward_model_make(folder: Path, config: RewardConfig) -> Any:
    """The base with a score head, ready for shared rows: float32, dropout off, lower layers frozen.

    A head that is already there (the base is a reward model) is kept. Raises RefusedError for a
    base that shared rows cannot serve, or with fewer layers than are to be frozen.
    """
    torch.manual_seed(config.seed)
    model = model_load(folder, dtype="float32", role="reward", new_head=True)
    if model_directory_check(folder).role != "reward":
        nn.init.zeros_(model.score.weight)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    attach(model)
    for module in model.modules():  # a ranking's answers must be judged by one and the same model
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.frozen_layers:
        layers = _layers(model)
        if config.frozen_layers > len(layers):
            raise RefusedError(
                f"reward.frozen_layers: the base has {len(layers)}, got {config.frozen_layers}"
            )
        backbone = getattr(model, model.base_model_prefix)
        frozen = [c for c in backbone.children() if isinstance(c, nn.Embedding)]
        for module in [*frozen, *layers[: config.frozen_layers]]:
            module.requires_grad_(False)
    return model


def _layers(model: Any) -> nn.ModuleList:
    """The decoder's layers, whatever the architecture calls them."""
    backbone = getattr(model, model.base_model_prefix)
    (layers,) = [child for child in backbone.children() if isinstance(child, nn.ModuleList)]
    return layers


def optimizer_make(model: Any, config: RewardConfig) -> torch.optim.AdamW:
    """AdamW with Llama 2's moments; decay on matrices alone, the head with a rate of its own."""
    head = set(model.score.parameters())
    body = [p for p in model.parameters() if p.requires_grad and p not in head]
    matrices = [p for p in body if p.ndim >= 2]
    others = [p for p in body if p.ndim < 2]
    groups = [
        {"params": matrices, "peak": config.lr, "weight_decay": config.weight_decay},
        {"params": others, "peak": config.lr, "weight_decay": 0.0},
        {"params": list(head), "peak": config.head_lr or config.lr, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=True,
    )


def learning_rate_share(step: int, *, steps: int, config: RewardConfig) -> float:
    """The share of the peak at step 0 … steps − 1: linear warm-up, then a cosine to its end."""
    warmup = math.ceil(config.warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - 1 - warmup)
    cosine = (1 + math.cos(math.pi * done)) / 2
    return config.lr_final_share + (1 - config.lr_final_share) * cosine


def padding_set(model: Any, tokenizer: Any) -> None:
    """Name a padding token that is not the end of a turn, for other tools that load the model.

    transformers' own scoring reads the last token that is not padding: where padding and the end
    of a turn are one token, as in SmolLM2, it could not see whether an answer was finished.
    """
    ending = end_of_turn_id(tokenizer)
    if tokenizer.pad_token_id in (None, ending):
        others = [i for i in tokenizer.all_special_ids if i not in (ending, tokenizer.bos_token_id)]
        tokenizer.pad_token_id = others[0] if others else None
    model.config.pad_token_id = tokenizer.pad_token_id


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

    Returns facts about the training: every step's loss, steps, tokens and seconds.
    """
    plan = steps_plan(groups, config)
    optimizer = optimizer_make(model, config)
    done: dict[str, Any] = {"step": 0, "losses": [], "tokens": 0, "seconds": 0.0}
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
        parameters = [p for p in model.parameters() if p.requires_grad]
        grad_norm = processes.gradients_clip(parameters, config.max_grad_norm)
        seconds = time.perf_counter() - started
        figures |= {
            "lr": share * config.lr,
            "grad_norm": float(grad_norm),
            "tokens_per_s": tokens / seconds,
        }
        # NaN ends the run here, with the last good checkpoint behind it and no weight touched.
        run.metric(step + 1, figures)
        optimizer.step()
        done = {
            "step": step + 1,
            "losses": [*done["losses"], figures["loss"]],
            "tokens": done["tokens"] + tokens,
            "seconds": done["seconds"] + seconds,
        }
        if config.evaluate_every_steps and (step + 1) % config.evaluate_every_steps == 0:
            _validate(run, step + 1, model, data, config, processes)
        if (step + 1) % config.checkpoint_every_steps == 0 or step + 1 == len(plan):
            _checkpoint(run, model, optimizer, done)
        run.progress(step + 1, len(plan), "steps")
        print(f"step {step + 1}/{len(plan)}  {_line(figures)}", flush=True)
    return done


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


def _reports(
    model: Any, data: RankedData, config: RewardConfig
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The reports by name; "held_out_all" only where earlier rounds have rankings to add."""
    held_out = data.of_split("held_out", config.held_out_batches)
    everything = data.of_split("held_out")
    reports = [("validation", data.of_split("validation")), ("held_out", held_out)]
    if sum(len(one.rankings) for one in everything) > sum(len(one.rankings) for one in held_out):
        reports.append(("held_out_all", everything))
    for name, groups in reports:
        yield name, ranking_report(scores_of(model, groups, config), groups, config)


def main(run: RunDir) -> None:
    config = run.config(RewardConfig)
    memory_keep()
    base = run.input("base")
    tokenizer = tokenizer_load(base)
    max_tokens = min(config.max_tokens, model_directory_check(base).context_tokens)
    data = rankings_load(run.input("rankings") / "rankings.jsonl", tokenizer, max_tokens=max_tokens)
    groups = training_check(data, max_tokens=max_tokens)
    print(
        f"{data.rankings} rankings: {data.too_long} left out for their length, "
        f"{data.without_pairs} for want of a pair; {len(groups)} groups to train on",
        flush=True,
    )
    processes = processes_start()
    model = reward_model_make(base, config)
    processes.prepare(model)
    done = train(run, model, groups, data, config, processes)
    model = processes.gather(model, lambda: reward_model_make(base, config))
    if model is None:
        return  # the first of the processes tests and publishes
    # What is tested below is what is published: no weight changes when it is saved.
    weights_check(model)
    weights_round(model, seed=config.seed)
    model.eval()
    reports = dict(_reports(model, data, config))
    if reports["held_out"] is not None:
        found = reports["held_out"]
        print(f"held out: accuracy {found['accuracy']:.3f} on {found['pairs']} pairs", flush=True)
    folder = run.output("model")
    padding_set(model, tokenizer)
    model_save(model, tokenizer, folder, dtype="bfloat16")
    facts = model_directory_check(folder)
    run.succeed(
        outputs={"model": "model"},
        result={
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "dtype": facts.dtype,
            "context_tokens": facts.context_tokens,
            "chat_template": facts.chat_template,
            **reports,
            "train": {
                "rankings": sum(len(group.rankings) for group in groups),
                "prompts": len({group.prompt_id for group in groups}),
                "pairs": sum(len(group.pairs) for group in groups),
                "rankings_too_long": data.too_long,
                "rankings_without_pairs": data.without_pairs,
                "longest_tokens": data.longest_tokens,
                "steps": done["step"],
                "tokens": done["tokens"],
                "seconds": done["seconds"],
                "tokens_per_s": done["tokens"] / done["seconds"],
            },
            "losses": done["losses"],
        },
    )


if __name__ == "__main__":
    program_run(main)
