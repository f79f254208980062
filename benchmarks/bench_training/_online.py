"""A step of a method that learns from the answers it draws, beside TRL's trainer: what
`bench_training.rloo` and `bench_training.grpo` share.

The same answers of random tokens for both, prompts twice as long as answers, given instead of
drawn: sampling is timed by neither. Timed is all that a step then does: log-probabilities under the
policy as it was (TRL's GRPO takes them from its update) and under the reference, rewards,
advantages, forward, backward, AdamW, in float32 (on a GPU in bfloat16), without gradient
checkpointing, clipping or logging. TRL pads in the size of micro-batch that is fastest here; ours
packs each step's answers, prompt once, into rows of the budget that is fastest here.

TRL's steps and ours alternate, on as many answers, so that another job on the machine slows both
alike. Of the first step, where both have the same weights, the gradients are compared: its loss is
0 on both sides, as every ratio is 1 and a prompt's advantages add up to 0.
"""

import contextlib
import json
import random
import sys
import tempfile
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback

from alignment.ml.configs import OnlineSettings
from alignment.ml.online.batch import batch_make
from alignment.ml.online.updates import Learner
from alignment.ml.ppo.networks import actor_load, reference_load
from alignment.ml.ppo.rewards import Answers
from alignment.ml.shared_prefix import Group
from benchmarks.base_model import smollm2_prepare
from benchmarks.byte_tokenizer import byte_tokenizer
from benchmarks.peers import (
    BARE_TRAINER,
    DEVICE,
    DTYPE,
    LLAMA_SHAPE,
    Stopwatch,
    clock,
    tokenizer_make,
)
from modelhub.ml.allocator import memory_keep
from modelhub.ml.checkpoint import model_save

AIMED_AT = 1.5
MODELS = ("llama-h256-l6", "smollm2-135m")
PROMPT_TOKENS, ANSWER_TOKENS = (128, 256), (64, 128)
BUDGETS = (1024, 2048, 4096)
PROMPTS_PER_STEP, STEPS = 4, 5  # of the steps the first is not counted
LR, BETA = 1e-6, 0.05


def base_write(name: str, folder: Path) -> Path:
    """The policy to start from, and the reference: a directory."""
    if name == "smollm2-135m":
        return smollm2_prepare(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**LLAMA_SHAPE, max_position_embeddings=2048))
    model_save(model, byte_tokenizer(), folder, dtype="float32")
    return folder


def groups_draw(vocabulary: int, samples: int) -> list[Group]:
    """A prompt with `samples` answers for every place of every step."""
    draw = random.Random(0)

    def tokens(bounds: tuple[int, int]) -> list[int]:
        return [draw.randrange(2, vocabulary) for _ in range(draw.randint(*bounds))]

    return [
        Group(tokens(PROMPT_TOKENS), [tokens(ANSWER_TOKENS) for _ in range(samples)])
        for _ in range(PROMPTS_PER_STEP * STEPS)
    ]


