"""Pairs of answers to random prompts, and the way a method on them is measured beside TRL's.

The same pairs of random tokens for both: prompts twice as long as answers. Forward, backward, AdamW
in float32, or on a GPU in bfloat16, without gradient checkpointing, clipping or logging. A
reference's log-probabilities are computed beforehand by both, and not timed. TRL pads in the size
of micro-batch that is fastest here; ours packs each step's pairs, prompt once, into rows of the
budget that is fastest here. TRL's steps and ours alternate, on as many pairs, so that another job
on the machine slows both alike.
"""

import argparse
import contextlib
import copy
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from statistics import median
from typing import Any, Protocol

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset
from transformers import PrinterCallback

from alignment.ml.data import RankedGroup, Ranking
from alignment.ml.shared_prefix import Group, attach
from benchmarks.bench_training.sft import model_make
from benchmarks.peers import (
    BARE_TRAINER,
    DEVICE,
    DTYPE,
    Stopwatch,
    clock,
    mfu,
    smollm2_unpacked,
    tokenizer_make,
)
from modelhub.ml.allocator import memory_keep
from modelhub.ml.parallel import Processes, processes_start

PROMPT_TOKENS, ANSWER_TOKENS = (128, 256), (64, 128)
BUDGETS, MICRO_BATCHES = (512, 1024, 2048), (2, 4, 8)  # tokens of a row; pairs
PER_STEP, STEPS = 8, 6  # pairs, steps; the first is not counted
LR = 1e-6


def model_ready(model: Any) -> Processes:
    """Make a model ready for shared rows, where it computes; the one process that trains it."""
    processes = processes_start()
    attach(model.to(processes.device))
    model.train()
    return processes


class Ours:
    """A model of ours with its optimizer, over pairs that it knows."""

    def __init__(self, model: Any, gradients: Callable[[range], float]) -> None:
        """gradients: of the pairs at some places; returns their loss."""
        self._gradients = gradients
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)

    def step(self, places: range) -> tuple[float, float]:
        """One training step on these pairs: (loss, seconds)."""
        started = clock()
        loss = self._gradients(places)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss, clock() - started


class TrlTrain(Protocol):
    """Optimizer steps of `PER_STEP` pairs by TRL's trainer."""

    def __call__(
        self,
        model: Any,
        groups: list[RankedGroup],
        *,
        micro_batch: int,
        steps: int,
        watch: Stopwatch,
    ) -> float:
        """micro_batch: in pairs. Returns the mean loss of the steps."""


def trl_loss(
    trainer: Any,
    settings: Any,
    model: Any,
    rows: Dataset,
    watch: Stopwatch,
    *,
    micro_batch: int,
    steps: int,
    rows_each: int = 1,
    **own: Any,
) -> float:
    """Train by a trainer of TRL's, with settings of its class and its own among them.

    micro_batch: in pairs; rows_each: of a pair. Returns the mean loss of the steps.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        made = trainer(
            model=model,
            args=settings(
                output_dir=folder,
                per_device_train_batch_size=rows_each * micro_batch,
                gradient_accumulation_steps=PER_STEP // micro_batch,
                max_steps=steps,
                learning_rate=LR,
                **own,
                **BARE_TRAINER,
            ),
            train_dataset=rows,
            processing_class=tokenizer_make(),
            callbacks=[watch],
        )
        made.remove_callback(PrinterCallback)
        return float(made.train().training_loss)


def groups_draw(vocabulary: int, count: int) -> list[RankedGroup]:
    draw = random.Random(0)

    def tokens(bounds: tuple[int, int]) -> list[int]:
        return [draw.randrange(2, vocabulary) for _ in range(draw.randint(*bounds))]

    return [
        RankedGroup(
            prompt_id=str(number),
            split="train",
            group=Group(tokens(PROMPT_TOKENS), [tokens(ANSWER_TOKENS), tokens(ANSWER_TOKENS)]),
            texts_K=("better", "worse"),
            rankings=(Ranking(tiers=((0,), (1,))),),
        )
        for number in range(count)
    ]


def measure(
    method: str,
    about: str,
    *,
    ours_make: Callable[[Any, list[RankedGroup], int], Ours],
    trl_train: TrlTrain,
    aimed_at: float,
    same_loss: bool = True,
) -> None:
    """Print one JSON line: pairs a second of both.

    ours_make: of a model, the pairs and the tokens of a row. same_loss: both compute one loss, and
    those of the first step, where both have the same weights, are compared.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", choices=["llama-h256-l6", "smollm2-135m"], default=None)
    name = parser.parse_args().model or "llama-h256-l6"
    memory_keep()
    with smollm2_unpacked(name == "smollm2-135m") as smollm2:
        start = model_make(name, smollm2)
        groups = groups_draw(start.config.vocab_size, PER_STEP * STEPS)
        first = groups[:PER_STEP]

        seconds: dict[str, dict[int, float]] = {"ours": {}, "trl": {}}
        for budget in BUDGETS:
            ours = ours_make(copy.deepcopy(start), first, budget)
            seconds["ours"][budget] = [ours.step(range(PER_STEP)) for _ in range(2)][-1][1]
        for micro_batch in MICRO_BATCHES:
            watch = Stopwatch()
            trl_train(
                copy.deepcopy(start), first * 2, micro_batch=micro_batch, steps=2, watch=watch
            )
            seconds["trl"][micro_batch] = watch.seconds[-1]
        print(f"    seconds a step by size: {seconds}", file=sys.stderr, flush=True)
        best = {side: min(own, key=lambda size: own[size]) for side, own in seconds.items()}

        difference = {}
        if same_loss:
            theirs = trl_train(
                copy.deepcopy(start), first, micro_batch=best["trl"], steps=1, watch=Stopwatch()
            )
            loss, _ = ours_make(copy.deepcopy(start), first, best["ours"]).step(range(PER_STEP))
            difference = {"loss_difference": float(f"{abs(loss - theirs) / theirs:.1e}")}
        ours = ours_make(copy.deepcopy(start), groups, best["ours"])
        took: list[float] = []

        def between() -> None:
            at = len(took) * PER_STEP
            took.append(ours.step(range(at, at + PER_STEP))[1])

        watch = Stopwatch(between)
        trl_train(copy.deepcopy(start), groups, micro_batch=best["trl"], steps=STEPS, watch=watch)
        ours_rate = PER_STEP / median(took[1:])
        tokens = sum(one.group.tokens for one in groups)
        trl_rate = PER_STEP / median(watch.seconds[1:])
    print(
        json.dumps(
            {
                "method": method,
                "model": name,
                "ours_pairs_per_s": round(ours_rate, 2),
                "trl_pairs_per_s": round(trl_rate, 2),
                "ratio": round(ours_rate / trl_rate, 2),
                "aimed_at": aimed_at,
                "device": DEVICE.type,
                "dtype": DTYPE,
                "mfu": mfu(start, ours_rate * tokens / len(groups)),
                "ours_row_tokens": best["ours"],
                "trl_micro_batch": best["trl"],
                **difference,
            }
        )
    )
