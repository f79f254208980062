"""Odds ratio preference optimisation on shared prompts against TRL's ORPOTrainer: pairs a second.

    python -m benchmarks.bench_training.orpo                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.orpo --model smollm2-135m

How: `_pairs.py`. There is no reference. The losses are not compared here: TRL's first term counts
the prompt's tokens too (docs/algorithms/orpo.md); a test compares the term of the odds.
"""

import contextlib
import sys
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl.experimental.orpo import ORPOConfig as TrlOrpoConfig
from trl.experimental.orpo import ORPOTrainer

from alignment.ml.configs import OrpoConfig
from alignment.ml.data import RankedGroup
from alignment.ml.orpo import step_gradients
from alignment.ml.shared_prefix import attach
from benchmarks.bench_training._pairs import PER_STEP, measure
from benchmarks.peers import BARE_TRAINER, DTYPE, Stopwatch, clock, tokenizer_make
from modelhub.ml.parallel import processes_start

AIMED_AT = 1.5
LR, ODDS_WEIGHT = 1e-6, 0.1
_IGNORED = -100


class Ours:
    """A model, its optimizer, and steps on some of the pairs."""

    def __init__(self, model: Any, groups: list[RankedGroup], budget_tokens: int) -> None:
        self.model, self.groups = model, groups
        self.config = OrpoConfig(odds_weight=ODDS_WEIGHT, budget_tokens=budget_tokens, dtype=DTYPE)
        self.processes = processes_start()
        attach(self.model.to(self.processes.device))
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, fused=True)

    def step(self, places: range) -> tuple[float, float]:
        """One training step: (loss in nats, seconds)."""
        started = clock()
        own = [self.groups[place] for place in places]
        figures, _ = step_gradients(self.model, own, self.config, self.processes)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return figures["loss"], clock() - started


class Tokenized(ORPOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are tokens already."""

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        return {}


def row_of(group: RankedGroup) -> dict[str, Any]:
    """A pair as TRL's trainer has it once it has tokenized it; the texts are never read."""
    prompt_T = group.group.prompt_T
    row: dict[str, Any] = {
        "prompt": "",
        "chosen": "",
        "rejected": "",
        "prompt_input_ids": prompt_T,
        "prompt_attention_mask": [1] * len(prompt_T),
    }
    for name, answer_T in zip(("chosen", "rejected"), group.group.answers, strict=True):
        row[f"{name}_input_ids"] = prompt_T + answer_T
        row[f"{name}_attention_mask"] = [1] * (len(prompt_T) + len(answer_T))
        row[f"{name}_labels"] = [_IGNORED] * len(prompt_T) + answer_T
    return row


def trl_train(
    model: Any, groups: list[RankedGroup], *, micro_batch: int, steps: int, watch: Stopwatch
) -> float:
    """`steps` optimizer steps of `PER_STEP` pairs. Returns the mean loss."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        settings = TrlOrpoConfig(
            output_dir=folder,
            beta=ODDS_WEIGHT,
            max_length=1024,  # more than any row
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=PER_STEP // micro_batch,
            max_steps=steps,
            learning_rate=LR,
            **BARE_TRAINER,
        )
        trainer = Tokenized(
            model=model,
            args=settings,
            train_dataset=Dataset.from_list([row_of(one) for one in groups]),
            processing_class=tokenizer_make(),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        return float(trainer.train().training_loss)


if __name__ == "__main__":
    measure(
        "orpo",
        __doc__.partition("\n")[0],
        ours_make=Ours,
        trl_train=trl_train,
        aimed_at=AIMED_AT,
        same_loss=False,
    )
