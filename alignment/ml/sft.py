"""Supervised fine-tuning: the policy learns to write the demonstrations.

    loss = − Σ_k Σ_t log π(y_kt | x_k, y_k,<t) / Σ_k |y_k|        k over the examples of a step

on the tokens of the answers alone, the end of the turn included where the answer ended (Ouyang et
al. 2022, arXiv:2203.02155, section 3.5; Touvron et al. 2023, arXiv:2307.09288, section 3.1). Cosine
schedule after a linear warm-up, AdamW with Llama 2's moments. All answers to a prompt are in one
step and share the prompt (`shared_prefix`), and prompts are packed without padding, so a step pays
for the tokens it learns from. Rejection sampling's fine-tuning is this program on the answers that
`alignment.ml.rejection` kept.

Weights are trained in float32 and published in bfloat16, rounded so that small updates survive
(`rounding`).

Killed and started again it goes on from its last checkpoint to the same losses and the same
weights, bit for bit on the CPU: the order of the data depends on the seed alone, and the checkpoint
holds everything else. On several processes (`modelhub.ml.parallel`) a step's rows are shared out,
with the losses of one.

By hand: `python -m alignment.ml.sft RUN_DIR`.

Legend: S answer tokens of a row, C width of a hidden state, V vocabulary.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignment.ml.configs import SftConfig
from alignment.ml.data import DemonstrationRecord, steps_places
from alignment.ml.rounding import weights_check, weights_round
from alignment.ml.shared_prefix import Group, Row, attach, hidden_states, pack
from modelhub.ml.chat import answer_encode, prompt_render
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
from modelhub.ml.records import records_read
from modelhub.ml.rundir import RunDir, program_run

_CHUNK_TOKENS = 512  # answer tokens whose logits exist at once


@dataclass(frozen=True)
class Examples:
    """Demonstrations as token ids, by prompt, and those that could not be used."""

    groups: list[Group]  # one a prompt, in the order of their ids
    too_long: list[str]  # prompt ids, one for each answer left out
    empty: list[str]

    @property
    def answers(self) -> int:
        return sum(len(group.answers) for group in self.groups)


def examples_make(
    demonstrations: Sequence[DemonstrationRecord], tokenizer: Any, *, max_tokens: int
) -> Examples:
    """Group the demonstrations by prompt and lay them out as tokens.

    An answer that with its prompt is longer than `max_tokens`, or in which nothing is to be learnt
    (empty and cut off), is left out and listed. Raises RefusedError without demonstrations, if none
    is left, or if one prompt id stands for two conversations.
    """
    if not demonstrations:
        raise RefusedError("there are no demonstrations")
    by_prompt: dict[str, list[DemonstrationRecord]] = {}
    for demonstration in demonstrations:
        by_prompt.setdefault(demonstration.prompt_id, []).append(demonstration)
    groups, too_long, empty = [], [], []
    for prompt_id, own in sorted(by_prompt.items()):
        if any(one.messages != own[0].messages for one in own):
            raise RefusedError(f"prompt {prompt_id} stands for different conversations")
        prompt_T = prompt_render(tokenizer, own[0].messages)
        answers = []
        for one in own:
            answer_T = answer_encode(tokenizer, one.text, one.finish_reason)
            if len(prompt_T) + len(answer_T) > max_tokens:
                too_long.append(prompt_id)
            elif not answer_T:
                empty.append(prompt_id)
            else:
                answers.append(answer_T)
        if answers:
            groups.append(Group(prompt_T, answers))
    if not groups:
        raise RefusedError(
            f"none of {len(demonstrations)} demonstrations can be learnt from: {len(too_long)} "
            f"longer than {max_tokens} tokens with their prompt, {len(empty)} empty"
        )
    return Examples(groups, too_long, empty)


@dataclass(frozen=True)
class Step:
    """What one update of the weights is made from."""

    epoch: int  # from 0
    prompts: tuple[int, ...]  # places in the list of groups


def steps_plan(
    sizes: Sequence[int], *, epochs: int, examples_per_step: int, seed: int
) -> list[Step]:
    """All steps of a run over prompts of `sizes` examples, a prompt's in one step."""
    places = steps_places(sizes, epochs=epochs, per_step=examples_per_step, seed=seed)
    return [Step(epoch, tuple(one)) for epoch, steps in enumerate(places) for one in steps]


