"""Odds ratio preference optimisation on shared prompts against TRL's ORPOTrainer: pairs a second.

    python -m benchmarks.bench_training.orpo                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.orpo --model smollm2-135m

How: `_pairs.py`. There is no reference. The losses are not compared here: TRL's first term counts
the prompt's tokens too (docs/algorithms/orpo.md); a test compares the term of the odds.
"""

from typing import Any

from datasets import Dataset
from trl.experimental.orpo import ORPOConfig as TrlOrpoConfig
from trl.experimental.orpo import ORPOTrainer

from alignment.ml.configs import OrpoConfig
from alignment.ml.data import RankedGroup
from alignment.ml.orpo import step_gradients
from benchmarks.bench_training._pairs import Ours, measure, model_ready, trl_loss
from benchmarks.peers import DTYPE, Stopwatch

AIMED_AT = 1.5
ODDS_WEIGHT = 0.1
_IGNORED = -100


def ours_make(model: Any, groups: list[RankedGroup], budget_tokens: int) -> Ours:
    config = OrpoConfig(odds_weight=ODDS_WEIGHT, budget_tokens=budget_tokens, dtype=DTYPE)
    processes = model_ready(model)

    def gradients(places: range) -> float:
        own = [groups[place] for place in places]
        return step_gradients(model, own, config, processes)[0]["loss"]

    return Ours(model, gradients)


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
    rows = Dataset.from_list([row_of(one) for one in groups])
    return trl_loss(
        Tokenized,
        TrlOrpoConfig,
        model,
        rows,
        watch,
        micro_batch=micro_batch,
        steps=steps,
        beta=ODDS_WEIGHT,
        max_length=1024,  # more than any row
    )


if __name__ == "__main__":
    measure(
        "orpo",
        __doc__.partition("\n")[0],
        ours_make=ours_make,
        trl_train=trl_train,
        aimed_at=AIMED_AT,
        same_loss=False,
    )
