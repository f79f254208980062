"""Supervised fine-tuning: the policy learns to say what the demonstrations say.

    loss = − Σ_k Σ_t m_kt log π(y_kt | x_k, y_k,<t) / Σ_k Σ_t m_kt       k over the talks of a step

with m = 1 on the tokens that the assistant writes and 0 on all it is told; the end of a turn is
written too, where the turn ended (Ouyang et al. 2022, arXiv:2203.02155, section 3.5; Touvron et al.
2023, arXiv:2307.09288, section 3.1). `conversations` reads and lays the talks. Cosine schedule
after a linear warm-up, AdamW with Llama 2's moments. Talks are packed without padding, best fit
decreasing, each sees itself alone (`shared_prefix`), and those with one beginning pay for it once,
in one step. Rejection sampling's fine-tuning is this program on the answers that
`alignment.ml.rejection` kept.

Talks of the validation split are heard as it trains, those of the held-out split before and after:
neither is ever learnt. Greedy answers to fixed prompts go into the log.

Weights are trained in float32 and published in bfloat16, rounded so that small updates survive
(`rounding`); an adapter may be published by itself (`adapters`).

Killed and started again it goes on from its last checkpoint to the same losses and the same
weights, bit for bit on the CPU: the order of the data depends on the seed alone, and the checkpoint
holds everything else.

By hand: `python -m alignment.ml.sft RUN_DIR`.

Legend: S learnt tokens of a row, C width of a hidden state, V vocabulary.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignment.ml.adapters import (
    adapter_attach,
    adapter_publish,
    base_open,
    ending_tell,
    quantised_load,
    trained_merge,
)
from alignment.ml.best_step import BestStep
from alignment.ml.configs import SftConfig
from alignment.ml.configs.preference import PreferenceSettings
from alignment.ml.conversations import (
    Conversation,
    Lesson,
    Lessons,
    conversations_read,
    lessons_make,
    taught_places,
)
from alignment.ml.data import steps_places
from alignment.ml.dropout import residual_dropout_set
from alignment.ml.reader import reader_check
from alignment.ml.rounding import weights_check, weights_round
from alignment.ml.shared_prefix import Row, attach, hidden_states, pack
from alignment.ml.shared_prefix.support import base_model
from alignment.ml.validation import RewardChoice, Watch, precision
from alignment.ml.vocabulary import session_end_add, token_rows_start
from modelhub.ml.adapter import (
    ModelInput,
    model_context,
    model_input,
    model_input_load,
)
from modelhub.ml.checkpoint import (
    model_save,
    tokenizer_load,
    training_state_load,
    training_state_save,
)
from modelhub.ml.configs import RefusedError
from modelhub.ml.divergence import divergence_stop, rise_reason
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.optimizers import optimizer_make
from modelhub.ml.parallel import Processes, processes_start
from modelhub.ml.rundir import RunDir, program_run

_CHUNK_TOKENS = 512  # learnt tokens whose logits exist at once
_LOSS_FLOOR_NATS = 0.1  # per token: below it a tenfold rise of the loss is no divergence
_NORM_FLOOR = 0.01


@dataclass(frozen=True)
class Step:
    """What one update of the weights is made from."""

    epoch: int  # from 0
    lessons: tuple[int, ...]  # places in their list


def steps_plan(
    sizes: Sequence[int], *, epochs: int, examples_per_step: int, seed: int
) -> list[Step]:
    """All steps of a run over lessons of `sizes` conversations, a lesson's in one step."""
    places = steps_places(sizes, epochs=epochs, per_step=examples_per_step, seed=seed)
    return [Step(epoch, tuple(one)) for epoch, steps in enumerate(places) for one in steps]


def learning_rate(step: int, *, steps: int, config: SftConfig | PreferenceSettings) -> float:
    """The rate of step 0 … steps − 1: linear up to `lr`, then a cosine down to its final share."""
    warmup = math.ceil(config.warmup_share * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - 1 - warmup)
    cosine = (1 + math.cos(math.pi * done)) / 2
    return config.lr * (config.lr_final_share + (1 - config.lr_final_share) * cosine)


