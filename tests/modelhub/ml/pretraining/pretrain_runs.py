"""Token sets, tokenizers and run directories of pretraining, for its tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.alignment.ml.programs import lines_of, run_make
from tests.tiny_model import tiny_tokenizer

TINY = {
    "architecture": "gpt2",
    "size": "tiny",
    "block_tokens": 32,
    "steps": 12,
    "blocks_per_step": 4,
    "blocks_per_pass": 2,
    "warmup_steps": 2,
    "lr": 3e-3,
    "validation_blocks": 4,
    "evaluate_every_steps": 5,
    "checkpoint_every_steps": 4,
}


def tokenizer_write(folder: Path) -> Path:
    tiny_tokenizer().save_pretrained(folder)
    return folder


def sums(first: int, count: int) -> list[str]:
    """Documents with something to learn."""
    return [
        f"{number} and {number} are {2 * number}; {number} times {number} is {number**2}."
        for number in range(first, first + count)
    ]


def cities(first: int, count: int) -> list[str]:
    """Another kind of document."""
    return [
        f"City {number * 7} lies {number} miles from the SEA!" for number in range(first, count)
    ]


def shards_write(folder: Path, documents: Sequence[str]) -> Path:
    """A token set of texts, each ended by the tokenizer's end of text."""
    folder.mkdir(parents=True)
    tokenizer = tiny_tokenizer()
    tokens: list[int] = []
    ends: list[int] = []
    for document in documents:
        tokens += [*tokenizer.encode(document), tokenizer.eos_token_id]
        ends.append(len(tokens))
    np.array(tokens, dtype=np.uint16).tofile(folder / "t.ds")
    np.array(ends, dtype=np.uint64).tofile(folder / "t.ds.index")
    return folder


def pretrain_run(folder: Path, tokenizer: Path, inputs: Mapping[str, Path], **config: Any) -> Path:
    given = {"tokenizer": tokenizer, **inputs}
    if "base" in inputs:
        del given["tokenizer"]
    return run_make(folder, "pretrain", given, {**TINY, **config})


def figures_of(run: Path, name: str) -> list[float]:
    """The last value of a metric at each step that has it, in the steps' order."""
    found = {}
    for line in lines_of(run / "metrics.jsonl"):
        if name in line["values"]:
            found[line["step"]] = line["values"][name]
    return [found[step] for step in sorted(found)]
