"""How many requests a web process computes at once: fewer than it holds.

Python computes one thread at a time. Eight threads that all have something to compute pass the
interpreter's lock back and forth, and the database's answers wait for it: with four at a time the
same two processes take in more submissions each second (docs/experiments.md). Threads beyond these
are for answers that stream, such as a dialogue's: a stream is written after its turn.
"""

import threading
from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

AT_ONCE = 4
_turns = threading.BoundedSemaphore(AT_ONCE)


class TurnsMiddleware:
    """Take a turn for all of a request but the writing of its answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        with _turns:
            return self.get_response(request)
