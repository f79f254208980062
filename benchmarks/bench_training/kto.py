"""Kahneman-Tversky optimisation on shared prompts against TRL's KTOTrainer: pairs a second.

    python -m benchmarks.bench_training.kto                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.kto --model smollm2-135m

How: `_pairs.py`. Of a pair one answer is desirable and one is not; both sides compute the reference
point of every step from answers behind other prompts, without a gradient. On the first step policy
and reference are one, so that the losses compared are the same whatever stands behind what.
"""

import contextlib
import sys
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import KTOConfig as TrlKtoConfig
from trl import KTOTrainer

from alignment.ml.configs import KtoConfig
from alignment.ml.data import RankedGroup
from alignment.ml.kto import reference_make, step_gradients
from alignment.ml.preference import logprobs_of
from alignment.ml.shared_prefix import attach
from alignment.ml.unpaired import UnpairedGroup
from benchmarks.bench_training._pairs import PER_STEP, measure
from benchmarks.peers import BARE_TRAINER, DTYPE, Stopwatch, clock, tokenizer_make
from modelhub.ml.parallel import processes_start

AIMED_AT = 1.5
LR, BETA = 1e-6, 0.1
CONTEXT_TOKENS = 512  # more than any prompt and answer drawn here


class Ours:
    """A model, its optimizer, the reference of all pairs, and steps on some of them."""

    def __init__(self, model: Any, groups: list[RankedGroup], budget_tokens: int) -> None:
        self.model = model
        self.groups = [
            UnpairedGroup(
                prompt_id=one.prompt_id,
                split="train",
                group=one.group,
                desirable_K=(True, False),
            )
            for one in groups
        ]
        self.config = KtoConfig(beta=BETA, budget_tokens=budget_tokens, dtype=DTYPE)
        self.processes = processes_start()
        attach(self.model.to(self.processes.device))
        self.model.train()
        starts = range(0, len(groups), PER_STEP)
        self.reference = reference_make(
            {"train": self.groups},
            [range(start, start + PER_STEP) for start in starts],
            lambda asked: logprobs_of(self.model, asked, self.config, self.processes),
            context_tokens=CONTEXT_TOKENS,
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, fused=True)

    def step(self, places: range) -> tuple[float, float]:
        """One training step: (loss, seconds)."""
        started = clock()
        figures, _ = step_gradients(
            self.model,
            [self.groups[place] for place in places],
            [self.reference.matched["train"][place] for place in places],
            self.reference.others["train"][places.start // PER_STEP],
            self.config,
            self.processes,
            context_tokens=CONTEXT_TOKENS,
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return figures["loss"], clock() - started


class Tokenized(KTOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are tokens already."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def trl_train(
    model: Any, groups: list[RankedGroup], *, micro_batch: int, steps: int, watch: Stopwatch
) -> float:
    """`steps` optimizer steps of `PER_STEP` pairs, each pair two rows. Returns the mean loss."""
    own = [(one.group.prompt_T, *one.group.answers) for one in groups]
    behind = [own[-1], *own[:-1]]  # whose answers stand behind another's prompt
    rows = Dataset.from_list(
        [
            {
                "prompt_ids": prompt_T,
                "completion_ids": answers[place],
                "KL_completion_ids": others[place],
                "label": place == 0,
            }
            for (prompt_T, *answers), (_, *others) in zip(own, behind, strict=True)
            for place in (0, 1)
        ]
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        settings = TrlKtoConfig(
            output_dir=folder,
            beta=BETA,
            precompute_ref_log_probs=True,
            max_length=None,
            per_device_train_batch_size=2 * micro_batch,
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
        "kto",
        __doc__.partition("\n")[0],
        ours_make=Ours,
        trl_train=trl_train,
        aimed_at=AIMED_AT,
    )
