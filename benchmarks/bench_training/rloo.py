"""REINFORCE leave-one-out on shared prompts against TRL's RLOOTrainer: seconds a step.

    python -m benchmarks.bench_training.rloo                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.rloo --model smollm2-135m

Four prompts a step, four answers to each, the KL in the reward: how it is compared stands in
`bench_training._online`. One JSON line on standard output.
"""

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from trl import RLOOConfig, RLOOTrainer

from alignment.ml.configs import RlooConfig
from alignment.ml.online import rloo
from benchmarks.bench_training._online import BETA, MODELS, answers_given, group_arguments, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    measure(
        "rloo",
        rloo,
        RlooConfig,
        answers_given(RLOOTrainer),
        RLOOConfig,
        model=parser.parse_args().model,
        micro_batches=(4, 8, 16),
        samples=4,
        ours_settings={"kl_coef": BETA},
        trl_settings=group_arguments(4),
    )


if __name__ == "__main__":
    main()
