"""Direct preference optimisation on shared prompts against TRL's DPOTrainer: pairs a second.

    python -m benchmarks.bench_training.dpo                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.dpo --model smollm2-135m

The same pairs of random tokens for both: prompts twice as long as answers. Forward, backward, AdamW
in float32, or on a GPU in bfloat16, without gradient checkpointing, clipping or logging. The
reference's log-probabilities are computed beforehand by both, and not timed. TRL pads in the size
of micro-batch that is fastest here; ours packs each step's pairs, prompt once, into rows of the
budget that is fastest here.

TRL's steps and ours alternate, on as many pairs, so that another job on the machine slows both
alike. Of the first step, where both have the same weights, the losses are compared. One JSON line
on standard output.
"""

import argparse
import contextlib
import copy
import json
import os
import random
import sys
import tempfile
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig as TrlDpoConfig
from trl import DPOTrainer

from alignment.ml.configs import DpoConfig
from alignment.ml.data import RankedGroup, Ranking
from alignment.ml.dpo import step_gradients
from alignment.ml.preference import logprobs_of
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
from modelhub.ml.parallel import processes_start

AIMED_AT = 1.5
PROMPT_TOKENS, ANSWER_TOKENS = (128, 256), (64, 128)
BUDGETS, MICRO_BATCHES = (512, 1024, 2048), (2, 4, 8)
PER_STEP, STEPS = 8, 6  # pairs, steps; the first is not counted
LR, BETA = 1e-6, 0.1


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


class Ours:
    """A model, its optimizer, the reference of all groups, and steps on some of them."""

    def __init__(self, model: Any, groups: list[RankedGroup], budget_tokens: int) -> None:
        self.model, self.groups = model, groups
        self.config = DpoConfig(beta=BETA, budget_tokens=budget_tokens, dtype=DTYPE)
        self.processes = processes_start()
        attach(self.model.to(self.processes.device))
        self.model.train()
        own = [group.group for group in groups]
        self.reference = logprobs_of(self.model, own, self.config, self.processes)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, fused=True)

    def step(self, places: range) -> tuple[float, float]:
        """One training step: (loss in nats per pair, seconds)."""
        started = clock()
        figures, _ = step_gradients(
            self.model,
            [self.groups[place] for place in places],
            [self.reference[place] for place in places],
            self.config,
            self.processes,
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return figures["loss"], clock() - started


class Tokenized(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are tokens already."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def trl_train(
    model: Any, groups: list[RankedGroup], *, micro_batch: int, steps: int, watch: Stopwatch
) -> float:
    """`steps` optimizer steps of `PER_STEP` pairs. Returns the mean loss."""
    rows = Dataset.from_dict(
        {
            "prompt_ids": [one.group.prompt_T for one in groups],
            "chosen_ids": [one.group.answers[0] for one in groups],
            "rejected_ids": [one.group.answers[1] for one in groups],
        }
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        settings = TrlDpoConfig(
            output_dir=folder,
            beta=BETA,
            precompute_ref_log_probs=True,
            max_length=None,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=PER_STEP // micro_batch,
            max_steps=steps,
            learning_rate=LR,
            **BARE_TRAINER,
        )
        trainer = Tokenized(
            model=model,
            args=settings,
            train_dataset=rows,
            processing_class=tokenizer_make(),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        return float(trainer.train().training_loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=["llama-h256-l6", "smollm2-135m"], default=None)
    name = parser.parse_args().model or "llama-h256-l6"
    memory_keep()
    with smollm2_unpacked(name == "smollm2-135m") as smollm2:
        start = model_make(name, smollm2)
        groups = groups_draw(start.config.vocab_size, PER_STEP * STEPS)
        first = groups[:PER_STEP]

        seconds: dict[str, dict[int, float]] = {"ours": {}, "trl": {}}
        for budget in BUDGETS:
            ours = Ours(copy.deepcopy(start), first, budget)
            seconds["ours"][budget] = [ours.step(range(PER_STEP)) for _ in range(2)][-1][1]
        for micro_batch in MICRO_BATCHES:
            watch = Stopwatch()
            trl_train(
                copy.deepcopy(start), first * 2, micro_batch=micro_batch, steps=2, watch=watch
            )
            seconds["trl"][micro_batch] = watch.seconds[-1]
        print(f"    seconds a step by size: {seconds}", file=sys.stderr, flush=True)
        best = {side: min(own, key=lambda size: own[size]) for side, own in seconds.items()}

        theirs = trl_train(
            copy.deepcopy(start), first, micro_batch=best["trl"], steps=1, watch=Stopwatch()
        )
        ours = Ours(copy.deepcopy(start), groups, best["ours"])
        found: list[tuple[float, float]] = []
        turn = iter(range(STEPS))

        def between() -> None:
            at = next(turn) * PER_STEP
            found.append(ours.step(range(at, at + PER_STEP)))

        watch = Stopwatch(between)
        trl_train(copy.deepcopy(start), groups, micro_batch=best["trl"], steps=STEPS, watch=watch)
        ours_rate = PER_STEP / median(took for _, took in found[1:])
        tokens = sum(one.group.tokens for one in groups)
        trl_rate = PER_STEP / median(watch.seconds[1:])
    print(
        json.dumps(
            {
                "method": "dpo",
                "model": name,
                "ours_pairs_per_s": round(ours_rate, 2),
                "trl_pairs_per_s": round(trl_rate, 2),
                "ratio": round(ours_rate / trl_rate, 2),
                "aimed_at": AIMED_AT,
                "device": DEVICE.type,
                "dtype": DTYPE,
                "mfu": mfu(start, ours_rate * tokens / len(groups)),
                "ours_row_tokens": best["ours"],
                "trl_micro_batch": best["trl"],
                "loss_difference": float(f"{abs(found[0][0] - theirs) / theirs:.1e}"),
            }
        )
    )


if __name__ == "__main__":
    main()
