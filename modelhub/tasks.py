"""The hub's doorbells. The rows are the queue: a message lost, repeated or late changes nothing."""

import logging
import os
import socket
from typing import Any

from celery import current_app
from celery.signals import worker_ready, worker_shutdown
from celery.worker import state
from django.conf import settings
from kombu.exceptions import OperationalError

from modelhub import storage
from modelhub.doorbell import doorbell
from modelhub.keeper import Keeper
from modelhub.models import Run
from modelhub.runner import run_execute
from modelhub.services import artifacts, idempotency, runs, servers

logger = logging.getLogger(__name__)

_SCRUB_S = 20.0  # of every ten minutes
_PROGRAM_QUEUES = {"cpu", "gpu"}
_keepers: list[Keeper] = []


@doorbell
def execute_run(run_id: int) -> None:
    """Work off a run, if it is to be had, then tell those who wait for its end or its place."""
    run_execute(
        run_id=run_id,
        owner=f"{socket.gethostname()}:{os.getpid()}",
        is_stopping=_worker_is_stopping,
    )
    if Run.objects.filter(pk=run_id, status__in=Run.ENDED).exists():
        run_ended_ring()
    ring_queued_runs()


@doorbell
def reap_runs() -> None:
    """Settle the runs and servers whose worker is gone, and let waiting runs be taken up."""
    if runs.runs_reap():
        run_ended_ring()
        ring_queued_runs()
    servers.servers_lost_end()


@doorbell
def ring_queued_runs() -> None:
    """Tell workers of the runs that wait."""
    for run in runs.runs_ring():
        run_ring(run)


@doorbell
def clean_up() -> None:
    """Remove what killed processes left in the store, and replies kept for repeated requests."""
    storage.orphans_sweep()
    servers.servers_forget()
    idempotency.idempotent_requests_expire()


@doorbell
def scrub_artifacts() -> None:
    """Hash some stored files again: disks rot."""
    artifacts.artifacts_scrub(seconds=_SCRUB_S)


def keeper_start(sender: Any, **_: Any) -> None:
    """A worker that runs programs keeps its machine's servers beside them."""
    if not _PROGRAM_QUEUES.isdisjoint(sender.app.amqp.queues.consume_from):
        _keepers.append(Keeper())
        _keepers[-1].start()


def keeper_stop(**_: Any) -> None:
    """End the servers with the worker that keeps them."""
    while _keepers:
        _keepers.pop().stop()


worker_ready.connect(keeper_start)
worker_shutdown.connect(keeper_stop)


def _worker_is_stopping() -> bool:
    """Whether this process is a worker (of the solo or threads pool) that was told to stop."""
    return any(
        flag is not None and flag is not False
        for flag in (state.should_stop, state.should_terminate)
    )


def run_ring(run: Run) -> None:
    """Tell the workers of the run's queue that it waits."""
    execute_run.apply_async(args=[run.pk], queue=run.queue)


def run_ended_ring() -> None:
    """Send the tasks of the apps above that wait for runs to end, by name."""
    for name in settings.RUN_ENDED_TASKS:
        try:
            current_app.send_task(name, retry=False)
        except (OperationalError, OSError) as error:
            logger.warning("%s was not rung: %s", name, error)
