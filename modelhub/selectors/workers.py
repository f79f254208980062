"""What the rows tell of workers. Nobody lists these: each leaves its heartbeats in the runs it has.

A worker that is free takes a queued run within seconds (the scheduler rings every five), so a run
that waits while no worker reports of any run waits for one that is not there.
"""

from dataclasses import dataclass
from datetime import timedelta

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Max, Q
from django.utils import timezone

from modelhub.models import Run

SILENT_AFTER_S = 90  # a bell that nobody heard is rung again after 30 s
_RUNS_AROUND = 200  # of those asked for before the one that waits; running ones count in any case


@dataclass(frozen=True, kw_only=True)
class Silence:
    """That no worker reports, while a run waits for one of a queue."""

    queue: str
    minutes: int  # since a worker's last report, or since the run waits
    is_untold: bool  # nor was anybody told of the run: the worker of `default` is away too


def workers_silence(*, run: Run) -> Silence | None:
    """How long no worker has reported while a run waits; None where it does not, or not for long.

    No query for a run that was asked for just now, two for one that waits.
    """
    now = timezone.now()
    long_ago = now - timedelta(seconds=SILENT_AFTER_S)
    if run.status != Run.Status.QUEUED or run.created_at > long_ago:
        return None
    around = Q(status=Run.Status.RUNNING) | Q(pk__gt=run.pk - _RUNS_AROUND)
    heard = Run.objects.filter(around).exclude(owner=Run.ELSEWHERE).aggregate(Max("heartbeat_at"))
    acts = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(Run), object_id=str(run.pk)
    ).aggregate(Max("action_time"))  # a run that was retried waits since then
    since = max(
        filter(None, (run.created_at, heard["heartbeat_at__max"], acts["action_time__max"]))
    )
    if since > long_ago:
        return None
    return Silence(
        queue=run.queue,
        minutes=int((now - since).total_seconds()) // 60,
        is_untold=run.rung_at is None or run.rung_at < long_ago,
    )


def workers_silence_now() -> Silence | None:
    """The same of the run that waits longest. One query, and two where there is one."""
    oldest = Run.objects.filter(status=Run.Status.QUEUED).order_by("pk").first()
    return workers_silence(run=oldest) if oldest else None
