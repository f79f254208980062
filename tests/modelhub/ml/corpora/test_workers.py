"""The same function by several processes: in order, and never waiting for one that is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelhub.ml.corpora.workers import chunks_map


def doubled(number: int) -> int:
    return 2 * number


def killed_by_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refusing(number: int) -> int:
    raise ValueError(f"chunk {number}")


def test_chunks_come_back_in_their_order() -> None:
    assert list(chunks_map(doubled, range(20), workers=2)) == list(range(0, 40, 2))


def test_a_process_that_is_killed_ends_the_work_and_says_so() -> None:
    with pytest.raises(RuntimeError, match="one of 2 processes was killed"):
        list(chunks_map(killed_by_three, range(9), workers=2))


def test_what_a_chunk_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="chunk 0"):
        list(chunks_map(refusing, range(9), workers=2))


def modules(_number: int) -> set[str]:
    import pyarrow as pa

    pa.table({"a": ["b"]}).to_pylist()
    return set(sys.modules)


def test_arrow_goes_without_pandas_in_a_worker() -> None:
    (loaded,) = chunks_map(modules, [0], workers=2)
    assert "pyarrow" in loaded
    assert "pandas" not in loaded


FORSAKEN = """
import os, time
from modelhub.ml.corpora.workers import chunks_map

def sleeping(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(600)

if __name__ == "__main__":
    list(chunks_map(sleeping, [PATH] * 4, workers=2))
"""


def test_processes_die_with_the_one_that_began_them(tmp_path: Path) -> None:
    program, pids = tmp_path / "forsaken.py", tmp_path / "pids"
    program.write_text(FORSAKEN.replace("PATH", repr(str(pids))))
    root = Path(__file__).parents[4]
    started = subprocess.Popen(
        [sys.executable, str(program)], env=os.environ | {"PYTHONPATH": str(root)}
    )
    workers: list[int] = []
    deadline = time.monotonic() + 60
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        workers = [int(line) for line in pids.read_text().split()] if pids.exists() else []
    assert len(workers) == 2
    started.kill()
    started.wait()
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
