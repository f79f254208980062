"""What the rows tell of workers. Nobody lists these: each leaves its heartbeats in the runs it has.

A worker that is free takes a queued run within seconds (the scheduler rings every five), so a run
that waits while no worker reports of any run waits for one that is not there. Which queues a worker
takes is in no row: one that is busy with a run of `cpu` may well take those of `gpu` next, as the
usual worker does (`-Q cpu,gpu`), so any worker's report counts for every queue.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Max, Q
from django.utils import timezone
from django.utils.translation import ngettext

from modelhub.models import Run

SILENT_AFTER_S = 90  # a bell that nobody heard is rung again after 30 s
_RUNS_AROUND = 200  # of those asked for before the one that waits; running ones count in any case
_MOST_WAITING = 1000  # looked at, the first asked for


@dataclass(frozen=True, kw_only=True)
class Silence:
    """That no worker reports, while a run waits for one of a queue."""

    queue: str
    minutes: int  # since a worker's last report, or since the run waits
    is_untold: bool  # nor was anybody told of the run: the worker of `default` is away too

    @property
    def time(self) -> str:
        """How long, in one unit: "90 minutes", "5 hours", "3 days"."""
        if self.minutes < 2 * 60:
            return _minutes(self.minutes)
        if self.minutes < 2 * 24 * 60:
            return _hours(self.minutes // 60)
        return _days(self.minutes // (24 * 60))


def workers_silence(*, runs: Iterable[Run]) -> Silence | None:
    """How long no worker has reported while the run waits that waits longest of these.

    None where none of them waits, or not for long. No query where all were asked for just now, and
    else two.
    """
    now = timezone.now()
    long_ago = now - timedelta(seconds=SILENT_AFTER_S)
    waiting = [
        run for run in runs if run.status == Run.Status.QUEUED and run.created_at <= long_ago
    ]
    if not waiting:
        return None
    since = _queued_at(waiting)
    run = min(waiting, key=lambda run: (since[run.pk], run.pk))
    around = Q(status=Run.Status.RUNNING) | Q(pk__gt=run.pk - _RUNS_AROUND)
    heard = Run.objects.filter(around).exclude(owner=Run.ELSEWHERE).aggregate(Max("heartbeat_at"))
    last = max(since[run.pk], heard["heartbeat_at__max"] or since[run.pk])
    if last > long_ago:
        return None
    return Silence(
        queue=run.queue,
        minutes=int((now - last).total_seconds()) // 60,
        is_untold=run.rung_at is None or run.rung_at < long_ago,
    )


def workers_silence_now() -> Silence | None:
    """The same of all runs. One query, and two more where one waits for some time."""
    queued = Run.objects.filter(status=Run.Status.QUEUED)
    read = queued.only("status", "queue", "created_at", "rung_at", "heartbeat_at")
    return workers_silence(runs=read.order_by("pk")[:_MOST_WAITING])


def _queued_at(runs: Sequence[Run]) -> dict[int, datetime]:
    """Since when each waits: asked for, retried by somebody, or put back. One query.

    A run that is put back after an attempt waits since that attempt's last report.
    """
    acts = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(Run),
        object_id__in=[str(run.pk) for run in runs],
    )
    acted = dict(acts.order_by().values_list("object_id").annotate(Max("action_time")))
    return {
        run.pk: max(filter(None, (run.created_at, run.heartbeat_at, acted.get(str(run.pk)))))
        for run in runs
    }


def _minutes(number: int) -> str:
    said = ngettext("%(number)s minute", "%(number)s minutes", number)
    return said % {"number": number}


def _hours(number: int) -> str:
    return ngettext("%(number)s hour", "%(number)s hours", number) % {"number": number}


def _days(number: int) -> str:
    return ngettext("%(number)s day", "%(number)s days", number) % {"number": number}
