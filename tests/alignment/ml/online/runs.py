"""Runs of the online methods on a tiny policy, as the runner or a person by hand makes them."""

from pathlib import Path
from typing import Any

from alignment.ml.checkers import ReferenceRecord
from modelhub.ml.records import records_write
from tests.alignment.ml.programs import prompts_write, run_make

FAST = {
    "engine": "transformers",
    "prompts_per_step": 4,
    "samples": 3,
    "max_tokens": 8,
    "lr": 1e-3,
    "rise_factor": 0.0,  # the tiny models' gradients are noise
    "bootstrap_samples": 200,
}


def online_run_make(
    folder: Path, program: str, inputs: dict[str, Path], *, prompts: int = 8, **config: Any
) -> Path:
    """A run directory over `prompts` prompts; inputs beside the prompts are given."""
    asked = prompts_write(folder / "prompts", [f"p{number:02}" for number in range(prompts)])
    return run_make(folder / "run", program, {"prompts": asked, **inputs}, {**FAST, **config})


def references_write(folder: Path) -> Path:
    """What is right for prompts p00 to p31 and e0 to e7."""
    folder.mkdir(parents=True)
    ids = [f"p{number:02}" for number in range(32)] + [f"e{number}" for number in range(8)]
    records_write(
        folder / "references.jsonl", [ReferenceRecord(prompt_id=one, answer="A") for one in ids]
    )
    return folder


def plain_logprobs(model: Any, prompt: list[int], answer: list[int]) -> Any:
    """log p of each token of an answer behind its prompt, by transformers alone, (T,)."""
    import torch

    logits_TV = model(input_ids=torch.tensor([prompt + answer])).logits[0].float()
    logs_TV = torch.log_softmax(logits_TV[len(prompt) - 1 : -1], -1)
    return logs_TV.gather(1, torch.tensor(answer)[:, None])[:, 0]