def row_loss(model: Any, row: Row, lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
    """(−Σ log p of the row's learnt tokens, how many of them the model thought likeliest): scalars.

    lessons: of the row's groups, in its order. Nats, float32. A chunk's logits are computed again
    in backward rather than kept.
    """
    hidden_TC = hidden_states(model, row)
    head = base_model(model).get_output_embeddings()
    taught = torch.tensor(taught_places(lessons))
    source_S, target_S = (place[taught].to(hidden_TC.device) for place in row.answer_places())
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


def policy_load(
    given: ModelInput, config: SftConfig | PreferenceSettings, tokenizer: Any = None
) -> Any:
    """The policy with gradients where the run trains: every weight, or an adapter.

    Weights are float32 masters; with dtype bfloat16 the products are computed in bfloat16.
    tokenizer: wanted where it may have tokens that the policy's own has not.
    """
    if config.adapter == "qlora":
        model = quantised_load(given.folder)
    else:
        model = model_input_load(given, dtype="float32")
    if hasattr(model, "peft_config"):
        raise RefusedError(
            "the base is a prefix or P-tuning adapter, which cannot be merged: train from its base"
        )
    if tokenizer is not None:
        token_rows_start(model, tokenizer, known=len(tokenizer_load(given.whole)))
    model.requires_grad_(config.adapter != "qlora")  # a merged adapter's weights come frozen
    model = adapter_attach(model, config)
    attach(model)
    if config.dropout:
        residual_dropout_set(model, config.dropout)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


@dataclass(frozen=True)
class Trained:
    """Sums over one step, as the checkpoint keeps them."""

    loss_sum: float  # nats
    right: int  # learnt tokens that were the likeliest
    learnt_tokens: int
    tokens: int  # that went through the model: beginnings once, questions and answers
    grad_norm: float  # before it was clipped
    seconds: float

    @property
    def loss(self) -> float:
        return self.loss_sum / self.learnt_tokens


def train(
    run: RunDir,
    config: SftConfig,
    model: Any,
    lessons: Sequence[Lesson],
    plan: Sequence[Step],
    watch: Watch,
    processes: Processes,
) -> list[Trained]:
    """Take every step of the plan, from the last checkpoint on. Returns what each step saw.

    Raises NotFinite before a step whose loss or gradient is NaN or infinite is taken, Diverged
    before one at which they have run away.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = optimizer_make(
        [{"params": weights, "weight_decay": config.weight_decay}],
        kind=config.optimizer,
        lr=config.lr,
    )
    taken: list[Trained] = []
    found = run.checkpoint_latest()
    if found is None:
        watch.begin(run, config, model)
    else:
        values = training_state_load(found[1], model=model, optimizer=optimizer)
        taken = [Trained(*one) for one in values["taken"]]
        watch.restore(values["watch"])
        print(f"going on after step {len(taken)}", flush=True)
    run.progress(len(taken), len(plan), "steps")
    for number in range(len(taken), len(plan)):
        started = time.monotonic()
        lr = learning_rate(number, steps=len(plan), config=config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        own = [lessons[place] for place in plan[number].lessons]
        learnt_tokens = sum(lesson.taught_tokens for lesson in own)
        tokens = sum(lesson.group.tokens for lesson in own)
        budget_tokens = processes.budget_tokens(config.budget_tokens, tokens)
        rows = pack([lesson.group for lesson in own], budget_tokens)
        loss_sum = right_sum = 0.0
        for row, weight in processes.share(rows, cost=lambda row: row.tokens):
            of_row = [own[index] for index in row.indices]
            with precision(config):
                loss, right = processes.forward(row_loss, model, row, of_row)
            (weight * loss / learnt_tokens).backward()
            loss_sum += weight * loss.item()
            right_sum += weight * right.item()
        processes.gradients_sum(weights)
        norm = float(processes.gradients_clip(weights, config.max_grad_norm))
        figures = processes.sum({"loss": loss_sum, "right": right_sum})
        loss_sum, right_sum = figures["loss"], int(figures["right"])
        seconds = time.monotonic() - started
        taken.append(Trained(loss_sum, right_sum, learnt_tokens, tokens, norm, seconds))
        run.metric(
            number + 1,
            {
                "loss": taken[-1].loss,
                "token_accuracy": right_sum / learnt_tokens,
                "grad_norm": norm,
                "lr": lr,
                "tokens_per_s": tokens / seconds,
            },
        )
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
                floor=_NORM_FLOOR,
            ),
        )
        optimizer.step()
        optimizer.zero_grad()
        watch.look(run, len(taken), len(plan), config, model)
        run.progress(len(taken), len(plan), "steps")
        if len(taken) % config.checkpoint_every_steps == 0 and len(taken) < len(plan):
            values = {
                "taken": [list(astuple(one)) for one in taken],
                "watch": watch.state(),
            }
            run.checkpoint_publish(
                len(taken),
                lambda folder, values=values: training_state_save(
                    folder, model=model, optimizer=optimizer, values=values
                ),
            )
    return taken


def epochs_describe(taken: Sequence[Trained], plan: Sequence[Step]) -> list[dict[str, float]]:
    """Each epoch's mean loss (nats per learnt token) and share of tokens that were likeliest."""
    described = []
    for epoch in range(plan[-1].epoch + 1):
        own = [one for one, step in zip(taken, plan, strict=True) if step.epoch == epoch]
        tokens = sum(one.learnt_tokens for one in own)
        described.append(
            {
                "loss": sum(one.loss_sum for one in own) / tokens,
                "token_accuracy": sum(one.right for one in own) / tokens,
            }
        )
    return described


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def demonstrations_read(run: RunDir, config: SftConfig) -> list[Conversation]:
    """The conversations of every input that holds demonstrations."""
    roles = [role for role in run.input_roles() if role.startswith("demonstrations")]
    return [
        one for role in roles for one in conversations_read(run.input(role), config.split_shares)
    ]


def lessons_split(
    given: Sequence[Conversation], config: SftConfig, tokenizer: Any, *, max_tokens: int
) -> dict[str, Lessons]:
    """The conversations as lessons, by split; what is left out, and why, goes into the log.

    Raises RefusedError if nothing is to be learnt.
    """
    by_split: dict[str, list[Conversation]] = {"train": [], "validation": [], "held_out": []}
    for one in given:
        by_split[one.split].append(one)
    weighted = sum(one.weight != 1.0 for one in given)
    if weighted:
        print(f"{weighted} demonstrations carry a weight; all are learnt alike", flush=True)
    made = {}
    for split, conversations in by_split.items():
        if split != "train" and not conversations:
            continue
        made[split] = lessons_make(
            conversations,
            tokenizer,
            max_tokens=max_tokens,
            loss_turns=config.loss_turns,
            end_of_session=config.end_of_session,
        )
        own = made[split]
        if split == "train" and not own.lessons:
            raise RefusedError(
                f"none of {len(conversations)} demonstrations can be learnt from: "
                f"{len(own.too_long)} longer than {max_tokens} tokens, {len(own.empty)} empty, "
                f"{len(own.unanswered)} without an answer to a question"
            )
        for reason in ("too_long", "empty", "unanswered"):
            ids = getattr(own, reason)
            if ids:
                name = reason.replace("_", " ")
                print(f"{split}: {len(ids)} left out as {name}: {' '.join(ids)}", flush=True)
    return made


def choice_make(
    run: RunDir,
    config: SftConfig,
    model: Any,
    validation: Sequence[Lesson],
    tokenizer: Any,
    processes: Processes,
    *,
    context_tokens: int,
) -> RewardChoice | None:
    """What chooses the step that is published, if a reward model is given to choose by.

    Raises RefusedError where it could not choose, or reads other tokens than the policy writes.
    """
    if not run.has_input("reward"):
        return None
    if not config.evaluate_every_steps:
        raise RefusedError("the input reward chooses among steps: set evaluate_every_steps")
    if not validation:
        raise RefusedError(
            "the input reward chooses a step by answers to validation prompts, and none of the "
            "demonstrations is on the validation side"
        )
    reward = model_input(run, "reward")
    reader_check(tokenizer, reward.whole, "reward")
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    # An answer, its end, and the token at which some reward models read.
    room = min(context_tokens, model_context(reward))
    room -= config.choice_tokens + 2
    prompts = [one.group.prompt_T for one in validation if len(one.group.prompt_T) <= room]
    if not prompts:
        raise RefusedError(
            f"no validation prompt has at most {room} tokens, which is what the smaller context of "
            f"policy and reward model leaves beside choice_tokens ({config.choice_tokens})"
        )
    if len(prompts) < len(validation):
        left_out = len(validation) - len(prompts)
        print(f"{left_out} validation prompts are too long to choose a step by", flush=True)
    best = BestStep(run, weights, processes)
    return RewardChoice(best, reward, prompts, tokenizer, config, processes)


def publish(
    run: RunDir,
    config: SftConfig | PreferenceSettings,
    model: Any,
    given: ModelInput,
    tokenizer: Any,
) -> dict[str, Any]:
    """Write the output, and say what it is: a model, or the adapter by itself."""
    if config.publish == "adapter":
        return adapter_publish(run, model, given)
    merged = trained_merge(model).cpu()
    weights_check(merged)
    weights_round(merged, seed=config.seed)
    folder = run.output("model")
    model_save(merged, tokenizer, folder)
    facts = model_directory_check(folder)
    return {
        "architecture": facts.architecture,
        "context_tokens": facts.context_tokens,
        "chat_template": facts.chat_template,
        "parameters": facts.parameters,
        "dtype": facts.dtype,
    }


def main(run: RunDir) -> None:
    config = run.config(SftConfig)
    given, tokenizer, context_tokens = base_open(run, config)
    session_end_add(tokenizer, config)
    max_tokens = min(config.max_tokens, context_tokens)
    lessons = lessons_split(
        demonstrations_read(run, config), config, tokenizer, max_tokens=max_tokens
    )
    learnt = lessons["train"]
    plan = steps_plan(
        [len(lesson.taught) for lesson in learnt.lessons],
        epochs=config.epochs,
        examples_per_step=config.examples_per_step,
        seed=config.seed,
    )
    print(f"{learnt.conversations} examples, {len(plan)} steps", flush=True)
    processes = processes_start()
    torch.manual_seed(config.seed)
    model = policy_load(given, config, tokenizer)
    ending_tell(model, tokenizer)
    processes.prepare(model)
    model.to(processes.device)
    seen = {split: own.lessons[: config.evaluate_at_most] for split, own in lessons.items()}
    asked = (seen.get("validation") or seen["train"])[: config.sample_prompts]
    choice = choice_make(
        run,
        config,
        model,
        seen.get("validation", []),
        tokenizer,
        processes,
        context_tokens=context_tokens,
    )
    watch = Watch(
        validation=seen.get("validation", []),
        held_out=seen.get("held_out", []),
        prompts=[lesson.group.prompt_T for lesson in asked],
        tokenizer=tokenizer,
        processes=processes,
        choice=choice,
    )
    taken = train(run, config, model, learnt.lessons, plan, watch, processes)
    compared = watch.end(run, len(plan), config, model)
    model = processes.gather(model, lambda: policy_load(given, config, tokenizer))
    if model is None:
        return  # the first rank publishes
    left_out = Counter(
        reason
        for own in lessons.values()
        for reason in ("too_long", "empty", "unanswered")
        for _ in getattr(own, reason)
    )
    facts = publish(run, config, model, given, tokenizer)
    output = config.output
    run.succeed(
        outputs={output: output},
        result={
            **facts,
            "prompts": len(learnt.lessons),
            "examples": learnt.conversations,
            "too_long": left_out["too_long"],
            "empty": left_out["empty"],
            "unanswered": left_out["unanswered"],
            "steps": len(plan),
            "epochs": epochs_describe(taken, plan),
            "learnt_tokens": sum(one.learnt_tokens for one in taken),
            "tokens_per_s": sum(one.tokens for one in taken) / sum(one.seconds for one in taken),
            **compared,
            **({"samples": watch.samples} if watch.samples else {}),
        },
    )


if __name__ == "__main__":
    program_run(main)
