"""Distillation: a student learns what a teacher says, at every token of an answer.

    loss = Σ_k Σ_t m_kt [ λ T² D(p_kt, q_kt) − (1 − λ) log q¹_kt(y_kt) ] / Σ_k Σ_t m_kt

p is the teacher's distribution of the next token at temperature T, q the student's, q¹ that at
temperature 1, D their divergence (`losses.token_divergence`: forward or reverse KL, or between),
λ `logits_share`. T² keeps the gradients' size as the temperature rises (Hinton et al. 2015,
arXiv:1503.02531, section 2). m is 1 on what the assistant says, as in fine-tuning (`sft`), whose
conversations, packing, schedule and adapters these are.

The text is demonstrations, or the teacher's own answers (`modelhub.ml.generate`): a distribution is
learnt best where the teacher would go itself (Kim and Rush 2016, arXiv:1606.07947; they learn the
samples alone, λ = 0). With λ = 0 no teacher is needed; one that is given is only measured against.

The teacher must have the student's vocabulary (`teacher.vocabulary_check`). It is asked at every
step, or once before the first, its likeliest tokens kept (`teacher_top_k`).

Killed and started again it goes on to the same losses and weights, as fine-tuning does.

By hand: `python -m alignment.ml.distill RUN_DIR`.

Legend: S learnt tokens of a row.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch

from alignment.ml.adapters import base_open, ending_tell
from alignment.ml.configs import DistillConfig
from alignment.ml.contests import contests_make
from alignment.ml.conversations import Conversation, Lesson, Lessons
from alignment.ml.sft import (
    Step,
    demonstrations_read,
    learning_rate,
    lessons_split,
    policy_load,
    publish,
    steps_plan,
)
from alignment.ml.shared_prefix import pack
from alignment.ml.student import (
    AnyTeacher,
    divergence_mean,
    divergences_compare,
    divergences_hear,
    row_losses,
)
from alignment.ml.teacher import Teacher, teacher_keep, vocabulary_check
from alignment.ml.validation import Watch, precision
from annotation.splits import group_hash, split_of
from modelhub.ml.adapter import ModelInput, model_context, model_input
from modelhub.ml.checkpoint import tokenizer_load, training_state_load, training_state_save
from modelhub.ml.configs import RefusedError
from modelhub.ml.divergence import divergence_stop, rise_reason
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.optimizers import optimizer_make
from modelhub.ml.parallel import Processes, processes_start
from modelhub.ml.records import CandidateRecord, PromptRecord, records_read
from modelhub.ml.rundir import RunDir, program_run

_LOSS_FLOOR_NATS = 0.1  # per token: below it a tenfold rise of the loss is no divergence
_NORM_FLOOR = 0.01


# ── the text ─────────────────────────────────────────────────────────────────────────────────────


def answers_read(run: RunDir, config: DistillConfig) -> list[Conversation]:
    """The teacher's answers of the inputs `candidates` and `prompts`; none where there are none.

    A prompt is on the side that its words say, as it is everywhere: what was sampled for a prompt
    to validate on is not learnt. An answer that was cut off is learnt without an end.
    """
    if not run.has_input("candidates"):
        return []
    if not run.has_input("prompts"):
        raise RefusedError("candidates are answers to prompts: give the prompts they answer too")
    contests = contests_make(
        records_read(run.input("prompts") / "prompts.jsonl", PromptRecord),
        records_read(run.input("candidates") / "candidates.jsonl", CandidateRecord),
        {},
        batch="",
    )
    return [
        Conversation(
            id=one.prompt_id,
            messages=[*one.messages, {"role": "assistant", "content": answer.text}],
            written_from=len(one.messages),
            finish_reason=answer.finish_reason,
            split=split_of(group_hash(one.messages), config.split_shares),
        )
        for one in contests
        for answer in one.answers
    ]


# ── the loop ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Distilled:
    """Sums over the learnt tokens of one step, as the checkpoint keeps them."""

    divergence_sum: float  # nats, at the run's temperature
    label_sum: float  # nats
    right: int  # tokens that were the student's likeliest
    learnt_tokens: int
    tokens: int  # that went through the student: beginnings once, questions and answers
    loss: float  # what was stepped on, nats per token
    grad_norm: float  # before it was clipped
    seconds: float


def train(
    run: RunDir,
    config: DistillConfig,
    model: Any,
    lessons: Sequence[Lesson],
    plan: Sequence[Step],
    watch: "DistillWatch",
    processes: Processes,
) -> list[Distilled]:
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
    asked = watch.teacher if config.logits_share else None
    of_logits = config.logits_share * config.temperature**2
    of_labels = 1 - config.logits_share
    taken: list[Distilled] = []
    found = run.checkpoint_latest()
    if found is None:
        watch.begin(run, config, model)
    else:
        values = training_state_load(found[1], model=model, optimizer=optimizer)
        taken = [Distilled(*one) for one in values["taken"]]
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
        sums = {"divergence": 0.0, "label": 0.0, "right": 0.0}
        for row, weight in processes.share(rows, cost=lambda row: row.tokens):
            of_row = [own[index] for index in row.indices]
            said = None if asked is None else asked.row_said(row, of_row)
            with precision(config):
                divergence_S, label_S, right_S = processes.forward(
                    row_losses, model, row, of_row, said, config.mixture
                )
            divergence, label = divergence_S.sum(), label_S.sum()
            loss = of_logits * divergence + of_labels * label
            (weight * loss / learnt_tokens).backward()
            sums["divergence"] += weight * divergence.item()
            sums["label"] += weight * label.item()
            sums["right"] += weight * right_S.sum().item()
        processes.gradients_sum(weights)
        norm = float(processes.gradients_clip(weights, config.max_grad_norm))
        sums = processes.sum(sums)
        seconds = time.monotonic() - started
        taken.append(
            Distilled(
                divergence_sum=sums["divergence"],
                label_sum=sums["label"],
                right=int(sums["right"]),
                learnt_tokens=learnt_tokens,
                tokens=tokens,
                loss=(of_logits * sums["divergence"] + of_labels * sums["label"]) / learnt_tokens,
                grad_norm=norm,
                seconds=seconds,
            )
        )
        run.metric(number + 1, step_figures(taken[-1], lr=lr, asked=asked is not None))
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


def step_figures(step: Distilled, *, lr: float, asked: bool) -> dict[str, float]:
    """A step on the run's page: nats per learnt token."""
    return {
        "loss": step.loss,
        **({"divergence": step.divergence_sum / step.learnt_tokens} if asked else {}),
        "label_loss": step.label_sum / step.learnt_tokens,
        "token_accuracy": step.right / step.learnt_tokens,
        "grad_norm": step.grad_norm,
        "lr": lr,
        "tokens_per_s": step.tokens / step.seconds,
    }


