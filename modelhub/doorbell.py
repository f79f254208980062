"""How a task is rung: the rows are the queue, so a bell that does not ring costs nothing.

Every task of the site is of this class (config/celery.py): it may be sent while the broker is away.
The failure is logged, what sent it goes on, and the scheduler rings again.
"""

import logging
from collections.abc import Callable
from typing import Any

from celery import shared_task
from celery.contrib.django.task import DjangoTask
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)


class Doorbell(DjangoTask):  # type: ignore[misc]
    """A task whose message may be lost, repeated or late."""

    abstract = True

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("retry", False)
        try:
            return super().apply_async(*args, **kwargs)
        except (OperationalError, OSError) as error:
            logger.warning("%s was not rung: %s", self.name, error)
            return None


def doorbell(function: Callable[..., None]) -> Any:
    """Make a function a task, named by its module and name (`shared_task`, with types)."""
    return shared_task(function)
