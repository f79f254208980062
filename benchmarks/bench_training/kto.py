"""Kahneman-Tversky optimisation on shared prompts against TRL's KTOTrainer: pairs a second.

    python -m benchmarks.bench_training.kto                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.kto --model smollm2-135m

How: `_pairs.py`. Of a pair one answer is desirable and one is not; both sides compute the reference
point of every step from answers behind other prompts, without a gradient. On the first step policy
and reference are one, so that the losses compared are the same whatever stands behind what.
"""

from typing import Any

from datasets import Dataset
from trl import KTOConfig as TrlKtoConfig
from trl import KTOTrainer

from alignment.ml.configs import KtoConfig
from alignment.ml.data import RankedGroup
from alignment.ml.kto import reference_make, step_gradients
from alignment.ml.preference import logprobs_of
from alignment.ml.unpaired import UnpairedGroup
from benchmarks.bench_training._pairs import PER_STEP, Ours, measure, model_ready, trl_loss
from benchmarks.peers import DTYPE, Stopwatch

AIMED_AT = 1.5
BETA = 0.1
CONTEXT_TOKENS = 512  # more than any prompt and answer drawn here


def ours_make(model: Any, groups: list[RankedGroup], budget_tokens: int) -> Ours:
    """Steps on pairs taken apart, with the reference of all of them."""
    unpaired = [
        UnpairedGroup(
            prompt_id=one.prompt_id, split="train", group=one.group, desirable_K=(True, False)
        )
        for one in groups
    ]
    config = KtoConfig(beta=BETA, budget_tokens=budget_tokens, dtype=DTYPE)
    processes = model_ready(model)
    starts = range(0, len(groups), PER_STEP)
    reference = reference_make(
        {"train": unpaired},
        [range(start, start + PER_STEP) for start in starts],
        lambda asked: logprobs_of(model, asked, config, processes),
        context_tokens=CONTEXT_TOKENS,
    )

    def gradients(places: range) -> float:
        figures, _ = step_gradients(
            model,
            [unpaired[place] for place in places],
            [reference.matched["train"][place] for place in places],
            reference.others["train"][places.start // PER_STEP],
            config,
            processes,
            context_tokens=CONTEXT_TOKENS,
        )
        return figures["loss"]

    return Ours(model, gradients)


class Tokenized(KTOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are tokens already."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def trl_train(
    model: Any, groups: list[RankedGroup], *, micro_batch: int, steps: int, watch: Stopwatch
) -> float:
    """Each pair is two rows."""
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
    return trl_loss(
        Tokenized,
        TrlKtoConfig,
        model,
        rows,
        watch,
        micro_batch=micro_batch,
        steps=steps,
        rows_each=2,
        beta=BETA,
        precompute_ref_log_probs=True,
        max_length=None,
    )


if __name__ == "__main__":
    measure(
        "kto",
        __doc__.partition("\n")[0],
        ours_make=ours_make,
        trl_train=trl_train,
        aimed_at=AIMED_AT,
    )
