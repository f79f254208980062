"""End a process that hangs. A rank that waits for ever keeps all others and their machines idle.

A thread waits for a sign of life after every step, and after each stage before the first and behind
the last. If none comes in time it prints where every
thread stands and ends the process; its launcher then starts all ranks again from the newest
checkpoint (modelhub/ml/launch.py), and the runner another attempt.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_HUNG = 4


class Watchdog:
    """Alive while `beat` is called at least every `timeout_s` seconds."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._last = time.monotonic()
        self._ended = threading.Event()

    def beat(self) -> None:
        self._last = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self.timeout_s / 4)):
            silent_s = time.monotonic() - self._last
            if silent_s > self.timeout_s:
                print(
                    f"no sign of life for {silent_s:.0f} s; every thread stands here:",
                    file=sys.stderr,
                )
                faulthandler.dump_traceback(file=sys.stderr)
                sys.stderr.flush()
                os._exit(EXIT_HUNG)  # a thread that hangs in a collective can be ended no other way


@contextmanager
def watchdog(timeout_s: float) -> Iterator[Watchdog]:
    """Watch over the block; 0 seconds: watch over nothing."""
    dog = Watchdog(timeout_s)
    if timeout_s:
        threading.Thread(target=dog._watch, name="watchdog", daemon=True).start()
    try:
        yield dog
    finally:
        dog._ended.set()
