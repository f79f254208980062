"""The Celery application: the doorbell for queues that are rows."""

import os
from typing import Any

from celery import Celery
from celery.signals import worker_shutting_down

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# Every task is a doorbell: one that cannot be rung costs the request that rings it nothing.
app = Celery("rondo", task_cls="modelhub.doorbell:Doorbell")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def running_program_leave(**_: Any) -> None:
    """A stopping worker does not wait hours for the program it follows.

    The signal comes in the worker's main thread, where (pool `solo`) the run is being followed:
    SystemExit makes the runner end the program and put the run back in the queue.
    """
    raise SystemExit(0)
