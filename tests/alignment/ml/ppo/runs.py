"""PPO runs on a tiny policy, as the runner or a person by hand makes them."""

from pathlib import Path
from typing import Any

from tests.alignment.ml.programs import lines_of, prompts_write, run_make

FAST = {
    "engine": "transformers",
    "prompts_per_step": 4,
    "samples": 3,
    "max_tokens": 8,
    "lr": 1e-3,
    "critic_lr": 1e-3,
    "ppo_epochs": 2,
    "minibatches": 2,
    "kl_coef": 0.02,
    "rise_factor": 0.0,  # the tiny models' scores are noise, and their losses jump
    "bootstrap_samples": 200,
}


def ppo_run(folder: Path, inputs: dict[str, Path], *, prompts: int = 8, **config: Any) -> Path:
    """A run directory over `prompts` prompts; inputs beside the prompts are given."""
    asked = prompts_write(folder / "prompts", [f"p{number:02}" for number in range(prompts)])
    return run_make(folder / "run", "ppo", {"prompts": asked, **inputs}, {**FAST, **config})


def figures_of(run: Path) -> dict[int, dict[str, float]]:
    """The last figures of each step, those left out that depend on the clock."""
    found: dict[int, dict[str, float]] = {}
    for line in lines_of(run / "metrics.jsonl"):
        values = line["values"]
        own = {k: v for k, v in values.items() if not k.endswith("tokens_per_s")}
        found.setdefault(line["step"], {}).update(own)
    return found
