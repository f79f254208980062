"""A run of a program by hand, as the benchmarks make theirs: begun, gone on with, or taken as it
is."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from config.settings import RUN_PROGRAMS
from modelhub.ml.manifest import MANIFEST_NAME, manifest_sha256, manifest_write
from modelhub.ml.records import json_canonical


def program_run(
    folder: Path, program: str, config: Mapping[str, Any], inputs: Mapping[str, Path]
) -> dict[str, Any]:
    """Run a program on a folder, unless it has already ended there; its result.

    A run of other settings or other inputs that the folder holds is removed first: its checkpoints
    would be gone on from.
    """
    described = {
        "program": program,
        "config": config,
        "inputs": {
            role: {"path": str(path.resolve()), "sha256": _sha256(path)}
            for role, path in inputs.items()
        },
    }
    text, kept = json_canonical(described), folder / "config.json"
    if kept.exists() and kept.read_text() != text:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(text)
    if not (folder / "result.json").exists():
        subprocess.run(
            [sys.executable, "-m", RUN_PROGRAMS[program], str(folder)],
            check=True,
            stdout=sys.stderr,
        )
    return dict(json.loads((folder / "result.json").read_text())["result"])


def reference_parser(description: str | None, folder: str) -> argparse.ArgumentParser:
    """A parser of what every comparison takes: where its data lie, and where it works.

    description: the module's; its first line is shown. folder: the default.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    data = Path(os.environ.get("RONDO_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder of shared data")
    parser.add_argument("--folder", type=Path, default=Path(folder), help="what is made lies here")
    return parser


def settings_read(given: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Settings of (name, value) pairs: a value is JSON, or else the words that stand there."""
    found: dict[str, Any] = {}
    for name, value in given:
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def metrics_table(folder: Path, *names: str, every: int = 1) -> str:
    """What a run told of these figures, as a table: a line a step at which it told all of them.

    names: as in metrics.jsonl. A step told twice, as behind a kill, counts as it was told last.
    every: a line is the mean over so many steps in a row.
    """
    by_step: dict[int, Mapping[str, float]] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        if set(names) <= told["values"].keys():
            by_step[told["step"]] = told["values"]
    head = ["step" if every == 1 else "steps", *(name.replace("_", " ") for name in names)]
    steps, rows = sorted(by_step), []
    for start in range(0, len(steps), every):
        own = steps[start : start + every]
        which = str(own[0]) if len(own) == 1 else f"{own[0]}–{own[-1]}"
        means = (fmean(by_step[step][name] for step in own) for name in names)
        rows.append([which, *(f"{mean:.4g}" for mean in means)])
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _sha256(folder: Path) -> str:
    """Of the folder as it is now. A manifest that says how the files were made stays."""
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_text()) if path.exists() else {}
    return manifest_sha256(manifest) if "origin" in manifest else manifest_write(folder)
