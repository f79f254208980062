"""Fine-tuning steps with every layer compiled, beside the same steps without: seconds a step.

    python -m benchmarks.bench_training.compiled                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.compiled --model smollm2-135m
    BENCH_DTYPE=bfloat16 python -m benchmarks.bench_training.compiled --steps 40

The conversations, the step and the packing are those of `bench_training.sft`. Rows have all
lengths, so a layer is compiled once for all of them (`dynamic=True`); left out is the attention of
shared rows, a loop over stretches of its own.

Two copies of one model take the same steps in turns, so that another job on the machine slows both
alike; a step's time is the processor's on a CPU, the clock's on a GPU. The first steps compile:
what they took beyond the later ones is told, and after how many steps that is earned back. One JSON
line on standard output.
"""

import argparse
import copy
import json
import sys
import time
from statistics import median

import torch
from transformers import AttentionInterface

from alignment.ml.shared_prefix.attention import IMPLEMENTATION
from benchmarks.bench_training.sft import Ours, lessons_draw, model_make
from benchmarks.peers import DEVICE, DTYPE, clock, smollm2_unpacked
from modelhub.ml.allocator import memory_keep

AIMED_AT = 1.1
PER_STEP = 8  # conversations
BUDGET_TOKENS = 1024  # of a row
WARM_STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=["llama-h256-l6", "smollm2-135m"], default=None)
    parser.add_argument("--steps", type=int, default=20, help="counted, behind those that compile")
    given = parser.parse_args()
    name = given.model or "llama-h256-l6"
    memory_keep()
    with smollm2_unpacked(name == "smollm2-135m") as smollm2:
        start = model_make(name, smollm2)
    sides = {side: Ours(copy.deepcopy(start), BUDGET_TOKENS) for side in ("eager", "compiled")}
    attention = AttentionInterface()[IMPLEMENTATION]
    AttentionInterface.register(IMPLEMENTATION, torch.compiler.disable(attention))
    for layer in sides["compiled"].model.model.layers:
        layer.compile(dynamic=True)
    now = time.process_time if DEVICE.type == "cpu" else clock
    lessons = lessons_draw(start.config.vocab_size, PER_STEP * (WARM_STEPS + given.steps))
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    apart = 0.0
    for at in range(0, len(lessons), PER_STEP):
        losses = {}
        for side, own in sides.items():
            started = now()
            losses[side] = own.step(lessons[at : at + PER_STEP])[0]
            seconds[side].append(now() - started)
        apart = max(apart, abs(losses["compiled"] - losses["eager"]) / losses["eager"])
        told = {side: round(own[-1], 2) for side, own in seconds.items()}
        print(f"    step {at // PER_STEP}: seconds {told}", file=sys.stderr, flush=True)
    eager, compiled = (own[WARM_STEPS:] for own in seconds.values())
    to_compile = sum(seconds["compiled"][:WARM_STEPS]) - sum(seconds["eager"][:WARM_STEPS])
    gained = (sum(eager) - sum(compiled)) / given.steps
    print(
        json.dumps(
            {
                "method": "sft, compiled",
                "model": name,
                "eager_s": round(median(eager), 3),
                "compiled_s": round(median(compiled), 3),
                "ratio": round(sum(eager) / sum(compiled), 3),
                "ratio_of_pairs": round(
                    median(a / b for a, b in zip(eager, compiled, strict=True)), 3
                ),
                "aimed_at": AIMED_AT,
                "to_compile_s": round(to_compile, 1),
                "earned_back_after_steps": round(to_compile / gained) if gained > 0 else None,
                "device": DEVICE.type,
                "dtype": DTYPE,
                "loss_difference": float(f"{apart:.1e}"),
            }
        )
    )


if __name__ == "__main__":
    main()