def learning_rate(step: int, *, steps: int, config: SftConfig) -> float:
    """The rate of step 0 … steps − 1: linear up to `lr`, then a cosine down to its final share."""
    warmup = math.ceil(config.warmup_share * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - 1 - warmup)
    cosine = (1 + math.cos(math.pi * done)) / 2
    return config.lr * (config.lr_final_share + (1 - config.lr_final_share) * cosine)


def row_loss(model: Any, row: Row) -> tuple[Tensor, Tensor]:
    """(−Σ log p of the row's answer tokens, how many of them the model thought likeliest): scalars.

    Nats, float32. A chunk's logits are computed again in backward rather than kept.
    """
    hidden_TC = hidden_states(model, row)
    head = model.get_output_embeddings()
    source_S, target_S = (place.to(hidden_TC.device) for place in row.answer_places())
    chunks = [
        checkpoint(_chunk_loss, head, hidden_TC[source], target, use_reentrant=False)
        for source, target in zip(
            source_S.split(_CHUNK_TOKENS), target_S.split(_CHUNK_TOKENS), strict=True
        )
    ]
    return sum(loss for loss, _ in chunks), sum(right for _, right in chunks)


def _chunk_loss(head: nn.Module, hidden_SC: Tensor, target_S: Tensor) -> tuple[Tensor, Tensor]:
    logits_SV = head(hidden_SC).float()
    # amax, for argmax over a vocabulary is slow on the CPU.
    right = (logits_SV.gather(-1, target_S[:, None])[:, 0] == logits_SV.amax(-1)).sum()
    return F.cross_entropy(logits_SV, target_S, reduction="sum"), right