def rewards(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Any rule that tells a prompt's answers apart: online DPO has no pair of equal ones."""
    return [sum(tokens) % 7 + tokens[0] / 1e5 for tokens in completion_ids]


class Gradients:
    """Those of every weight as the first step leaves them."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.found: dict[str, Tensor] = {}

    def take(self, *_: Any) -> None:
        if not self.found:
            own = self.model.named_parameters()
            self.found = {name: weight.grad.clone() for name, weight in own}

    def difference(self, other: "Gradients") -> float:
        """The largest distance of two gradients, as a share of the largest gradient."""
        largest = max(float(one.abs().max()) for one in other.found.values())
        apart = (self.found[name] - one for name, one in other.found.items())
        return max(float(one.abs().max()) for one in apart) / largest


class Ours:
    """The policy, its optimizer, the reference, and steps on some of the groups."""

    def __init__(
        self, method: ModuleType, base: Path, config: OnlineSettings, groups: list[Group]
    ) -> None:
        self.method, self.config, self.groups = method, config, groups
        actor, reference = actor_load(base, config), reference_load(base)
        self.learner = Learner(actor.to(DEVICE), reference.to(DEVICE), config)
        self.gradients = Gradients(self.learner.actor)
        self.learner._optimizer.register_step_pre_hook(self.gradients.take)

    def step(self, places: range) -> float:
        """One training step. Returns its seconds."""
        started = clock()
        groups = [self.groups[place] for place in places]
        answers = Answers(
            prompt_ids=[str(place) for place in places],
            groups=groups,
            judged=groups,
            texts=[[""] * len(group.answers) for group in groups],
            ended=[[True] * len(group.answers) for group in groups],
        )
        actor, reference = self.learner.actor, self.learner.reference
        batch, _ = batch_make(answers, actor=actor, reference=reference, config=self.config)
        scores = rewards([answer for group in groups for answer in group.answers])
        scores_BK = torch.tensor(scores).view(len(groups), -1)
        self.method.update(self.learner, batch, scores_BK, step=0, config=self.config)
        return clock() - started


def group_arguments(samples: int) -> dict[str, Any]:
    """Of TRL's configurations of RLOO and GRPO."""
    return {
        "beta": BETA,
        "num_generations": samples,
        "max_completion_length": max(ANSWER_TOKENS),
        "shuffle_dataset": False,
    }


def answers_given(trainer: type) -> type:
    """A TRL trainer whose answers are those of its `groups`; a prompt is a place among them."""

    class Given(trainer):  # type: ignore[misc]
        groups: list[Group]

        def _tokenize_prompts(
            self, prompts: list[str]
        ) -> tuple[list[list[int]], None, dict[str, Any]]:
            self._places = [int(prompt) for prompt in prompts]
            return [list(self.groups[place].prompt_T) for place in self._places], None, {}

        def _generate_single_turn(self, prompt_ids: list[list[int]], *more: Any) -> Any:
            waiting = {place: iter(self.groups[place].answers) for place in set(self._places)}
            found = [list(next(waiting[place])) for place in self._places]
            # GRPO's also asks for the engine's log-probabilities, and its number of generations.
            return (found, None) if len(more) > 2 else found

    return Given


def trl_train(
    trainer: type,
    config: type,
    base: Path,
    groups: list[Group],
    *,
    micro_batch: int,
    per_step: int,
    watch: Stopwatch,
    **settings: Any,
) -> Gradients:
    """A step for every `PROMPTS_PER_STEP` groups. Returns the first one's gradients.

    trainer: one that is given its answers. per_step: how many of what a micro-batch counts.
    """
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    gradients = Gradients(model)
    watch.before_update = gradients.take
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        own = trainer(
            model=model,
            reward_funcs=rewards,
            args=config(
                output_dir=folder,
                per_device_train_batch_size=micro_batch,
                gradient_accumulation_steps=per_step // micro_batch,
                max_steps=len(groups) // PROMPTS_PER_STEP,
                learning_rate=LR,
                **settings,
                **BARE_TRAINER,
            ),
            train_dataset=Dataset.from_list([{"prompt": str(n)} for n in range(len(groups))]),
            processing_class=tokenizer_make(),
            callbacks=[watch],
        )
        own.groups = groups
        own.remove_callback(PrinterCallback)
        own.train()
    return gradients


def measure(
    name: str,
    method: ModuleType,
    config: type[OnlineSettings],
    trainer: type,
    trl_config: type,
    *,
    model: str,
    micro_batches: tuple[int, ...],
    samples: int,
    ours_settings: dict[str, Any],
    trl_settings: dict[str, Any],
    per_step: int = 0,
) -> None:
    """The whole comparison: one JSON line on standard output.

    trainer: TRL's, given its answers. per_step: what TRL's micro-batches count, of a step; the
    answers if not given.
    """
    memory_keep()

    def settings(budget: int) -> OnlineSettings:
        return config(
            samples=samples,
            prompts_per_step=PROMPTS_PER_STEP,
            max_tokens=max(ANSWER_TOKENS),
            max_grad_norm=0.0,
            weight_decay=BARE_TRAINER["weight_decay"],
            lr=LR,
            budget_tokens=budget,
            dtype=DTYPE,
            **ours_settings,
        )

    def theirs(groups: list[Group], size: int, watch: Stopwatch) -> Gradients:
        return trl_train(
            trainer,
            trl_config,
            base,
            groups,
            micro_batch=size,
            per_step=per_step or PROMPTS_PER_STEP * samples,
            watch=watch,
            **trl_settings,
        )

    with tempfile.TemporaryDirectory() as folder:
        base = base_write(model, Path(folder) / "base")
        vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
        groups = groups_draw(vocabulary, samples)
        first = groups[:PROMPTS_PER_STEP]

        seconds: dict[str, dict[int, float]] = {"ours": {}, "trl": {}}
        for budget in BUDGETS:
            ours = Ours(method, base, settings(budget), first)
            seconds["ours"][budget] = [ours.step(range(PROMPTS_PER_STEP)) for _ in range(2)][-1]
        for size in micro_batches:
            watch = Stopwatch()
            theirs(first * 2, size, watch)
            seconds["trl"][size] = watch.seconds[-1]
        print(f"    seconds a step by size: {seconds}", file=sys.stderr, flush=True)
        best = {side: min(own, key=lambda size: own[size]) for side, own in seconds.items()}

        ours = Ours(method, base, settings(best["ours"]), groups)
        our_seconds: list[float] = []
        turn = iter(range(STEPS))

        def between() -> None:
            at = next(turn) * PROMPTS_PER_STEP
            our_seconds.append(ours.step(range(at, at + PROMPTS_PER_STEP)))

        watch = Stopwatch(between)
        gradients = theirs(groups, best["trl"], watch)
        ours_s, trl_s = median(our_seconds[1:]), median(watch.seconds[1:])
    print(
        json.dumps(
            {
                "method": name,
                "model": model,
                "answers_per_prompt": samples,
                "ours_s": round(ours_s, 3),
                "trl_s": round(trl_s, 3),
                "ratio": round(trl_s / ours_s, 2),
                "aimed_at": AIMED_AT,
                "device": DEVICE.type,
                "dtype": DTYPE,
                "ours_row_tokens": best["ours"],
                "trl_micro_batch": best["trl"],
                "gradient_difference": float(f"{ours.gradients.difference(gradients):.1e}"),
                "threads": torch.get_num_threads(),
            }
        ),
        flush=True,
    )
