"""A benchmark's parts, run as its `__main__` runs them, of a package made here."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.parts import parts_of

ROOT = Path(__file__).resolve().parents[2]
MAIN = """
from benchmarks.parts import parts_run

parts_run(__file__, __package__, about="What it measures.", part="part")
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "bench_two"
    folder.mkdir()
    for name, text in {
        "__init__": "",
        "__main__": MAIN,
        "_side": "raise SystemExit(3)",
        "broken": "raise SystemExit(3)",
        "sound": "print('measured')",
    }.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def run(package: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench_two", *parts],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{package.parent}:{ROOT}"},
    )


def test_every_method_that_trl_trains_has_a_part() -> None:
    found = set(parts_of(ROOT / "benchmarks" / "bench_training"))
    assert found >= {"reward", "sft", "dpo", "kto", "orpo", "rloo", "grpo", "online_dpo", "ppo"}


def test_parts_are_the_modules_without_an_underscore(package: Path) -> None:
    assert parts_of(package) == ["broken", "sound"]


def test_a_part_that_fails_is_named_behind_the_last(package: Path) -> None:
    done = run(package)
    assert done.returncode == 1
    assert done.stdout == "measured\n"
    assert done.stderr == "failed: broken\n"


def test_a_part_is_run_alone_where_it_is_named(package: Path) -> None:
    assert run(package, "sound").returncode == 0
    refused = run(package, "nothing")
    assert refused.returncode == 2
    assert "no such part: nothing; there are broken, sound" in refused.stderr
