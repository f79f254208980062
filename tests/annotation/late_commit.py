"""A site that answers first and commits afterwards: what a write-behind cache or queue would do.

Kept as a mutant, with these settings: killed at the wrong moment, it loses what it acknowledged.
"""

import time
from collections.abc import Callable

from django.db import transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from config.settings import *  # noqa: F403

# Within the turn of a request: a lock taken outside would wait for turns that wait for it.
_own = MIDDLEWARE.index("config.turns.TurnsMiddleware") + 1  # noqa: F405
MIDDLEWARE.insert(_own, "tests.annotation.late_commit.LateCommitMiddleware")  # noqa: F405
LATE_S = 0.5


class LateCommitMiddleware:
    """One transaction a submission, which ends some time after its answer was sent."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path.endswith("/submit/"):
            return self.get_response(request)
        around = transaction.atomic()
        around.__enter__()
        response = self.get_response(request)

        def commit() -> None:
            time.sleep(LATE_S)
            around.__exit__(None, None, None)

        # The server closes a response when its last byte has gone to the client.
        response._resource_closers.append(commit)
        return response
