"""The doorbells: whatever happens to a message, the rows decide."""

import os
import socket
import subprocess
import sys

import pytest
from celery import current_app

from modelhub import tasks
from modelhub.doorbell import Doorbell
from modelhub.models import Run


@pytest.fixture
def sent(monkeypatch):
    """The (task, arguments, queue) of each message, instead of a broker that holds them."""
    messages = []

    def send_task(name, args=None, kwargs=None, **options):
        messages.append((name, tuple(args or ()), options.get("queue")))

    monkeypatch.setattr(current_app, "send_task", send_task)
    monkeypatch.setattr(
        tasks.execute_run,
        "apply_async",
        lambda args=None, kwargs=None, **options: send_task(
            "modelhub.tasks.execute_run", args, **options
        ),
    )
    return messages


def test_the_tasks_have_the_names_that_the_schedule_and_the_routes_use(settings):
    names = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    names |= set(settings.CELERY_TASK_ROUTES)
    for name in names:
        if name.startswith("modelhub."):
            assert name in current_app.tasks


def test_the_end_of_a_run_rings_those_who_wait_for_it(counting, sent, settings):
    settings.RUN_ENDED_TASKS = ["elsewhere.tasks.go_on"]
    run, waiting = counting(steps=1), counting(steps=1)
    tasks.execute_run(run.pk)
    assert ("elsewhere.tasks.go_on", (), None) in sent
    assert ("modelhub.tasks.execute_run", (waiting.pk,), "cpu") in sent
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED


def test_an_attempt_that_failed_rings_nobody_but_a_worker(counting, sent, settings):
    settings.RUN_ENDED_TASKS = ["elsewhere.tasks.go_on"]
    run = counting(misbehaviour="raise", at_step=1)
    tasks.execute_run(run.pk)
    assert sent == [("modelhub.tasks.execute_run", (run.pk,), "cpu")]


def test_a_run_is_rung_on_its_own_queue(counting, sent):
    run = counting()
    Run.objects.filter(pk=run.pk).update(queue="gpu")
    tasks.ring_queued_runs()
    tasks.ring_queued_runs()
    assert sent == [("modelhub.tasks.execute_run", (run.pk,), "gpu")]


def test_every_task_of_the_site_is_a_doorbell():
    for name, task in current_app.tasks.items():
        if name.startswith(("modelhub.", "annotation.", "alignment.")):
            assert isinstance(task, Doorbell), name


SENDING = """
import time, django
django.setup()
from celery import current_app
from django.db import transaction
from modelhub import tasks
started = time.monotonic()
with transaction.atomic():
    tasks.execute_run.delay_on_commit(1)
tasks.execute_run.delay(1)
tasks.run_ended_ring()
print("sent", time.monotonic() - started)
"""


def test_a_broker_that_is_away_costs_the_sender_neither_an_error_nor_time(tmp_path, settings):
    """A real connection, refused: nothing listens on the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        done = subprocess.run(
            [sys.executable, "-c", SENDING],
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "config.settings",
                "RONDO_DATA_DIR": str(tmp_path),
                "RONDO_BROKER_URL": f"redis://127.0.0.1:{probe.getsockname()[1]}/0",
            },
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
        )
    said, seconds = done.stdout.split()
    assert said == "sent", done.stderr
    assert float(seconds) < 5  # it was 6.7 when each send waited for the broker
    assert done.stderr.count("was not rung") == 4