def policy_load(folder: Path, config: SftConfig) -> Any:
    """The policy with gradients where the run trains: every weight, or an adapter (Hu et al. 2021).

    Weights are float32 masters; with dtype bfloat16 the products are computed in bfloat16.
    """
    model = model_load(folder, dtype="float32")
    if config.lora_rank:
        # A is drawn at random, B is 0: training starts from the base policy itself.
        adapter = peft.LoraConfig(
            r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear"
        )
        model = peft.get_peft_model(model, adapter)
    attach(model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.to(device_choose()).train()


def device_choose() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Trained:
    """Sums over one step, as the checkpoint keeps them."""

    loss_sum: float  # nats
    right: int  # answer tokens that were the likeliest
    answer_tokens: int
    tokens: int  # that went through the model: prompts once, answers
    seconds: float


def train(
    run: RunDir,
    config: SftConfig,
    model: Any,
    groups: Sequence[Group],
    plan: Sequence[Step],
    processes: Processes,
) -> list[Trained]:
    """Take every step of the plan, from the last checkpoint on. Returns what each step saw.

    Raises NotFinite before a step whose loss or gradient is NaN or infinite is taken.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=config.lr, betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=True
    )
    taken: list[Trained] = []
    found = run.checkpoint_latest()
    if found is not None:
        values = training_state_load(found[1], model=model, optimizer=optimizer)
        taken = [Trained(*one) for one in values["taken"]]
        print(f"going on after step {len(taken)}", flush=True)
    run.progress(len(taken), len(plan), "steps")
    for number in range(len(taken), len(plan)):
        started = time.monotonic()
        lr = learning_rate(number, steps=len(plan), config=config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        own = [groups[place] for place in plan[number].prompts]
        answer_tokens = sum(len(answer) for group in own for answer in group.answers)
        tokens = sum(group.tokens for group in own)
        loss_sum = right_sum = 0.0
        rows = pack(own, processes.budget_tokens(config.budget_tokens, tokens))
        for row, weight in processes.share(rows, cost=lambda row: row.tokens):
            with torch.autocast(
                device_choose().type, torch.bfloat16, enabled=config.dtype == "bfloat16"
            ):
                loss, right = processes.forward(row_loss, model, row)
            (weight * loss / answer_tokens).backward()
            loss_sum += weight * loss.item()
            right_sum += weight * right.item()
        processes.gradients_sum(weights)
        norm = processes.gradients_clip(weights, config.max_grad_norm).item()
        figures = processes.sum({"loss": loss_sum, "right": right_sum})
        loss_sum, right_sum = figures["loss"], int(figures["right"])
        seconds = time.monotonic() - started
        run.metric(
            number + 1,
            {
                "loss": loss_sum / answer_tokens,
                "token_accuracy": right_sum / answer_tokens,
                "grad_norm": norm,
                "lr": lr,
                "tokens_per_s": tokens / seconds,
            },
        )
        optimizer.step()
        optimizer.zero_grad()
        taken.append(Trained(loss_sum, right_sum, answer_tokens, tokens, seconds))
        run.progress(len(taken), len(plan), "steps")
        if len(taken) % config.checkpoint_every_steps == 0 and len(taken) < len(plan):
            values = {"taken": [list(astuple(one)) for one in taken]}
            run.checkpoint_publish(
                len(taken),
                lambda folder, values=values: training_state_save(
                    folder, model=model, optimizer=optimizer, values=values
                ),
            )
    return taken


def trained_merge(model: Any) -> Any:
    """The policy with its adapter, if it has one, merged; what was trained requires gradients."""
    if not hasattr(model, "peft_config"):
        return model
    adapted = {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    merged = model.merge_and_unload()
    for name, weight in merged.named_parameters():
        weight.requires_grad_(name.removesuffix(".weight") in adapted)
    return merged


def epochs_describe(taken: Sequence[Trained], plan: Sequence[Step]) -> list[dict[str, float]]:
    """Each epoch's mean loss (nats per answer token) and share of tokens that were likeliest."""
    described = []
    for epoch in range(plan[-1].epoch + 1):
        own = [one for one, step in zip(taken, plan, strict=True) if step.epoch == epoch]
        tokens = sum(one.answer_tokens for one in own)
        described.append(
            {
                "loss": sum(one.loss_sum for one in own) / tokens,
                "token_accuracy": sum(one.right for one in own) / tokens,
            }
        )
    return described


def main(run: RunDir) -> None:
    config = run.config(SftConfig)
    base = run.input("base")
    demonstrations = list(
        records_read(run.input("demonstrations") / "demonstrations.jsonl", DemonstrationRecord)
    )
    tokenizer = tokenizer_load(base)
    max_tokens = min(config.max_tokens, model_directory_check(base).context_tokens)
    examples = examples_make(demonstrations, tokenizer, max_tokens=max_tokens)
    for reason, prompt_ids in (("too long", examples.too_long), ("empty", examples.empty)):
        if prompt_ids:
            print(f"{len(prompt_ids)} left out as {reason}: {' '.join(prompt_ids)}", flush=True)
    plan = steps_plan(
        [len(group.answers) for group in examples.groups],
        epochs=config.epochs,
        examples_per_step=config.examples_per_step,
        seed=config.seed,
    )
    print(f"{examples.answers} examples, {len(plan)} steps", flush=True)
    torch.manual_seed(config.seed)
    processes = processes_start()
    model = policy_load(base, config)
    processes.prepare(model)
    taken = train(run, config, model, examples.groups, plan, processes)
    model = processes.gather(model, lambda: policy_load(base, config))
    if model is None:
        return  # the first of the processes publishes
    merged = trained_merge(model).cpu()
    weights_check(merged)
    weights_round(merged, seed=config.seed)
    folder = run.output("model")
    model_save(merged, tokenizer, folder)
    facts = model_directory_check(folder)
    run.succeed(
        outputs={"model": "model"},
        result={
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "dtype": facts.dtype,
            "context_tokens": facts.context_tokens,
            "chat_template": facts.chat_template,
            "prompts": len(examples.groups),
            "examples": examples.answers,
            "too_long": len(examples.too_long),
            "empty": len(examples.empty),
            "steps": len(plan),
            "epochs": epochs_describe(taken, plan),
            "answer_tokens": sum(one.answer_tokens for one in taken),
            "tokens_per_s": sum(one.tokens for one in taken) / sum(one.seconds for one in taken),
        },
    )


if __name__ == "__main__":
    program_run(main)