def epochs_describe(
    taken: Sequence[Distilled], plan: Sequence[Step], *, asked: bool
) -> list[dict[str, float]]:
    """Each epoch's means per learnt token: divergence and loss of the tokens in nats, accuracy."""
    described = []
    for epoch in range(plan[-1].epoch + 1):
        own = [one for one, step in zip(taken, plan, strict=True) if step.epoch == epoch]
        tokens = sum(one.learnt_tokens for one in own)
        divergence = sum(one.divergence_sum for one in own) / tokens
        described.append(
            {
                **({"divergence": divergence} if asked else {}),
                "label_loss": sum(one.label_sum for one in own) / tokens,
                "token_accuracy": sum(one.right for one in own) / tokens,
            }
        )
    return described


class DistillWatch:
    """What is looked at beside training: the tokens' loss as in fine-tuning (`Watch`), and how far
    the student is from the teacher on the validation and the held-out split."""

    def __init__(
        self, watch: Watch, teacher: AnyTeacher | None, seen: dict[str, Sequence[Lesson]]
    ) -> None:
        self._watch, self.teacher = watch, teacher
        self._seen = {name: own for name, own in seen.items() if teacher is not None and own}
        self._before: dict[str, list[tuple[float, int]]] = {}

    @property
    def samples(self) -> list[dict[str, Any]]:
        return self._watch.samples

    def begin(self, run: RunDir, config: DistillConfig, model: Any) -> None:
        """The student before it has learnt anything."""
        self._watch.begin(run, config, model)
        self._before = {name: self._hear(name, config, model) for name in self._seen}
        if "validation" in self._before:
            run.metric(0, {"validation_divergence": divergence_mean(self._before["validation"])})

    def look(self, run: RunDir, step: int, steps: int, config: DistillConfig, model: Any) -> None:
        """After a step: what is due then. Steps count from 1."""
        self._watch.look(run, step, steps, config, model)
        every = config.evaluate_every_steps
        if "validation" in self._seen and every and step % every == 0 and step < steps:
            heard = self._hear("validation", config, model)
            run.metric(step, {"validation_divergence": divergence_mean(heard)})

    def end(self, run: RunDir, steps: int, config: DistillConfig, model: Any) -> dict[str, Any]:
        """Each split before and after training."""
        found = self._watch.end(run, steps, config, model)
        for name in self._seen:
            after = self._hear(name, config, model)
            if name == "validation":
                run.metric(steps, {"validation_divergence": divergence_mean(after)})
            found[name] |= divergences_compare(self._before[name], after, config)
        return found

    def _hear(self, name: str, config: DistillConfig, model: Any) -> list[tuple[float, int]]:
        """Every process hears them all, as fine-tuning does."""
        with precision(config):
            heard: list[tuple[float, int]] = self._watch.processes.forward(
                divergences_hear, model, self._seen[name], self.teacher, config
            )
        return heard

    def state(self) -> dict[str, Any]:
        """As JSON values, for a checkpoint."""
        before = {name: [list(one) for one in own] for name, own in self._before.items()}
        return {"watch": self._watch.state(), "before": before}

    def restore(self, state: dict[str, Any]) -> None:
        self._watch.restore(state["watch"])
        self._before = {
            name: [(nats, tokens) for nats, tokens in own] for name, own in state["before"].items()
        }


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def teacher_given(run: RunDir, config: DistillConfig) -> ModelInput | None:
    """The teacher's files, or None for a run on samples alone. Raises RefusedError if it is asked
    for logits and is none, or is no language model, and for settings that only a teacher has use
    for."""
    if not run.has_input("teacher"):
        if config.logits_share:
            raise RefusedError(
                "there is no teacher: give one, or learn its samples alone (logits_share 0)"
            )
        for name in ("teacher_top_k", "temperature", "divergence"):
            if getattr(config, name) != getattr(DistillConfig, name):
                raise RefusedError(
                    f"there is no teacher, and {name} is about its logits: leave it at "
                    f"{getattr(DistillConfig, name)}, or give the teacher"
                )
        return None
    given = model_input(run, "teacher")
    facts = model_directory_check(given.whole)
    if facts.role != "causal":
        raise RefusedError(f"the teacher is a {facts.architecture}: it scores answers, it has none")
    return given


