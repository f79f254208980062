"""The ways of training a reward model, side by side, on real judgements and held-out prompts.

    python -m benchmarks.reward_methods                              everything, about 15 minutes
    python -m benchmarks.reward_methods --only hh-plain hh-heads     some of the variants
    python -m benchmarks.reward_methods --train 40 --test 40         a quick look
    python -m benchmarks.reward_methods --train 1000 --test 400 --baselines
                                                                     length and words alone
    python -m benchmarks.reward_methods --seeds 3                    an ensemble of runs instead

Two data sets, each cut to a size that two cores can take: harmlessness, human choices between two
endings of a dialogue (hh_harmless_pairs), and helpfulness, a judge's rankings of four answers
(alpaca_eval, tiers as in `benchmarks.reward_alpaca`). The model is SmolLM2-135M-Instruct, of which
all but the last layers stay as they are; every variant is a run of `alignment.ml.reward` on the
same files, with one setting changed. Prompts are taken in the order of their hashes: the first for
training, the next for the test. `--seeds` trains `hh-plain` from so many seeds instead, which
take the pairs in another order each, and `alignment.ml.reward_ensemble` takes the members as one.

Killed and started again with the same folder, it goes on. One JSON line a variant on standard
output, a table on standard error.
"""

import argparse
import gzip
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from annotation.records import RankingRecord
from annotation.splits import content_hash
from benchmarks.base_model import smollm2_prepare
from benchmarks.reward_alpaca import FILE as ALPACA
from benchmarks.reward_alpaca import records_make, rows_read, tell
from benchmarks.runs import program_run
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.manifest import MANIFEST_NAME, manifest_write
from modelhub.ml.records import json_strict, records_write

HH = "hh_harmless_pairs.jsonl.gz"
SHARED: dict[str, Any] = {
    "lr": 5e-5,
    "head_lr": 1e-3,
    "frozen_layers": 24,
    "rankings_per_step": 8,
    "budget_tokens": 2048,
    "dtype": "float32",
}
# name → (data set, what differs)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "hh-plain": ("hh", {}),
    "hh-smoothed": ("hh", {"label_smoothing": 0.1}),
    "hh-reward-token": ("hh", {"reward_token": True}),
    "hh-heads": ("hh", {"heads": 5, "combine": "worst"}),
    "hh-lora": ("hh", {"adapter": "lora", "lora_rank": 8, "frozen_layers": 0, "lr": 2e-4}),
    "alpaca-rankings": ("alpaca", {}),
    "alpaca-pairs": ("alpaca", {"pairwise": True, "rankings_per_step": 48}),
}


def dialogue_read(text: str) -> list[dict[str, str]]:
    """Messages of "\\n\\nHuman: … \\n\\nAssistant: …"."""
    messages = []
    for turn in text.split("\n\nHuman: ")[1:]:
        asked, *answers = turn.split("\n\nAssistant: ")
        messages.append({"role": "user", "content": asked.strip()})
        messages += [{"role": "assistant", "content": one.strip()} for one in answers]
    return messages


