"""The supervisor, with real processes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from config.processes import Process, Supervisor


def wait_until(condition, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def said() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def supervise(said):
    """Start a supervisor over processes and stop it at the end of the test."""
    started: list[tuple[Supervisor, threading.Thread]] = []

    def start(*processes: Process) -> Supervisor:
        supervisor = Supervisor(processes, lambda name, line: said.append((name, line)))
        supervisor.start()
        thread = threading.Thread(target=supervisor.watch, kwargs={"interval_s": 0.05})
        thread.start()
        started.append((supervisor, thread))
        return supervisor

    yield start
    for supervisor, thread in started:
        supervisor.stop(grace_s=5)
        thread.join()


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", textwrap.dedent(code)]


def test_what_a_child_says_carries_its_name(supervise, said) -> None:
    supervise(Process("web", python("import time; print('hello'); time.sleep(60)")))
    wait_until(lambda: ("web", "hello") in said)


def test_a_child_that_dies_is_started_again(supervise, said) -> None:
    process = Process("web", python("import time; print('up'); time.sleep(60)"))
    supervise(process)
    wait_until(lambda: said.count(("web", "up")) == 1)
    os.kill(process.child.pid, signal.SIGKILL)
    wait_until(lambda: said.count(("web", "up")) == 2)
    assert any("starting it again" in line for _, line in said)


def test_stopping_asks_first_and_kills_what_does_not_listen(said) -> None:
    polite = Process("polite", python("import time; print('up'); time.sleep(60)"))
    deaf = Process(
        "deaf",
        python("""
            import signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print('up'); time.sleep(60)
        """),
    )
    supervisor = Supervisor([polite, deaf], lambda name, line: said.append((name, line)))
    supervisor.start()
    wait_until(lambda: said.count(("deaf", "up")) == 1 and said.count(("polite", "up")) == 1)
    supervisor.stop(grace_s=1)
    assert polite.child.returncode == -signal.SIGTERM
    assert deaf.child.returncode == -signal.SIGKILL


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = f"""
        import pathlib, sys, time
        from config.processes import Process, Supervisor
        process = Process("child", [sys.executable, "-c", "import time; time.sleep(60)"])
        supervisor = Supervisor([process], print)
        supervisor.start()
        pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(process.child.pid))
        time.sleep(60)
    """
    supervisor = subprocess.Popen(python(script))
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    assert is_running(child)
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not is_running(child))
