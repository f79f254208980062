"""What `make` does with a person's data, and what it lets reach the network."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def make(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    return subprocess.run(
        ["make", "--file", str(ROOT / "Makefile"), "--directory", str(folder), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_clean_says_what_it_would_delete_and_deletes_when_told_so(tmp_path: Path) -> None:
    labels = tmp_path / "var" / "rondo.sqlite3"
    labels.parent.mkdir()
    labels.write_text("labels")
    asked = make(tmp_path, "clean")
    assert asked.returncode != 0
    assert "every account and label" in asked.stderr and "CONFIRM=1" in asked.stderr
    assert labels.read_text() == "labels"
    assert make(tmp_path, "clean", "CONFIRM=1").returncode == 0
    assert not labels.parent.exists()


@pytest.mark.parametrize(
    ("target", "offline"), [("up", "unset"), ("demo", "1"), ("unit", "1"), ("bench-reward", "1")]
)
def test_only_the_site_that_somebody_uses_may_reach_the_hub(
    tmp_path: Path, target: str, offline: str
) -> None:
    for name in ("pyproject.toml", "cpu-excludes.txt", "constraints-cpu.txt"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "offline: ${HF_HUB_OFFLINE-unset}"\n')
    python.chmod(0o700)
    (tmp_path / ".venv" / ".installed").touch()
    done = make(tmp_path, target)
    assert done.returncode == 0, done.stderr
    assert f"offline: {offline}\n" in done.stdout