def pairs_make(path: Path, tokenizer: Any, *, max_tokens: int) -> Iterator[RankingRecord]:
    """The human choices whose dialogues differ in their last answer alone and fit."""
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        row = json_strict(line)
        chosen, rejected = dialogue_read(row["chosen"]), dialogue_read(row["rejected"])
        messages = chosen[:-1]
        roles = [one["role"] for one in chosen]
        if messages != rejected[:-1] or roles != ["user", "assistant"] * (len(chosen) // 2):
            continue
        texts = (chosen[-1]["content"], rejected[-1]["content"])
        prompt_tokens = len(prompt_render(tokenizer, messages))
        longest = max(len(answer_encode(tokenizer, text, "stop")) for text in texts)
        if prompt_tokens + longest > max_tokens or not all(texts) or texts[0] == texts[1]:
            continue
        prompt_id = content_hash(messages)
        ids = [hashlib.sha256(f"{prompt_id} {text}".encode()).hexdigest()[:32] for text in texts]
        candidates = [
            {
                "id": one,
                "text": text,
                "finish_reason": "stop",
                "token_count": None,
                "model_version": None,
            }
            for one, text in zip(ids, texts, strict=True)
        ]
        yield RankingRecord(
            id=hashlib.sha256(f"pair {ids}".encode()).hexdigest()[:32],
            prompt_id=prompt_id,
            messages=messages,
            split="train",
            tags=[],
            batch=None,
            candidates=sorted(candidates, key=lambda one: str(one["id"])),
            tiers=[[ids[0]], [ids[1]]],
            unacceptable=[],
            annotator="hh-rlhf crowd",
            is_simulated=False,
            shown_order=[],
            active_s=0.0,
            rationale="",
            guideline=None,
        )


def split_make(records: Iterator[RankingRecord], *, train: int, test: int) -> list[RankingRecord]:
    """The first `train` prompts in the order of their hashes, and the next `test`, held out."""
    first: dict[str, RankingRecord] = {}
    for record in records:
        first.setdefault(record.prompt_id, record)
    chosen = [first[prompt_id] for prompt_id in sorted(first)][: train + test]
    return [
        replace(record, split="train" if place < train else "held_out")
        for place, record in enumerate(chosen)
    ]


def inputs_prepare(folder: Path, data: Path, *, train: int, test: int, max_tokens: int) -> None:
    """The base model and both data sets, unless they are there."""
    tokenizer = tokenizer_load(smollm2_prepare(folder / "base"))
    for name in ("hh", "alpaca"):
        target = folder / name
        if (target / MANIFEST_NAME).exists():
            continue
        target.mkdir(exist_ok=True)
        if name == "hh":
            records = pairs_make(data / HH, tokenizer, max_tokens=max_tokens)
            chosen = split_make(records, train=train, test=test)
        else:
            rows = rows_read(data / ALPACA, folder)
            # Four answers each, of which K-wise training reads each once and pairs three times.
            for row in rows:
                row["responses"] = row["responses"][::2][:4]
            records = records_make(
                rows, tokenizer, max_tokens=max_tokens, answers=4, dropped=Counter()
            )
            chosen = split_make(records, train=train // 4, test=test // 4)
        records_write(target / "rankings.jsonl", chosen)
        manifest_write(target)
        splits = Counter(record.split for record in chosen)
        tell(f"{name}: {', '.join(f'{count} {split}' for split, count in splits.items())}")


def baselines_report(folder: Path, name: str, *, max_tokens: int) -> dict[str, Any]:
    """What length and word counts alone make of a data set's held-out pairs; no model is loaded."""
    from alignment.ml.configs import RewardConfig
    from alignment.ml.data import rankings_load
    from alignment.ml.reward.baselines import BagOfWords
    from alignment.ml.reward.report import ranking_report

    tokenizer = tokenizer_load(folder / "base")
    data = rankings_load(folder / name / "rankings.jsonl", tokenizer, max_tokens=max_tokens)
    groups = data.of_split("held_out")
    words = BagOfWords(data.of_split("train")).scores(groups)
    report = ranking_report(words, groups, RewardConfig())
    assert report is not None
    return report


def variant_run(
    folder: Path, data: str, name: str, changed: dict[str, Any], *, max_tokens: int
) -> dict[str, Any]:
    """Run a variant, unless its result is there; returns the result."""
    config = {**SHARED, "max_tokens": max_tokens, **changed}
    inputs = {"base": folder / "base", "rankings": folder / data}
    return program_run(folder / "runs" / name, "reward", config, inputs)


def ensemble_run(folder: Path, seeds: int, *, max_tokens: int) -> Iterator[dict[str, Any]]:
    """Train the members; the result of each, and behind them that of all as one."""
    members = {f"reward_{seed + 1}": f"hh-seed-{seed}" for seed in range(seeds)}
    for seed, name in enumerate(members.values()):
        yield variant_run(folder, "hh", name, {"seed": seed}, max_tokens=max_tokens)
    config = {"combine": "weight_average", "budget_tokens": 2048, "max_tokens": max_tokens}
    runs = {role: folder / "runs" / name / "outputs" / "model" for role, name in members.items()}
    inputs = {**runs, "rankings": folder / "hh"}
    yield program_run(folder / "runs" / "hh-ensemble", "reward_ensemble", config, inputs)


def line_of(name: str, result: dict[str, Any]) -> str:
    held_out = result["held_out"]

    def share(figure: str) -> str:
        low, high = held_out[f"{figure}_low"], held_out[f"{figure}_high"]
        return f"{held_out[figure]:.1%} [{low:.1%}, {high:.1%}]"

    return (
        f"{name:16}  {share('accuracy'):24}  length {held_out['length_accuracy']:.1%}  "
        f"words {held_out['bag_of_words_accuracy']:.1%}  ECE {held_out['calibration_error']:.3f}  "
        f"loss {held_out['loss']:.3f}  {result['train']['seconds']:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("RONDO_SHARED_DATA", "../shared/data")),
        help=f"folder that holds {HH} and {ALPACA}",
    )
    parser.add_argument("--folder", type=Path, default=Path("var/reward-methods"))
    parser.add_argument("--train", type=int, default=400, help="pairs; a quarter as many rankings")
    parser.add_argument("--test", type=int, default=300, help="the same, held out")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--max-tokens", type=int, default=384, help="of a prompt with an answer")
    parser.add_argument("--baselines", action="store_true", help="train no reward model")
    parser.add_argument("--seeds", type=int, default=0, help="train an ensemble of so many members")
    arguments = parser.parse_args()
    folder, max_tokens = arguments.folder, arguments.max_tokens
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": arguments.train, "test": arguments.test, "max_tokens": max_tokens}
    inputs_prepare(folder, arguments.data, **sizes)
    if arguments.baselines:
        for name in ("hh", "alpaca"):
            report = baselines_report(folder, name, max_tokens=max_tokens)
            print(json.dumps({"words on": name, **report}), flush=True)
        return
    kept = ("held_out", "held_out_tables", "ensemble", "train")
    if arguments.seeds:
        for result in ensemble_run(folder, arguments.seeds, max_tokens=max_tokens):
            print(json.dumps({key: result[key] for key in kept if key in result}), flush=True)
        return
    lines = []
    for name in arguments.only:
        started = time.monotonic()
        data, changed = VARIANTS[name]
        result = variant_run(folder, data, name, changed, max_tokens=max_tokens)
        figures = {key: result[key] for key in kept if key in result}
        seconds = round(time.monotonic() - started, 1)
        print(json.dumps({"variant": name, "seconds": seconds, **figures}), flush=True)
        lines.append(line_of(name, result))
    tell("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
