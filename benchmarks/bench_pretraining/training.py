"""Pretraining beside HF Trainer and litgpt: tokens a second, and MFU.

    python -m benchmarks.bench_pretraining.training                     float32 and bfloat16
    python -m benchmarks.bench_pretraining.training --compile           the same, compiled

The same Llama of 9.3 million weights (256 wide, 6 layers), the same blocks (16 of 256 random tokens
a step), forward, backward, clipping, AdamW. Each side is a process of its own and trains as its own
program does: ours the step of modelhub.ml.pretraining, theirs `Trainer` and the loop of litgpt's
pretrain.py under Fabric. Steps alternate, one side at a time while the others wait and use no
processor, so that another job on the machine slows all alike. Medians; the first steps are left
out. On a machine that others use too, `--cpu` counts the processor's seconds instead of the
clock's (then with OMP_NUM_THREADS=1), and BLOCKS=4 in the environment makes steps shorter. MFU: of
the rate of square products measured between the steps. One JSON line a dtype.

litgpt has pins of its own: give the folder it was installed to as LITGPT_SITE
(`uv pip install --no-deps --target FOLDER litgpt==0.5.13 lightning lightning-utilities torchmetrics
jsonargparse pytorch-lightning typeshed-client importlib-resources litdata`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

AIMED_AT = 1.0
BLOCKS, BLOCK_TOKENS, VOCABULARY = int(os.environ.get("BLOCKS", "16")), 256, 8192
WARM_STEPS = 3
LR = 1e-4
ROOT = Path(__file__).resolve().parents[2]


def blocks_draw(steps: int) -> np.ndarray:
    """(steps, BLOCKS, BLOCK_TOKENS + 1) tokens; litgpt reads the next token too."""
    draw = np.random.default_rng(0)
    return draw.integers(2, VOCABULARY, (steps, BLOCKS, BLOCK_TOKENS + 1), dtype=np.int64)


def turns() -> Iterator[None]:
    """One for each line that is read; says "ready" before the first."""
    print("ready", flush=True)
    while sys.stdin.readline().strip() == "step":
        yield


class Clock:
    """Seconds since it was made: the clock's, and this process's of the processor."""

    def __init__(self) -> None:
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    def tell(self, loss: float) -> None:
        seconds = time.perf_counter() - self.started
        cpu_s = time.process_time() - self.cpu_started
        print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "loss": loss}), flush=True)


# ── the sides ────────────────────────────────────────────────────────────────────────────────────


def llama_make() -> Any:
    from modelhub.ml.pretraining.architectures import Special, model_make
    from modelhub.ml.pretraining.configs import PretrainConfig

    torch.manual_seed(0)
    special = Special(vocabulary=VOCABULARY, table=VOCABULARY, pad_id=0, end_id=0)
    return model_make(PretrainConfig(block_tokens=BLOCK_TOKENS), special), special


def ours(dtype: str, compiled: bool, steps: int) -> None:
    from modelhub.ml.allocator import memory_keep
    from modelhub.ml.parallel import processes_start
    from modelhub.ml.pretraining.architectures import block_losses
    from modelhub.ml.pretraining.configs import PretrainConfig
    from modelhub.ml.pretraining.data import Sample
    from modelhub.ml.pretraining.training import optimizer_of, step_backward

    class Source:
        name = "random"

        def read(self, block: int) -> tuple[np.ndarray, np.ndarray]:
            step, row = divmod(block, BLOCKS)
            return data[step, row, :BLOCK_TOKENS], np.arange(BLOCK_TOKENS)

    memory_keep()
    data = blocks_draw(steps)
    config = PretrainConfig(block_tokens=BLOCK_TOKENS, blocks_per_step=BLOCKS, dtype=dtype, lr=LR)
    model, special = llama_make()
    model.train()
    optimizer = optimizer_of(model, config)
    losses = torch.compile(block_losses) if compiled else block_losses
    processes = processes_start()
    for step, _ in enumerate(turns()):
        samples = [Sample(0, 0, 0, step * BLOCKS + row) for row in range(BLOCKS)]
        clock = Clock()
        found = step_backward(model, [Source()], samples, config, special, processes, losses)
        optimizer.step()
        optimizer.zero_grad()
        clock.tell(found.loss)


def trainer(dtype: str, compiled: bool, steps: int) -> None:
    from datasets import Dataset
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Turns(TrainerCallback):
        def __init__(self) -> None:
            self.turn = turns()

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if next(self.turn, "over") == "over":
                control.should_training_stop = True
            self.clock = Clock()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.clock.tell(0.0)

    model, _ = llama_make()
    rows = blocks_draw(steps)[:, :, :BLOCK_TOKENS].reshape(-1, BLOCK_TOKENS)
    dataset = Dataset.from_dict({"input_ids": rows, "labels": rows}).with_format("torch")
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BLOCKS,
            max_steps=steps,
            learning_rate=LR,
            weight_decay=0.1,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            bf16=dtype == "bfloat16",
            torch_compile=compiled,
            use_cpu=True,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        made = Trainer(model=model, args=settings, train_dataset=dataset, callbacks=[Turns()])
        made.remove_callback(PrinterCallback)
        made.train()


def litgpt(dtype: str, compiled: bool, steps: int) -> None:
    sys.path.append(os.environ["LITGPT_SITE"])
    import lightning as L
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    precision = {"float32": "32-true", "bfloat16": "bf16-mixed"}[dtype]
    fabric = L.Fabric(accelerator="cpu", devices=1, precision=precision)
    torch.manual_seed(0)
    config = Config(
        block_size=BLOCK_TOKENS,
        padded_vocab_size=VOCABULARY,
        vocab_size=VOCABULARY,
        n_layer=6,
        n_head=4,
        n_embd=256,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=768,
    )
    model = GPT(config)
    model.max_seq_length = BLOCK_TOKENS
    if compiled:
        model = torch.compile(model)
    model = fabric.setup(model)
    # As litgpt makes it: fused on CUDA alone.
    optimizer = fabric.setup_optimizers(
        torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.1, betas=(0.9, 0.95))
    )
    data = torch.from_numpy(blocks_draw(steps))
    for step, _ in enumerate(turns()):
        clock = Clock()
        row = data[step]
        tokens = row[:, :BLOCK_TOKENS].contiguous().long()
        targets = row[:, 1:].contiguous().long()
        loss = chunked_cross_entropy(model(tokens), targets)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.tell(float(loss.detach()))


SIDES: dict[str, Callable[[str, bool, int], None]] = {
    "ours": ours,
    "trainer": trainer,
    "litgpt": litgpt,
}


# ── the comparison ───────────────────────────────────────────────────────────────────────────────


class Side:
    """A process that takes a step when it is told to."""

    def __init__(self, name: str, dtype: str, compiled: bool, steps: int, *, by_cpu: bool) -> None:
        self.by_cpu = by_cpu
        command = [sys.executable, "-m", __spec__.name, "--side", name, "--dtype", dtype]
        command += ["--steps", str(steps), *(["--compile"] if compiled else [])]
        self.seconds: list[float] = []
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )

    def ready(self) -> None:
        while (line := self._line()) != "ready":
            print(line, file=sys.stderr)

    def step(self) -> None:
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        while not (line := self._line()).startswith("{"):
            print(line, file=sys.stderr)
        found = json.loads(line)
        self.seconds.append(found["cpu_s" if self.by_cpu else "seconds"])

    def _line(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended: {self.process.args}")
        return line.strip()


def compare(dtype: str, compiled: bool, steps: int, *, by_cpu: bool) -> dict[str, Any]:
    from modelhub.ml.checkpoint import dtype_named
    from modelhub.ml.pretraining.presets import SIZES, token_flops
    from modelhub.ml.pretraining.throughput import matmul_rate

    names = [name for name in SIDES if name != "litgpt" or os.environ.get("LITGPT_SITE")]
    sides = {}
    for name in names:  # one after the other: each compiles and warms up alone
        sides[name] = Side(name, dtype, compiled, steps, by_cpu=by_cpu)
        sides[name].ready()
        for _ in range(WARM_STEPS):
            sides[name].step()
    rates = []
    for step in range(steps - WARM_STEPS):
        clock = time.process_time if by_cpu else time.perf_counter
        rates.append(matmul_rate(torch.device("cpu"), dtype_named(dtype), clock=clock))
        order = names if step % 2 == 0 else names[::-1]
        for name in order:
            sides[name].step()
    flops = token_flops(
        "llama",
        SIZES["llama"]["9m"],
        vocabulary=VOCABULARY,
        context=BLOCK_TOKENS,
        block_tokens=BLOCK_TOKENS,
    )
    for side in sides.values():
        side.process.kill()
        side.process.wait()
    tokens = BLOCKS * BLOCK_TOKENS
    speed = {name: tokens / median(side.seconds[WARM_STEPS:]) for name, side in sides.items()}
    best = max(rate for name, rate in speed.items() if name != "ours")
    return {
        "dtype": dtype,
        "compiled": compiled,
        "blocks": BLOCKS,
        **{f"{name}_tokens_per_s": round(rate) for name, rate in speed.items()},
        **{f"{name}_mfu": round(rate * flops / max(rates), 3) for name, rate in speed.items()},
        "matmul_gflops_per_s": round(max(rates) / 1e9, 1),
        "seconds_of": "processor" if by_cpu else "clock",
        "threads": torch.get_num_threads(),
        "ratio": round(speed["ours"] / best, 2),
        "aimed_at": AIMED_AT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default=None)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="count the processor's seconds")
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        SIDES[asked.side](asked.dtype, asked.compile, asked.steps)
        return
    for dtype in [asked.dtype] if asked.dtype else ["float32", "bfloat16"]:
        print(json.dumps(compare(dtype, asked.compile, asked.steps, by_cpu=asked.cpu)), flush=True)


if __name__ == "__main__":
    main()
