"""How far a program is, as a line of a terminal: for whoever starts it by hand. Standard library.

A log file gets none; the site draws its own of the run's progress.json.
"""

import math
import sys
import time

_WIDTH = 20  # of the bar, characters


class ProgressBar:
    """One line on standard error, drawn anew at every call. What is printed goes over it."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None  # (seconds, done) at the first call

    def draw(self, done: int, total: int, unit: str) -> None:
        """unit: "steps". Nothing is drawn where standard error is no terminal."""
        if not sys.stderr.isatty():
            return
        now = time.monotonic()
        if self._began is None or done < self._began[1]:
            self._began = (now, done)
        filled = _WIDTH * done // total if total > 0 else _WIDTH
        bar = "#" * filled + "-" * (_WIDTH - filled)
        left = _left_tell(self._began, done, total, now)
        end = "\n" if done >= total else "\r"
        sys.stderr.write(f"\r\x1b[K[{bar}] {done}/{total} {unit}{left}{end}")
        sys.stderr.flush()


def _left_tell(began: tuple[float, int], done: int, total: int, now: float) -> str:
    """At the pace since the bar began, a resumed run's own."""
    since, first = began
    if done <= first or done >= total:
        return ""
    seconds = (now - since) / (done - first) * (total - done)
    return f", {seconds:.0f} s left" if seconds < 90 else f", {math.ceil(seconds / 60)} min left"
