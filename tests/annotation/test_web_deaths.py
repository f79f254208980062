"""RELIABILITY D12 and D13: web workers die, or are replaced, while people submit.

What was acknowledged is in the database, once; whoever got no answer asks again under the same key.
"""

import contextlib
import json
import os
import queue
import random
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench_annotation import Annotator, Workers, managed, web
from tests.postgres import port_free, postgres_url  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow
DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
CLIENTS, TASKS, KILLS, BETWEEN_KILLS, PATIENCE_S = 8, 4000, 30, 18, 10.0


class Site:
    """A filled database, the production server on it, and eight people who are signed in."""

    def __init__(self, environment: dict[str, str], workers: Workers, filled: Any, port: int):
        self.environment, self.workers = environment, workers
        self.acknowledged = 0  # so far, about
        self.annotators = [Annotator(port, key, filled["project"]) for key in filled["sessions"]]

    def acknowledged_wait(self, count: int) -> None:
        """Until so many more were, or for as long as anybody would wait."""
        wanted, deadline = self.acknowledged + count, time.monotonic() + PATIENCE_S
        while self.acknowledged < wanted and time.monotonic() < deadline:
            time.sleep(0.002)

    def checked(self, acknowledged: list[str], folder: Path) -> dict[str, int]:
        uids = folder / "acknowledged.json"
        uids.write_text(json.dumps(acknowledged))
        found: dict[str, int] = json.loads(
            managed(self.environment, "-m", "benchmarks.annotation_rows", "check", str(uids))
        )
        return found


@pytest.fixture(scope="module", params=DATABASES)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    tmp_path = tmp_path_factory.mktemp("site")
    address = f"sqlite:///{tmp_path}/rondo.sqlite3"
    if request.param == "postgres":
        address = request.getfixturevalue("postgres_url")
    (tmp_path / "site").mkdir(mode=0o700)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "RONDO_DATA_DIR": str(tmp_path / "site"),
        "RONDO_DATABASE_URL": address,
        "RONDO_PRODUCTION": "1",
        "RONDO_BEHIND_PROXY": "1",
        "RONDO_ALLOWED_HOSTS": "127.0.0.1",
        "RONDO_SECRET_KEY": secrets.token_urlsafe(64),
        "RONDO_LOG_LEVEL": "ERROR",
    }
    filling = ("-m", "benchmarks.annotation_rows", "fill", str(TASKS), str(CLIENTS))
    filled = json.loads(managed(environment, *filling))
    port = port_free()
    with web(environment, port, tmp_path / "web.log") as workers:
        yield Site(environment, workers, filled, port)


def asked_until(ask: Callable[[], tuple[int, Any]]) -> tuple[int, Any, int]:
    """The reply, however often the connection breaks, and how often it did."""
    for broken in range(100):
        status, reply = ask()
        if status != 599:
            return status, reply, broken
        time.sleep(0.05)
    raise TimeoutError("a hundred requests were cut off in a row")


def submitted_while(site: Site, disturb: Callable[[], None]) -> tuple[list[str], list[str], int]:
    """Everybody submits until the disturbance is over: uids acknowledged, refusals, retries."""
    over, seen = threading.Event(), queue.SimpleQueue[tuple[list[str], list[str], int]]()

    def work(number: int, annotator: Annotator) -> None:
        draw, acknowledged, refused, retries = random.Random(number), [], [], 0
        _, page, _ = asked_until(annotator.next)
        while page is not None and not over.is_set():
            key = secrets.token_hex(16)
            choice = draw.getstate()

            def ask(page: Any = page, key: str = key, choice: Any = choice) -> tuple[int, Any]:
                draw.setstate(choice)  # the same body again
                return annotator.submit(page, draw, key)

            status, reply, broken = asked_until(ask)
            retries += broken
            if status != 200:
                refused.append(f"{status} {reply}")
                _, page, _ = asked_until(annotator.next)
                continue
            acknowledged.append(reply["submission"]["uid"])
            site.acknowledged += 1
            page = reply["next"]
            if page is None:
                _, page, _ = asked_until(annotator.next)
        seen.put((acknowledged, refused, retries))

    threads = [
        threading.Thread(target=work, args=one, daemon=True) for one in enumerate(site.annotators)
    ]
    for thread in threads:
        thread.start()
    disturb()
    over.set()
    for thread in threads:
        thread.join(timeout=60)
    found = [seen.get(timeout=60) for _ in threads]
    return (
        [uid for acknowledged, _, _ in found for uid in acknowledged],
        [line for _, refused, _ in found for line in refused],
        sum(retries for _, _, retries in found),
    )


def test_nothing_acknowledged_is_lost_when_workers_are_killed(site: Site, tmp_path: Path) -> None:
    """D12."""
    draw, killed = random.Random(1), 0

    def kill() -> None:
        nonlocal killed
        while killed < KILLS:
            site.acknowledged_wait(BETWEEN_KILLS)
            time.sleep(draw.random() / 50)
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(draw.choice(site.workers.pids()), signal.SIGKILL)
                killed += 1

    acknowledged, refused, retries = submitted_while(site, kill)
    assert killed == KILLS
    assert len(acknowledged) >= 500
    assert retries > 0  # they died in the middle of answers
    assert not refused
    assert site.checked(acknowledged, tmp_path) == {"duplicates": 0, "lost": 0}


def test_a_rolling_restart_loses_nothing(site: Site, tmp_path: Path) -> None:
    """D13: HUP replaces the workers one after the other, each after what it is answering."""

    def replace() -> None:
        for _ in range(2):
            site.acknowledged_wait(40)
            before = set(site.workers.pids())
            os.kill(site.workers.pid, signal.SIGHUP)
            deadline = time.monotonic() + 20
            while before & set(site.workers.pids()) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not before & set(site.workers.pids())
        site.acknowledged_wait(40)

    acknowledged, refused, retries = submitted_while(site, replace)
    assert len(acknowledged) >= 100
    assert not refused
    assert retries <= 2 * CLIENTS  # one a client, for each restart
    assert site.checked(acknowledged, tmp_path) == {"duplicates": 0, "lost": 0}
