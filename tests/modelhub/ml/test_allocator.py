"""Freed memory stays in the process."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import resource, sys
from modelhub.ml.allocator import memory_keep
if sys.argv[1] == "keep" and not memory_keep():
    raise SystemExit("no mallopt here")

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    for block in [bytearray(megabytes << 20) for megabytes in (20, 40)]:
        block[::4096] = b"x" * len(block[::4096])

step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


def faults_of_five_steps(mode: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_steps_that_follow_fault_in_no_pages_again():
    # Five steps of 60 MB touch 76,800 pages of 4 kB.
    assert faults_of_five_steps("keep") < 1000
    assert faults_of_five_steps("plain") > 10_000
