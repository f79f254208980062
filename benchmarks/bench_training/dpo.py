"""Direct preference optimisation on shared prompts against TRL's DPOTrainer: pairs a second.

    python -m benchmarks.bench_training.dpo                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.dpo --model smollm2-135m

How: `_pairs.py`.
"""

import contextlib
import sys
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig as TrlDpoConfig
from trl import DPOTrainer

from alignment.ml.configs import DpoConfig
from alignment.ml.data import RankedGroup
from alignment.ml.dpo import step_gradients
from alignment.ml.preference import logprobs_of
from alignment.ml.shared_prefix import attach
from benchmarks.bench_training._pairs import PER_STEP, measure
from benchmarks.peers import BARE_TRAINER, DTYPE, Stopwatch, clock, tokenizer_make
from modelhub.ml.parallel import processes_start

AIMED_AT = 1.5
LR, BETA = 1e-6, 0.1


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


if __name__ == "__main__":
    measure(
        "dpo",
        __doc__.partition("\n")[0],
        ours_make=Ours,
        trl_train=trl_train,
        aimed_at=AIMED_AT,
    )
