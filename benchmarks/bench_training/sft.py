"""Fine-tuning, packed, against TRL's SFTTrainer, packed: tokens a second.

    python -m benchmarks.bench_training.sft                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.sft --model smollm2-135m

The same conversations of random tokens for both: questions of 32 to 192, answers of 32 to 192, loss
on the answers; forward, backward, AdamW, without gradient checkpointing, clipping or logging, on
all cores in float32, or on a GPU in bfloat16. TRL packs them once, ahead, best fit decreasing
("bfd"), into rows of the length that is fastest here, one row a forward pass; its loss is the
chunked one that is its default. Ours packs each step's conversations into rows of the budget that
is fastest here. Tokens are those of conversations, never padding.

TRL's steps and ours alternate, of about as many tokens each, so that another job on the machine
slows both alike. Of the first step, where both have the same weights and conversations, the losses
are compared. One JSON line on standard output.
"""

import argparse
import contextlib
import copy
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback
from trl import SFTConfig, SFTTrainer

from alignment.ml.conversations import Lesson
from alignment.ml.sft import row_loss
from alignment.ml.shared_prefix import Group, attach, pack
from benchmarks.peers import (
    BARE_TRAINER,
    DEVICE,
    DTYPE,
    LLAMA_SHAPE,
    Stopwatch,
    clock,
    mfu,
    products,
    smollm2_unpacked,
    tokenizer_make,
)
from modelhub.ml.allocator import memory_keep

AIMED_AT = 1.0
LENGTHS = (32, 192)
ROWS = (512, 1024, 2048)
PER_STEP, STEPS = 16, 7  # conversations, steps of an epoch; the first is not counted
LR = 1e-5


def lessons_draw(vocabulary: int, count: int) -> list[Lesson]:
    draw = random.Random(0)

    def tokens() -> list[int]:
        return [draw.randrange(2, vocabulary) for _ in range(draw.randint(*LENGTHS))]

    groups = [Group(tokens(), [tokens()]) for _ in range(count)]
    return [Lesson(group, [[True] * len(group.answers[0])]) for group in groups]


def dataset_make(lessons: list[Lesson]) -> Dataset:
    groups = [lesson.group for lesson in lessons]
    return Dataset.from_dict(
        {
            "input_ids": [group.prompt_T + group.answers[0] for group in groups],
            "labels": [[-100] * len(group.prompt_T) + group.answers[0] for group in groups],
        }
    )


def model_make(name: str, smollm2: Path | None) -> Any:
    torch.manual_seed(0)
    if smollm2 is not None:
        from modelhub.ml.checkpoint import model_load

        return model_load(smollm2, dtype="float32")
    return LlamaForCausalLM(LlamaConfig(**LLAMA_SHAPE, max_position_embeddings=2048))


class Ours:
    """A model, its optimizer, and steps on conversations."""

    def __init__(self, model: Any, budget_tokens: int) -> None:
        self.model, self.budget_tokens = model, budget_tokens
        attach(self.model.to(DEVICE))
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, fused=True)

    def step(self, lessons: list[Lesson]) -> tuple[float, float, int]:
        """One training step: (loss in nats per learnt token, seconds, tokens)."""
        started = clock()
        learnt = sum(lesson.taught_tokens for lesson in lessons)
        loss_sum = tokens = 0.0
        for row in pack([lesson.group for lesson in lessons], self.budget_tokens):
            with products():
                loss, _ = row_loss(self.model, row, [lessons[index] for index in row.indices])
            (loss / learnt).backward()
            loss_sum += loss.item()
            tokens += row.tokens
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss_sum / learnt, clock() - started, int(tokens)


def trl_train(
    model: Any, lessons: list[Lesson], *, row: int, rows: int, steps: int, watch: Stopwatch
) -> tuple[float, int]:
    """`steps` optimizer steps of `rows` packed rows. Returns (mean loss, tokens in the rows)."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        settings = SFTConfig(
            output_dir=folder,
            packing=True,
            packing_strategy="bfd",
            max_length=row,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=rows,
            max_steps=steps,
            learning_rate=LR,
            **BARE_TRAINER,
        )
        trainer = SFTTrainer(
            model=model,
            args=settings,
            train_dataset=dataset_make(lessons),
            processing_class=tokenizer_make(),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        tokens = sum(map(len, trainer.train_dataset["input_ids"]))
        packed = len(trainer.train_dataset)
        found = trainer.train()
    return float(found.training_loss), round(tokens / packed * rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=["llama-h256-l6", "smollm2-135m"], default=None)
    name = parser.parse_args().model or "llama-h256-l6"
    memory_keep()
    with smollm2_unpacked(name == "smollm2-135m") as smollm2:
        start = model_make(name, smollm2)
        vocabulary = start.config.vocab_size
        first = lessons_draw(vocabulary, PER_STEP)

        rates: dict[str, dict[int, float]] = {"ours": {}, "trl": {}}
        for row in ROWS:
            ours = Ours(copy.deepcopy(start), row)
            seconds = [ours.step(first)[1:] for _ in range(2)][-1]
            rates["ours"][row] = seconds[1] / seconds[0]
            watch = Stopwatch()
            rows = max(1, round(sum(one.group.tokens for one in first) / row))
            _, tokens = trl_train(
                copy.deepcopy(start), first * 2, row=row, rows=rows, steps=2, watch=watch
            )
            rates["trl"][row] = tokens / watch.seconds[-1]
            told = {side: round(own[row]) for side, own in rates.items()}
            print(f"    rows of {row}: tokens a second {told}", file=sys.stderr, flush=True)
        best = {side: max(own, key=lambda row: own[row]) for side, own in rates.items()}

        # The same conversations in one step of both: one row holds them all.
        ours = Ours(copy.deepcopy(start), best["ours"])
        whole = sum(one.group.tokens for one in first)
        theirs, _ = trl_train(
            copy.deepcopy(start), first, row=whole, rows=1, steps=1, watch=Stopwatch()
        )
        difference = abs(ours.step(first)[0] - theirs) / theirs

        lessons = lessons_draw(vocabulary, PER_STEP * STEPS)
        found: list[float] = []
        turn = iter(range(STEPS))

        def between() -> None:
            at = next(turn) * PER_STEP
            _, seconds, tokens = ours.step(lessons[at : at + PER_STEP])
            found.append(tokens / seconds)

        watch = Stopwatch(between)
        rows = max(1, round(whole / best["trl"]))
        _, tokens = trl_train(
            copy.deepcopy(start), lessons, row=best["trl"], rows=rows, steps=STEPS, watch=watch
        )
        ours_rate = median(found[1:])
        trl_rate = median(tokens / seconds for seconds in watch.seconds[1:])
    print(
        json.dumps(
            {
                "method": "sft",
                "model": name,
                "ours_tokens_per_s": round(ours_rate, 1),
                "trl_tokens_per_s": round(trl_rate, 1),
                "ratio": round(ours_rate / trl_rate, 2),
                "aimed_at": AIMED_AT,
                "device": DEVICE.type,
                "dtype": DTYPE,
                "mfu": mfu(start, ours_rate),
                "ours_row_tokens": best["ours"],
                "trl_row_tokens": best["trl"],
                "loss_difference": float(f"{difference:.1e}"),
            }
        )
    )


if __name__ == "__main__":
    main()
