"""What a terminal shows of a program started by hand, and that a log file gets nothing of it."""

import contextlib
import json
import os
import pty
import sys

import pytest

from modelhub.ml import progress_bar
from modelhub.ml.rundir import RunDir


@pytest.fixture
def run(tmp_path):
    description = {"program": "any", "config": {}, "inputs": {}}
    (tmp_path / "config.json").write_text(json.dumps(description))
    return RunDir(tmp_path)


def test_a_terminal_has_a_bar_with_the_time_that_is_left(run, monkeypatch):
    ours, theirs = pty.openpty()
    clock = iter([100.0, 110.0, 400.0, 500.0])
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: next(clock))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        for done in (2, 3, 4, 12):  # a run that goes on behind its second step
            run.progress(done, 12, "steps")
    told = b""
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while part := os.read(ours, 4096):
            told += part
    os.close(ours)
    shown = told.decode().replace("\x1b[K", "").replace("\r", "\n").split("\n")
    assert [line for line in shown if line] == [
        "[###-----------------] 2/12 steps",
        "[#####---------------] 3/12 steps, 2 min left",
        "[######--------------] 4/12 steps, 20 min left",
        "[####################] 12/12 steps",
    ]


def test_a_log_file_has_none(run, capsys):
    run.progress(1, 2, "steps")
    assert capsys.readouterr().err == ""
    assert json.loads((run.path / "progress.json").read_text())["done"] == 1
