"""Run directories for tests, and real processes that work in them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from modelhub.ml.manifest import manifest_write

ROOT = Path(__file__).resolve().parents[3]


def run_write(folder: Path, program: str, config: dict[str, Any], **inputs: Path) -> Path:
    """A run directory with its config.json. `inputs`: role → folder, whose manifest is written."""
    folder.mkdir(parents=True)
    described = {}
    for role, path in inputs.items():
        described[role] = {"path": str(path), "sha256": manifest_write(path)}
    document = {"program": program, "config": config, "inputs": described}
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def prompts_write(folder: Path, count: int, *, words: int = 3) -> Path:
    """A prompts artifact of short, different prompts. Every third is longer."""
    folder.mkdir(parents=True)
    lines = [
        json.dumps(
            {
                "prompt_id": f"p{number}",
                "messages": [
                    {"role": "user", "content": f"{number} word" + " word" * words * (number % 3)}
                ],
            }
        )
        for number in range(count)
    ]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def program_start(module: str, run: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, printing to the run's log.txt."""
    with (run / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(run)],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )


def program_finish(module: str, run: Path, **environment: str) -> dict[str, Any]:
    """Run a program to its end and return what result.json says of it."""
    process = program_start(module, run, **environment)
    status = process.wait(timeout=600)
    assert status == 0, (run / "log.txt").read_text()[-3000:]
    return json.loads((run / "result.json").read_text())["result"]


def session_members(leader: int) -> list[int]:
    """Living processes of the session that `leader` began."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if fields and int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(folder.name))
    return found