def teacher_prepare(
    run: RunDir,
    config: DistillConfig,
    given: ModelInput,
    student: Any,
    lessons: Sequence[Lesson],
    device: torch.device,
) -> AnyTeacher:
    """The teacher, or what is kept of it. student: its tokenizer."""
    own = tokenizer_load(given.whole)
    vocabulary = vocabulary_check(student, own)
    if student.chat_template != own.chat_template:
        print(
            "the teacher has another chat template than the student: it reads the student's, which "
            "it was not trained with",
            flush=True,
        )
    if config.teacher_top_k > vocabulary:
        raise RefusedError(f"teacher_top_k: the vocabulary has {vocabulary} tokens")
    teacher = Teacher(given, config, vocabulary).to(device)
    if not config.teacher_top_k:
        return teacher
    return teacher_keep(run, teacher, lessons, config, vocabulary).to(device)


def main(run: RunDir) -> None:
    config = run.config(DistillConfig)
    given, tokenizer, context_tokens = base_open(run, config)
    max_tokens = min(config.max_tokens, context_tokens)
    if (master := teacher_given(run, config)) is not None:
        max_tokens = min(max_tokens, model_context(master))
    conversations = [*demonstrations_read(run, config), *answers_read(run, config)]
    lessons: dict[str, Lessons] = lessons_split(
        conversations, config, tokenizer, max_tokens=max_tokens
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
    seen = {split: own.lessons[: config.evaluate_at_most] for split, own in lessons.items()}
    heard: dict[str, Sequence[Lesson]] = {
        split: seen.get(split, []) for split in ("validation", "held_out")
    }
    teacher = None
    if master is not None:
        every = [*learnt.lessons, *heard["validation"], *heard["held_out"]]
        teacher = teacher_prepare(run, config, master, tokenizer, every, processes.device)
    torch.manual_seed(config.seed)
    model = policy_load(given, config)
    ending_tell(model, tokenizer)
    processes.prepare(model)
    model.to(processes.device)
    asked = (seen.get("validation") or seen["train"])[: config.sample_prompts]
    watch = DistillWatch(
        Watch(
            validation=heard["validation"],
            held_out=heard["held_out"],
            prompts=[lesson.group.prompt_T for lesson in asked],
            tokenizer=tokenizer,
            processes=processes,
        ),
        teacher,
        heard,
    )
    taken = train(run, config, model, learnt.lessons, plan, watch, processes)
    compared = watch.end(run, len(plan), config, model)
    model = processes.gather(model, lambda: policy_load(given, config))
    if model is None:
        return  # the first rank publishes
    left_out = Counter(
        reason
        for own in lessons.values()
        for reason in ("too_long", "empty", "unanswered")
        for _ in getattr(own, reason)
    )
    facts = publish(run, config, model, given, tokenizer)
    output = config.publish if config.publish == "adapter" else "model"
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
            "epochs": epochs_describe(taken, plan, asked=config.logits_share > 0),
            "learnt_tokens": sum(one.learnt_tokens for one in taken),
            "tokens_per_s": sum(one.tokens for one in taken) / sum(one.seconds for one in taken),
            **compared,
            **({"samples": watch.samples} if watch.samples else {}),
        },
    )


if __name__ == "__main__":
    program_run(main)
