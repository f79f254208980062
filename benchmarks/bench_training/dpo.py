"""Direct preference optimisation on shared prompts against TRL's DPOTrainer: pairs a second.

    python -m benchmarks.bench_training.dpo                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.dpo --model smollm2-135m

How: `_pairs.py`.
"""

from typing import Any

from datasets import Dataset
from trl import DPOConfig as TrlDpoConfig
from trl import DPOTrainer

from alignment.ml.configs import DpoConfig
from alignment.ml.data import RankedGroup
from alignment.ml.dpo import step_gradients
from alignment.ml.preference import logprobs_of
from benchmarks.bench_training._pairs import Ours, measure, model_ready, trl_loss
from benchmarks.peers import DTYPE, Stopwatch

AIMED_AT = 1.5
BETA = 0.1


def ours_make(model: Any, groups: list[RankedGroup], budget_tokens: int) -> Ours:
    """Steps in nats per pair, with the reference of all pairs."""
    config = DpoConfig(beta=BETA, budget_tokens=budget_tokens, dtype=DTYPE)
    processes = model_ready(model)
    reference = logprobs_of(model, [one.group for one in groups], config, processes)

    def gradients(places: range) -> float:
        own = [groups[place] for place in places]
        figures, _ = step_gradients(
            model, own, [reference[place] for place in places], config, processes
        )
        return figures["loss"]

    return Ours(model, gradients)


class Tokenized(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are tokens already."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def trl_train(
    model: Any, groups: list[RankedGroup], *, micro_batch: int, steps: int, watch: Stopwatch
) -> float:
    rows = Dataset.from_dict(
        {
            "prompt_ids": [one.group.prompt_T for one in groups],
            "chosen_ids": [one.group.answers[0] for one in groups],
            "rejected_ids": [one.group.answers[1] for one in groups],
        }
    )
    return trl_loss(
        Tokenized,
        TrlDpoConfig,
        model,
        rows,
        watch,
        micro_batch=micro_batch,
        steps=steps,
        beta=BETA,
        precompute_ref_log_probs=True,
        max_length=None,
    )


if __name__ == "__main__":
    measure(
        "dpo",
        __doc__.partition("\n")[0],
        ours_make=ours_make,
        trl_train=trl_train,
        aimed_at=AIMED_AT,
    )
