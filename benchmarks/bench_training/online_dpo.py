"""Online DPO on shared prompts against TRL's OnlineDPOTrainer: seconds a step.

    python -m benchmarks.bench_training.online_dpo                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.online_dpo --model smollm2-135m

Four prompts a step, two answers to each, as many as TRL's trainer draws: how it is compared stands
in `bench_training._online`. TRL takes log-probabilities of the policy as it was from its update;
ours computes them before it, for its figures. One JSON line on standard output.
"""

import argparse
import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from alignment.ml.configs import OnlineDpoConfig
from alignment.ml.online import dpo
from alignment.ml.shared_prefix import Group
from benchmarks.bench_training._online import (
    ANSWER_TOKENS,
    BETA,
    MODELS,
    PROMPT_TOKENS,
    PROMPTS_PER_STEP,
    measure,
    rewards,
)
from benchmarks.peers import DEVICE, PAD


def padded(sequences: list[list[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    """(token ids, mask) of sequences padded to the longest."""
    longest = max(map(len, sequences))
    rows, masks = [], []
    for own in sequences:
        pads, ones = [PAD] * (longest - len(own)), [1] * len(own)
        rows.append([*pads, *own] if left else [*own, *pads])
        masks.append([*[0] * len(pads), *ones] if left else [*ones, *[0] * len(pads)])
    return torch.tensor(rows, device=DEVICE), torch.tensor(masks, device=DEVICE)


class Given(OnlineDPOTrainer):
    """TRL's trainer whose answers are those of its `groups`; a prompt is a place among them."""

    groups: list[Group]

    def training_step(self, *given: Any, **more: Any) -> Tensor:
        # TRL 1.16 adds micro-batches' gradients up, where the step's loss is their mean.
        self.accelerator.gradient_accumulation_steps = self.args.gradient_accumulation_steps
        return super().training_step(*given, **more)

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def _answers(self, prompts: list[str]) -> list[list[int]]:
        """First all prompts' first answers, then their second ones."""
        return [self.groups[int(one)].answers[turn] for turn in range(2) for one in prompts]

    def _generate(self, model: Any, prompts: list[str], images: Any = None) -> tuple[Any, ...]:
        asked = [self.groups[int(one)].prompt_T for one in prompts] * 2
        answers = padded(self._answers(prompts), left=False)
        return *padded(asked, left=True), *answers, None

    def _calculate_rewards_from_functions(self, prompts: list[str], *_: Any, **__: Any) -> Tensor:
        own = self._answers(prompts[: len(prompts) // 2])  # without what they are padded with
        return torch.tensor(rewards(own), device=DEVICE)


def trl_arguments() -> dict[str, Any]:
    """Of TRL's configuration."""
    longest = max(PROMPT_TOKENS) + max(ANSWER_TOKENS)
    return {"beta": [BETA], "max_new_tokens": max(ANSWER_TOKENS), "max_length": longest}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    measure(
        "online_dpo",
        dpo,
        OnlineDpoConfig,
        Given,
        OnlineDPOConfig,
        model=parser.parse_args().model,
        micro_batches=(1, 2, 4),
        samples=2,
        ours_settings={"beta": BETA},
        trl_settings=trl_arguments(),
        per_step=PROMPTS_PER_STEP,
    )


if __name__ == "__main__":
    main()
