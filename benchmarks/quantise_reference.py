"""What quantising SmolLM2-135M-Instruct costs: perplexity, accuracy, size, and speed in vLLM.

    python -m benchmarks.quantise_reference --folder var/quantise-reference

Heard on held-out and validation questions of GSM8K (the first --conversations of the file; the
site's own function says which side a question is on). Speed: tokens a second of `generate` on the
engine that is there, --speed-prompts prompts at once, 64 tokens each. One JSON line a scheme.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.base_model import smollm2_prepare
from benchmarks.runs import program_run
from benchmarks.sft_reference import rows_read
from modelhub.ml.records import PromptRecord, json_canonical, records_write

SCHEMES: dict[str, dict[str, Any]] = {
    "w8a8": {"scheme": "w8a8"},
    "w4a16-g32": {"scheme": "w4a16", "group_size": 32},
    "w4a16-g64": {"scheme": "w4a16", "group_size": 64},
}
SAMPLING = {"samples": 1, "temperatures": [0.0], "max_tokens": 64, "max_context_tokens": 512}


def files_prepare(folder: Path, data: Path, conversations: int, prompts: int) -> None:
    """The model, what both are heard on, and the prompts of the speed."""
    smollm2_prepare(folder / "base")
    rows = rows_read(data / "gsm8k_train.jsonl.gz", conversations)
    for name in ("demonstrations", "prompts"):
        (folder / name).mkdir(exist_ok=True)
    text = "".join(json_canonical(row) + "\n" for row in rows)
    (folder / "demonstrations" / "demonstrations.jsonl").write_text(text, encoding="utf-8")
    records = [
        PromptRecord(prompt_id=f"p{number:03}", messages=row["messages"][:1])
        for number, row in enumerate(rows[:prompts])
    ]
    records_write(folder / "prompts" / "prompts.jsonl", records)


def speed(folder: Path, name: str, model: Path) -> dict[str, Any]:
    inputs = {"model": model, "prompts": folder / "prompts"}
    found = program_run(folder / f"speed-{name}", "generate", SAMPLING, inputs)
    return {key: found[key] for key in ("engine", "tokens_per_s", "load_s")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conversations", type=int, default=400)
    parser.add_argument("--speed-prompts", type=int, default=32)
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("RONDO_SHARED_DATA", "../shared/data"))
    )
    parser.add_argument("--folder", type=Path, default=Path("var/quantise-reference"))
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    files_prepare(folder, given.data, given.conversations, given.speed_prompts)
    print(json_canonical({"scheme": "", **speed(folder, "base", folder / "base")}), flush=True)
    inputs = {"base": folder / "base", "demonstrations": folder / "demonstrations"}
    for name in given.schemes:
        started = time.monotonic()
        result = program_run(folder / name, "quantise", SCHEMES[name], inputs)
        minutes = round((time.monotonic() - started) / 60, 1)
        kept = ("conversations", "divergence", "weights_bytes", "parent_weights_bytes")
        figures = {key: result[key] for key in kept}
        table = {row["figure"]: row for row in result["beside_parent"]}
        served = speed(folder, name, folder / name / "outputs" / "model")
        line = {"scheme": name, **figures, **table, **served, "minutes": minutes}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
