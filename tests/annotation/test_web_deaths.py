"""RELIABILITY D09, D12 and D13: the production server is hurt while eight people submit.

What was acknowledged is in the database, once and as it was sent; whoever got no answer asks again
under the same key. Each person is a process with a history, and what is awaited is always work
done, so that a busy machine takes longer and fails nothing. `make bench-faults` is the same,
larger.
"""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.bench_faults import (
    CLIENTS,
    Crowd,
    Site,
    gone_wait,
    project_crowded,
    site,
    workers_killed,
    workers_replaced,
)
from tests.postgres import postgres_url  # noqa: F401  (a fixture)

# Enough for a machine that has much else to do: what is awaited is work, not time.
pytestmark = [pytest.mark.slow]
DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
KILLS, BETWEEN_KILLS = 15, 18  # on each database
AS_IT_WAS_TOLD = {"duplicates": 0, "lost": 0, "invented": 0}


@pytest.fixture(scope="module", params=DATABASES)
def hurt_site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    address = f"sqlite:///{folder}/rondo.sqlite3"
    if request.param == "postgres":
        address = request.getfixturevalue("postgres_url")
    with site(address, folder, tasks=2000) as running:
        yield running


def test_nothing_acknowledged_is_lost_when_workers_are_killed(hurt_site: Site) -> None:
    """D12."""
    found = workers_killed(hurt_site, kills=KILLS, acknowledged_between=BETWEEN_KILLS)
    assert found["kills"] == KILLS
    assert found["acknowledged"] >= KILLS * BETWEEN_KILLS
    assert found["retries"] > 0  # they died in the middle of answers
    assert found["refused"] == 0
    assert hurt_site.checked() == AS_IT_WAS_TOLD


def test_a_rolling_restart_loses_nothing_and_nobody_asks_again_twice(hurt_site: Site) -> None:
    """D13: HUP to the server, then SIGTERM to one worker."""
    found = workers_replaced(hurt_site, restarts=2, acknowledged_between=CLIENTS * 2)
    assert found["acknowledged"] >= 3 * CLIENTS * 2
    assert found["retries_a_client"] <= 1, found
    assert found["refused"] == 0
    assert hurt_site.checked() == AS_IT_WAS_TOLD


def test_a_large_import_and_export_keep_nobody_from_submitting(hurt_site: Site) -> None:
    """D09. How long people wait meanwhile is a figure of the benchmark, not of a test."""
    found = project_crowded(hurt_site, rows=3000, acknowledged=80)
    assert (found["imported"], found["exported"]) == (3000, 3000)
    assert found["acknowledged"] >= 80
    assert found["refused"] == 0
    assert "database is locked" not in hurt_site.log()
    assert hurt_site.checked() == AS_IT_WAS_TOLD


def test_every_line_of_the_log_is_one_event_whatever_is_sent(hurt_site: Site) -> None:
    """S32, after all of the above: the server's own lines, Django's, and their tracebacks."""
    for request in (
        b"GET /a%0D%0A%1B[31mforged%E2%80%A8 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"X-Forwarded-Proto: https\r\n\r\n",
        b"GET /%s%n{0}{level} HTTP/1.1\r\nHost: forged\x1b[2J\r\nX-Forwarded-Proto: https\r\n\r\n",
        b"BROKEN\x1b[31m \xe2\x80\xa8\r\nforged\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", hurt_site.port), 15) as client:
            client.sendall(request)
            client.recv(4096)
    lines = hurt_site.log().splitlines()
    assert lines  # of the workers that were killed
    for line in lines:
        assert set(json.loads(line)) - {"error"} == {"at", "level", "logger", "message"}
    assert any("forged" in json.loads(line)["message"] for line in lines)


def test_the_histories_catch_a_site_that_answers_before_it_commits(tmp_path: Path) -> None:
    """The mutant: with the commit after the answer, killed workers lose what they acknowledged."""
    address = f"sqlite:///{tmp_path}/rondo.sqlite3"
    with site(address, tmp_path, tasks=200, settings="tests.annotation.late_commit") as broken:
        with Crowd(broken, "late") as crowd:
            for _ in range(2):
                crowd.acknowledged_wait(3)
                pids = set(broken.workers.pids())
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                gone_wait(broken, pids)
        assert broken.checked()["lost"] > 0
