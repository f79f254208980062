"""Annotators as a benchmark has them: threads with a session, a kept connection and no patience."""

import contextlib
import json
import queue
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.servers import Workers

clock = time.perf_counter


@dataclass
class Answered:
    """What the clients of a phase saw. Times in milliseconds."""

    times_ms: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)  # uids of submissions
    failures: int = 0
    refusals: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_ms: float = 0.0
    postgres_cpu_ms: float = 0.0
    client_cpu_ms: float = 0.0

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.times_ms)
        place = min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))
        return round(ordered[place], 1) if ordered else float("nan")

    def each(self, cpu_ms: float) -> float:
        return round(cpu_ms / max(1, len(self.times_ms)), 2)


class Annotator:
    """One person's browser: a session, a connection that is kept, and no patience."""

    def __init__(self, port: int, session: str, project: str, *, timeout_s: float = 60.0) -> None:
        self.port, self.project, self.timeout_s = port, project, timeout_s
        token = secrets.token_hex(16)
        self.headers = (
            f"Host: 127.0.0.1:{port}\r\nX-Forwarded-Proto: https\r\n"
            f"Origin: https://127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Cookie: sessionid={session}; csrftoken={token}\r\nX-CSRFToken: {token}\r\n"
        )
        self.socket: socket.socket | None = None
        self.reader: Any = None

    def connect(self) -> socket.socket:
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), self.timeout_s)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.reader = self.socket.makefile("rb")
        return self.socket

    def post(self, path: str, body: Any, key: str = "") -> tuple[int, Any]:
        """The status and the JSON of a reply; 599 and why where the connection broke."""
        data = json.dumps(body).encode()
        extra = f"Idempotency-Key: {key}\r\n" if key else ""
        head = f"POST /api/v1/{path} HTTP/1.1\r\n{self.headers}{extra}Content-Length: {len(data)}"
        try:
            self.connect().sendall(f"{head}\r\n\r\n".encode() + data)
            status = int(self.reader.readline().split()[1])
            length, closes = 0, False
            while (line := self.reader.readline().strip().lower()) != b"":
                name, _, value = line.partition(b":")
                if name == b"content-length":
                    length = int(value)
                closes |= name == b"connection" and value.strip() == b"close"
            reply = self.reader.read(length)
            value = json.loads(reply) if length else None  # of half a reply: no JSON
        except (OSError, IndexError, ValueError) as error:
            self.close()
            return 599, repr(error)
        if closes:
            self.close()
        return status, value

    def next(self, after: str = "") -> tuple[int, Any]:
        return self.post(f"projects/{self.project}/next/", {"after": after} if after else {})

    def submit(self, page: dict[str, Any], draw: random.Random, key: str) -> tuple[int, Any]:
        choice = {
            "better": draw.choice(page["candidates"])["uid"],
            "degree": draw.randint(1, 4),
            "active_s": 12.5,
        }
        return self.post(f"assignments/{page['assignment']['uid']}/submit/", choice, key)

    def close(self) -> None:
        if self.socket is not None:
            self.reader.close()
            self.socket.close()
        self.socket = None


def together(works: list[Callable[[Answered], None]], workers: Workers) -> Answered:
    """Do the works at once, each in a thread; what they saw, added up."""
    seen = [Answered() for _ in works]
    threads = [
        threading.Thread(target=work, args=(answered,))
        for work, answered in zip(works, seen, strict=True)
    ]
    before, clients_before, started = workers.cpu_ms(), time.process_time(), clock()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    web_ms, database_ms = (
        after - earlier for after, earlier in zip(workers.cpu_ms(), before, strict=True)
    )
    total = Answered(
        wall_s=clock() - started,
        cpu_ms=web_ms,
        postgres_cpu_ms=database_ms,
        client_cpu_ms=1000 * (time.process_time() - clients_before),
    )
    for one in seen:
        total.times_ms += one.times_ms
        total.acknowledged += one.acknowledged
        total.failures += one.failures
        total.refusals += one.refusals
    return total


def count(answered: Answered, status: int, reply: Any) -> None:
    if status >= 500:
        answered.failures += 1
        answered.refusals.append("cut off" if status == 599 else f"{status} {reply}")
    elif status not in (200, 204):
        answered.refusals.append(f"{status} {reply}")


def next_phase(
    annotators: queue.SimpleQueue[Annotator], clients: int, calls: int, workers: Workers
) -> Answered:
    """Each annotator asks twice: for a task, and for the one after it."""
    turns = queue.SimpleQueue[int]()
    for turn in range(max(1, calls // 2)):
        turns.put(turn)

    def work(answered: Answered) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                turns.get_nowait()
                annotator = annotators.get_nowait()
                annotator.connect()
                after = ""
                for _ in range(2):
                    began = clock()
                    status, reply = annotator.next(after)
                    answered.times_ms.append(1000 * (clock() - began))
                    count(answered, status, reply)
                    if status == 200:
                        after = reply["assignment"]["uid"]
                annotator.close()

    return together([work] * clients, workers)


def submit_phase(annotators: list[Annotator], seconds: float, workers: Workers) -> Answered:
    """Each annotator submits what they were given, and goes on with what the reply holds."""
    deadline = clock() + seconds

    def work_of(number: int, annotator: Annotator, page: Any) -> Callable[[Answered], None]:
        draw = random.Random(number)

        def work(answered: Answered) -> None:
            current = page
            while current is not None and clock() < deadline:
                key = secrets.token_hex(16)
                began = clock()
                status, reply = annotator.submit(current, draw, key)
                if status == 599:  # the reply was lost: ask again, under the same key
                    count(answered, status, reply)
                    status, reply = annotator.submit(current, draw, key)
                answered.times_ms.append(1000 * (clock() - began))
                count(answered, status, reply)
                if status != 200:
                    break
                answered.acknowledged.append(reply["submission"]["uid"])
                current = reply["next"]

        return work

    pages = [annotator.next()[1] for annotator in annotators]
    for annotator in annotators:  # the server has hung up on those that waited for the others
        annotator.close()
        annotator.connect()
    works = [work_of(*one) for one in zip(range(len(pages)), annotators, pages, strict=True)]
    deadline = clock() + seconds
    return together(works, workers)
