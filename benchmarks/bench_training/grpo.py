"""Group relative policy optimisation on shared prompts against TRL's GRPOTrainer: seconds a step.

    python -m benchmarks.bench_training.grpo                        Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.grpo --model smollm2-135m

Four prompts a step, eight answers to each (both sides' default), every token alike, the KL in the
loss as the paper has it: how it is compared stands in `bench_training._online`. One JSON line on
standard output.
"""

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from trl import GRPOConfig, GRPOTrainer

from alignment.ml.configs import GrpoConfig
from alignment.ml.online import grpo
from benchmarks.bench_training._online import BETA, MODELS, answers_given, group_arguments, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    measure(
        "grpo",
        grpo,
        GrpoConfig,
        answers_given(GRPOTrainer),
        GRPOConfig,
        model=parser.parse_args().model,
        micro_batches=(4, 8, 16),
        samples=8,
        ours_settings={"loss": "dapo", "kl_coef": BETA},
        trl_settings={
            **group_arguments(8),
            "loss_type": "dapo",
            "use_bias_correction_kl": False,
        },
    )


if __name__ == "__main__":
    main()
