"""An annotator who does not give up: submits until told to stop, and keeps a history of it.

    python -m benchmarks.patient_annotator PORT SESSION PROJECT HISTORY STOP

Works until the file STOP is there, and then ends what was begun. Whatever gets no answer is asked
again, a submission under its own Idempotency-Key. HISTORY has a line of JSON for each thing that
happened, written before the next thing is done:

    {"op": "ask", "assignment", "better", "degree"}        about to submit; may or may not arrive
    {"op": "retry", "of": "submit" or "next", "why"}       no answer came: asked again
    {"op": "ok", "assignment", "submission", "ms"}         acknowledged, so long after asking
    {"op": "refused", "status", "reply"}                   an answer that nobody should get
"""

import json
import random
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.annotators import Annotator

TIMEOUT_S = 60.0  # of one request: a server that is only slow is not asked again
PATIENCE_S = 180.0  # with one thing, however often it is asked for
PAUSE_S = 0.05


class History:
    """What happened to one client, on disk before the client goes on."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", buffering=1, encoding="utf-8")

    def note(self, op: str, **facts: Any) -> None:
        self.file.write(json.dumps({"op": op, **facts}) + "\n")


def asked_until_answered(
    ask: Callable[[], tuple[int, Any]], of: str, history: History
) -> tuple[int, Any]:
    """The reply, however often the connection breaks. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        status, reply = ask()
        if status != 599:
            return status, reply
        history.note("retry", of=of, why=reply)
        time.sleep(PAUSE_S)
    raise TimeoutError(f"no answer to {of} in {PATIENCE_S} s")


def work(annotator: Annotator, history: History, stop: Path) -> None:
    draw, page = random.Random(annotator.headers), None
    while not stop.exists():
        if page is None:
            status, page = asked_until_answered(annotator.next, "next", history)
            if status != 200:
                history.note("refused", status=status, reply=page)
                return
        judgement = {
            "better": draw.choice(page["candidates"])["uid"],
            "degree": draw.randint(1, 4),
            "active_s": 12.5,
        }
        uid, key = page["assignment"]["uid"], secrets.token_hex(16)
        history.note("ask", assignment=uid, better=judgement["better"], degree=judgement["degree"])

        def submit(
            path: str = f"assignments/{uid}/submit/", judgement: Any = judgement, key: str = key
        ) -> tuple[int, Any]:
            return annotator.post(path, judgement, key)

        began = time.monotonic()
        status, reply = asked_until_answered(submit, "submit", history)
        if status != 200:
            history.note("refused", status=status, reply=reply)
            return
        took_ms = round(1000 * (time.monotonic() - began), 1)
        history.note("ok", assignment=uid, submission=reply["submission"]["uid"], ms=took_ms)
        page = reply["next"]


if __name__ == "__main__":
    port, session, project, history, stop = sys.argv[1:]
    work(
        Annotator(int(port), session, project, timeout_s=TIMEOUT_S),
        History(Path(history)),
        Path(stop),
    )
