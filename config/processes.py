"""Keeping a few child processes alive in one terminal."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_PR_SET_PDEATHSIG = 1
RESTART_DELAYS_S = (0.5, 1, 2, 5, 10)
_STEADY_S = 30  # alive this long, a process's earlier crashes are forgotten


@dataclass
class Process:
    """One kind of child: how to start it, how to end it, and how often it crashed lately.

    `orphan_signal` is what the kernel sends it when its supervisor is killed outright.
    """

    name: str
    command: Sequence[str]
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGTERM
    child: subprocess.Popen[str] | None = None
    started_at: float = 0.0
    crashes: int = 0
    restart_at: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)


class Supervisor:
    """Starts processes, prefixes what they say, restarts what dies, and stops them all in order.

    Each child is a process group of its own, so that Ctrl-C reaches the supervisor alone and every
    child is asked to stop once, in reverse order of starting.
    """

    def __init__(self, processes: Sequence[Process], say: Callable[[str, str], None]) -> None:
        self.processes = list(processes)
        self.say = say
        self.stopping = False

    def start(self) -> None:
        for process in self.processes:
            self._start(process)

    def watch(self, interval_s: float = 0.3) -> None:
        """Restart what dies, until `stop` is called or a signal handler sets `stopping`."""
        while not self.stopping:
            for process in self.processes:
                self._look_after(process)
            time.sleep(interval_s)

    def stop(self, grace_s: float = 30.0) -> None:
        """Ask every child to stop, wait at most `grace_s` seconds, then kill what is left."""
        self.stopping = True
        deadline = time.monotonic() + grace_s
        for process in reversed(self.processes):
            self._signal(process, process.stop_signal)
        for process in reversed(self.processes):
            if process.child is None:
                continue
            try:
                process.child.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(process.name, f"did not stop within {grace_s:.0f} s; killed")
                self._signal(process, signal.SIGKILL)
                process.child.wait()

    def _start(self, process: Process) -> None:
        supervisor = os.getpid()

        def die_with_supervisor() -> None:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, process.orphan_signal)
            if os.getppid() != supervisor:
                os._exit(1)

        process.child = subprocess.Popen(
            process.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **process.environment},
            process_group=0,
            preexec_fn=die_with_supervisor if sys.platform == "linux" else None,
        )
        process.started_at = time.monotonic()
        threading.Thread(target=self._relay, args=(process, process.child), daemon=True).start()

    def _relay(self, process: Process, child: "subprocess.Popen[str]") -> None:
        assert child.stdout is not None  # noqa: S101  (it was opened as a pipe)
        for line in child.stdout:
            self.say(process.name, line.rstrip())

    def _look_after(self, process: Process) -> None:
        now = time.monotonic()
        if process.child is None:
            if now >= process.restart_at:
                self._start(process)
            return
        code = process.child.poll()
        if code is None:
            if now - process.started_at > _STEADY_S:
                process.crashes = 0
            return
        delay = RESTART_DELAYS_S[min(process.crashes, len(RESTART_DELAYS_S) - 1)]
        self.say(process.name, f"ended with status {code}; starting it again in {delay} s")
        process.crashes += 1
        process.child, process.restart_at = None, now + delay

    def _signal(self, process: Process, number: signal.Signals) -> None:
        if process.child is not None and process.child.poll() is None:
            os.killpg(process.child.pid, number)
