"""Rejection sampling by a checker: the sums of `benchmarks.sums_reference`, on held-out sums.

    python -m benchmarks.rejection_reference
    python -m benchmarks.rejection_reference --prompts 1000 --samples 8

The Llama of a million weights that `sums_reference` fine-tunes on GSM8K's marked sums draws answers
to drawn sums (`modelhub.ml.generate`); the checker keeps one right answer of each prompt that has
one (`alignment.ml.rejection`), and the policy is fine-tuned on what was kept (`alignment.ml.sft`):
the three programs that the site launches. Of drawn sums that nothing else uses the share of right
answers is given before and after, the difference with its 95 % interval over prompts.

Folder and file are those of `sums_reference`, whose fine-tuned policy is taken if it is there.
Killed and started again it goes on. One JSON line on standard output; on standard error the curve
of best-of-n beside its KL, and that of the fine-tuning.
"""

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from alignment.intervals import bootstrap_mean
from alignment.ml.checkers import REFERENCES_NAME, ReferenceRecord, checker_get
from benchmarks.ppo_reference import prompts_write
from benchmarks.runs import metrics_table, program_run, reference_parser, settings_read
from benchmarks.sums_reference import VALIDATION, policy_make, sums_draw, sums_read
from modelhub.ml.records import CandidateRecord, json_canonical, records_read, records_write

DRAWING: dict[str, Any] = {
    "engine": "transformers",
    "temperatures": [1.0],
    "max_tokens": 6,
    "max_context_tokens": 64,
    "chunk_samples": 2048,
    "dtype": "float32",
    "seed": 0,
}
FINE_TUNING: dict[str, Any] = {
    "epochs": 4,
    "lr": 3e-4,
    "examples_per_step": 64,
    "max_tokens": 64,
    "checkpoint_every_steps": 50,
    "seed": 0,
}


def right_shares(candidates: Path, answers: dict[str, str]) -> dict[str, float]:
    """The share of each prompt's answers that the checker finds right, by prompt id."""
    check = checker_get("gsm8k")
    told: dict[str, list[float]] = {}
    for one in records_read(candidates / "candidates.jsonl", CandidateRecord):
        told.setdefault(one.prompt_id, []).append(check(one.text, answers[one.prompt_id]))
    return {prompt_id: fmean(own) for prompt_id, own in told.items()}


def difference_of(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """Shares of right answers, and what they differ by: paired, over prompts."""
    gained = bootstrap_mean([after[one] - before[one] for one in sorted(before)], seed=0)
    return {
        "before": fmean(before.values()),
        "after": fmean(after.values()),
        "difference": asdict(gained),
    }


def curve_table(points: list[dict[str, float]]) -> str:
    """A run's best_of_n as a table, but for what a checker alone makes equal."""
    names = ["n", "kl_bound", "pass_at_n"]
    rows = [names, ["---"] * len(names)]
    rows += [[f"{one[name]:.4g}" for name in names] for one in points]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = reference_parser(__doc__, "var/sums-reference")
    parser.add_argument("--prompts", type=int, default=4000)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("FIELD", "VALUE"))
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    marked = sums_read(given.data / "gsm8k_train.jsonl.gz", seed=0)
    used = VALIDATION + given.prompts
    drawn = sums_draw(marked, used + given.held_out, seed=0)
    policy = policy_make(folder, marked[1000:])  # as `sums_reference` makes it, for it to be kept
    parts = {"train": drawn[VALIDATION:used], "held-out": drawn[used:]}
    answers = {
        f"{name}-{number}": answer
        for name, own in parts.items()
        for number, (_, answer) in enumerate(own)
    }
    for name, own in parts.items():
        prompts_write(folder / f"rejection-{name}", [question for question, _ in own], name)
    references = folder / "rejection-references"
    references.mkdir(exist_ok=True)
    records = [ReferenceRecord(prompt_id=one, answer=answer) for one, answer in answers.items()]
    records_write(references / REFERENCES_NAME, records)
    started = time.monotonic()

    def draw(run: str, model: Path, part: str) -> Path:
        inputs = {"model": model, "prompts": folder / f"rejection-{part}"}
        program_run(folder / run, "generate", DRAWING | {"samples": given.samples}, inputs)
        return folder / run / "outputs" / "candidates"

    before = right_shares(draw("rejection-before", policy, "held-out"), answers)
    inputs = {
        "prompts": folder / "rejection-train",
        "candidates": draw("rejection-drawn", policy, "train"),
        "references": references,
    }
    kept = program_run(folder / "rejection-kept", "rejection", {"checker": "gsm8k"}, inputs)
    print(curve_table(kept["best_of_n"]), file=sys.stderr)
    learnt = folder / "rejection-learnt"
    inputs = {
        "base": policy,
        "demonstrations": folder / "rejection-kept" / "outputs" / "demonstrations",
    }
    told = program_run(learnt, "sft", FINE_TUNING | settings_read(given.set), inputs)
    print(metrics_table(learnt, "loss", "token_accuracy", every=25), file=sys.stderr)
    after = draw("rejection-after", learnt / "outputs" / "model", "held-out")
    print(
        json_canonical(
            {
                "prompts": given.prompts,
                "samples": given.samples,
                "kept": kept["kept"],
                "right": kept["right"],
                "steps": told["steps"],
                "held_out": difference_of(before, right_shares(after, answers)),
                "minutes": round((time.monotonic() - started) / 60, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
