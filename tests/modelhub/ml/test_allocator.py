"""Freed memory stays in a process that trains on the CPU."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ml

PROGRAM = """
import resource, sys
import torch
from modelhub.ml.parallel import processes_start
torch.cuda.is_available = lambda: sys.argv[2] == "cuda"
if sys.argv[1] == "keep":
    processes_start()

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


def faults_of_five_steps(mode: str, device: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode, device],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(
    ("mode", "device", "is_kept"),
    [("keep", "cpu", True), ("keep", "cuda", False), ("plain", "cpu", False)],
)
def test_steps_that_follow_fault_in_no_pages_again(mode, device, is_kept):
    # Five steps of 60 MB touch 76,800 pages of 4 kB.
    faults = faults_of_five_steps(mode, device)
    assert faults < 1000 if is_kept else faults > 10_000
