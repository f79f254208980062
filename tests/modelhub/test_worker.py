"""A real Celery worker with the embedded broker, as `make up` starts it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from modelhub import storage
from modelhub.models import Endpoint, Run, Server
from modelhub.services.servers import server_request
from tests import builders
from tests.modelhub.served import make_served

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

RING = "import django; django.setup()\nfrom modelhub import tasks\n"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "broker/control").mkdir(parents=True)
    database = connection.settings_dict
    address = (
        f"sqlite:///{database['NAME']}"
        if connection.vendor == "sqlite"
        else "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**database)
    )
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.modelhub.worker_settings",
        "RONDO_DATA_DIR": str(tmp_path),
        "RONDO_DATABASE_URL": address,
        "RONDO_RUN_LEASE_S": "3",
        "RONDO_RUN_HEARTBEAT_S": "0.5",
    }


@pytest.fixture
def worker(environment) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    started = []

    def start() -> "subprocess.Popen[bytes]":
        command = ["-m", "celery", "-A", "config", "worker", "-P", "solo", "-Q", "cpu,default"]
        process = subprocess.Popen(
            [sys.executable, *command, "--loglevel", "WARNING", "--without-mingle"],
            cwd=settings.BASE_DIR,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def ring(environment) -> Callable[[str], None]:
    """Send messages as a process of the site would: `ring("tasks.ring_queued_runs.delay()")`."""

    def send(statement: str) -> None:
        command = [sys.executable, "-c", RING + statement]
        subprocess.run(command, cwd=settings.BASE_DIR, env=environment, check=True)

    return send


def wait_for(row: Run | Server, condition: Callable[[Any], object], timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition(row):
        assert time.monotonic() < deadline, f"waited in vain; it is {row.status}: {row.error}"
        time.sleep(0.1)
        row.refresh_from_db()


def test_ten_messages_start_a_run_once(counting, worker, ring):
    run, next_run = counting(steps=5), counting(steps=2)
    ring(f"for _ in range(10): tasks.execute_run.delay({run.pk})")
    worker()
    # The next one was never rung: the end of the first one does that.
    wait_for(next_run, lambda run: run.status == Run.Status.SUCCEEDED)
    run.refresh_from_db()
    assert (run.status, run.fence) == (Run.Status.SUCCEEDED, 1)


def test_a_worker_told_to_stop_hands_its_run_back_at_once(counting, worker, ring):
    run = counting(steps=300, step_s=0.1)
    ring("tasks.ring_queued_runs.delay()")
    process = worker()
    wait_for(run, lambda run: run.metrics.count() > 2)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=10)
    run.refresh_from_db()
    assert (run.status, run.attempts_left) == (Run.Status.QUEUED, 3)


def test_a_run_outlives_its_worker_and_the_messages(counting, worker, ring, tmp_path):
    """D16: SIGKILL, and an emptied broker; what is left are the rows."""
    run = counting(steps=30, step_s=0.1, seed=2)
    ring("tasks.ring_queued_runs.delay()")
    process = worker()
    wait_for(run, lambda run: run.metrics.count() > 2)
    process.kill()
    process.wait()
    killed_at = time.monotonic()
    for message in (tmp_path / "broker").glob("*.msg"):
        message.unlink()
    time.sleep(3.5)
    worker()
    ring("tasks.reap_runs.delay()")
    wait_for(run, lambda run: run.fence == 2)
    assert time.monotonic() - killed_at < 60
    wait_for(run, lambda run: run.is_ended)
    assert run.status == Run.Status.SUCCEEDED
    log = (storage.run_folder(run) / storage.LOG_NAME).read_text()
    assert "resumed after step" in log
    assert run.metrics.count() == 30


def test_a_worker_keeps_servers_while_it_runs_a_program_and_ends_them_with_itself(
    counting, worker, ring, tmp_path, settings
):
    settings.SERVERS_DIR = tmp_path / "servers"  # as the worker has it
    version = make_served(tmp_path / "files")
    eve = builders.make_user("eve", is_staff=True)
    run = counting(steps=300, step_s=0.1)
    ring("tasks.ring_queued_runs.delay()")
    process = worker()
    wait_for(run, lambda run: run.metrics.count() > 2)
    server = server_request(version=version, context_tokens=64, requested_by=eve)
    wait_for(server, lambda server: server.status == Server.Status.READY)
    assert Endpoint.objects.get().version == version
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    server.refresh_from_db()
    assert (server.status, server.error) == ("ended", "It ended with the site's worker.")
    assert not Endpoint.objects.exists()
