"""Programs in forks of one process that has imported vLLM: most of what a tiny run with it costs.

    python -m tests.modelhub.ml.forks    reads and answers lines of JSON

(The fork server of ranks.py serves all tests of a process; who needs no vLLM would wait for it.)
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelhub.ml.rundir import program_run
from tests.modelhub.ml.runs import ROOT

_PRELOADED = ["alignment.ml.ppo.__main__", "modelhub.ml.generate", "modelhub.ml.engines.vllm"]


class Forks:
    """Starts programs, each in a session of its own, and waits for them."""

    def __init__(self, mother: "subprocess.Popen[str]") -> None:
        self._mother = mother
        self.started: set[int] = set()

    def start(self, program: str, run: Path) -> int:
        """Start "module:function" on a run directory, printing to its log.txt. Returns its pid."""
        pid = int(self._ask({"program": program, "run": str(run)}))
        self.started.add(pid)
        return pid

    def wait(self, pid: int) -> int:
        """Its exit status, or the signal that killed it, negative."""
        status = int(self._ask({"wait": pid}))
        self.started.discard(pid)
        return status

    def finish(self, program: str, run: Path) -> str:
        """Run a program to its end, which must be a good one. Returns what it printed."""
        status = self.wait(self.start(program, run))
        log = (run / "log.txt").read_text()
        assert status == 0, log[-3000:]
        return log

    def _ask(self, value: Any) -> Any:
        assert self._mother.stdin and self._mother.stdout
        print(json.dumps(value), file=self._mother.stdin, flush=True)
        return json.loads(self._mother.stdout.readline())


@contextlib.contextmanager
def forks_open() -> Iterator[Forks]:
    mother = subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    forks = Forks(mother)
    try:
        yield forks
    finally:
        for pid in forks.started:  # one that a failed test left, and what it started itself
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        mother.kill()
        mother.communicate()


def _work(program: str, run: str) -> int:
    log = os.open(Path(run) / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    module, _, function = program.partition(":")
    sys.argv = [module, run]
    try:
        program_run(getattr(importlib.import_module(module), function))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed on the way is no answer
    for name in _PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
        else:
            started, starting = os.pipe()
            if not (answer := os.fork()):
                os.setsid()
                for ours in (started, starting):
                    os.close(ours)
                answers.close()  # a program that hangs holds no reader of the answers
                os._exit(_work(asked["program"], asked["run"]))
            os.close(starting)
            os.read(started, 1)  # until its session is its own: whoever looks for it finds it
            os.close(started)
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
