"""The life of a run: queued → running → succeeded | failed | cancelled, and back by retry.

Every arrow is one conditional update. A worker's writes name the fence it claimed with, so two
workers, two reapers or a repeated message change a run once.
"""

import dataclasses
import json
import logging
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext

from modelhub import storage
from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.configs import SITE, ProgramConfig, config_dump, config_load
from modelhub.ml.records import json_canonical
from modelhub.models import Artifact, Run, RunInput, RunMetric, RunOutput
from modelhub.services.history import act_record

logger = logging.getLogger(__name__)

LAUNCHERS = ("python", "torchrun", "accelerate", "ray")
STRATEGIES = ("ddp", "fsdp2")
MAX_PROCESSES = 1024
ELSEWHERE = Run.ELSEWHERE
LEFT_LOSS = "loss_left"  # the curve of losses at steps that training went back from
RING_AGAIN_S = 30  # a doorbell that nobody answered is rung again after this
ROLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")  # of a queue, and of what a run reads or makes


@transaction.atomic
def run_create(
    *,
    program: str,
    config: ProgramConfig,
    inputs: Mapping[str, Artifact],
    label: str = "",
    requested_by: User | None = None,
    queue: str = "cpu",
    launcher: str = "python",
    processes: int = 1,
    strategy: str = "ddp",
    intent: Mapping[str, Any] | None = None,
) -> Run:
    """Queue a run of a program. It starts when a worker claims it.

    `inputs` maps the roles the program knows to artifacts; fields of the site's own
    (`configs.of_site`) get its settings; `intent` is kept for whoever settles
    the run's success (settings.RUN_SUCCEEDED_HOOKS). Raises ApplicationError for a program,
    launcher, number of processes, role or configuration that is not allowed.
    """
    if program not in settings.RUN_PROGRAMS:
        raise ApplicationError(
            gettext("There is no program %(program)s.") % {"program": f"{program!r}"},
            {"field": "program"},
        )
    if launcher not in LAUNCHERS:
        raise ApplicationError(
            gettext("There is no launcher %(launcher)s.") % {"launcher": f"{launcher!r}"},
            {"field": "launcher"},
        )
    if strategy not in STRATEGIES:
        raise ApplicationError(
            gettext("There is no strategy %(strategy)s.") % {"strategy": f"{strategy!r}"},
            {"field": "strategy"},
        )
    processes_check(launcher=launcher, processes=processes)
    for name in (queue, *inputs):
        if not ROLE_NAME.fullmatch(name):
            raise ApplicationError(
                gettext("%(name)s cannot name a queue or an input.") % {"name": f"{name!r}"}
            )
    run = Run.objects.create(
        program=program,
        config=_config_values(program, config),
        label=label[:200],
        queue=queue,
        launcher=launcher,
        processes=processes,
        strategy=strategy,
        intent=dict(intent or {}),
        attempts_left=settings.RUN_ATTEMPTS,
        requested_by=requested_by,
    )
    RunInput.objects.bulk_create(
        RunInput(run=run, role=role, artifact=artifact) for role, artifact in inputs.items()
    )
    return run


def processes_check(*, launcher: str, processes: int) -> None:
    """Raise ApplicationError naming the field unless the launcher starts so many processes."""
    if not 1 <= processes <= MAX_PROCESSES or (launcher == "python" and processes != 1):
        raise ApplicationError(
            gettext(
                "%(processes)s processes: the launcher python starts one, the others 1 to %(most)s."
            )
            % {"processes": processes, "most": MAX_PROCESSES},
            {"field": "processes"},
        )


def _config_values(program: str, config: ProgramConfig) -> dict[str, Any]:
    if program != config.PROGRAM:
        raise ApplicationError(
            gettext("This configuration is for %(meant)s, not %(program)s.")
            % {"meant": config.PROGRAM, "program": program}
        )
    try:
        values: dict[str, Any] = json.loads(json_canonical(config_dump(_of_site(config))))
        config_load(type(config), values)
    except ValueError as error:  # a ConfigError, or something JSON cannot hold
        raise ApplicationError(str(error), {"field": "config"}) from error
    return values


def _of_site(config: ProgramConfig) -> ProgramConfig:
    """The configuration with what is the site's to say, whatever was given there."""
    settled = {
        field.name: getattr(settings, field.metadata[SITE])
        for field in dataclasses.fields(config)
        if SITE in field.metadata
    }
    return dataclasses.replace(config, **settled) if settled else config


def run_claim(*, run_id: int, owner: str) -> Run | None:
    """Take a queued run for a lease, or None if it is not to be had.

    The returned run's `fence` is the ownership: pass it to every later call. Of any number of
    simultaneous calls one gets the run.
    """
    now = timezone.now()
    with transaction.atomic():
        taken = Run.objects.filter(pk=run_id, status=Run.Status.QUEUED, attempts_left__gt=0).update(
            status=Run.Status.RUNNING,
            fence=F("fence") + 1,
            attempts_left=F("attempts_left") - 1,
            owner=owner[:200],
            lease_until=now + timedelta(seconds=settings.RUN_LEASE_S),
            heartbeat_at=now,
            started_at=Coalesce(F("started_at"), now),
            rung_at=None,
        )
        return Run.objects.get(pk=run_id) if taken else None


@transaction.atomic
def run_hand_out(*, run: Run, days: int = 30) -> Run:
    """Take a queued run for a machine without a database, for so many days.

    No worker has it meanwhile. If its folder has not come back by then (modelhub/exports.py), it is
    queued again, as after any lost worker. Raises ConflictError if it is not queued any more.
    """
    taken = run_claim(run_id=run.pk, owner=ELSEWHERE)
    if taken is None:
        raise ConflictError(f"The run is {run.status} already.", {"status": run.status})
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() + timedelta(days=days))
    taken.refresh_from_db()
    return taken


def run_heartbeat(*, run_id: int, fence: int, progress: tuple[int, int, str] | None = None) -> bool:
    """Renew the lease, and say how far the run is: (done, total, unit). False: the run is lost."""
    now = timezone.now()
    values: dict[str, Any] = {
        "lease_until": now + timedelta(seconds=settings.RUN_LEASE_S),
        "heartbeat_at": now,
    }
    if progress is not None:
        done, total, unit = progress
        values |= {"progress_done": done, "progress_total": total, "progress_unit": unit[:40]}
    return _owned(run_id, fence).update(**values) == 1


def run_cancel_asked(*, run_id: int, fence: int) -> bool | None:
    """Whether the run is to stop, for the worker that owns it; None: the run is lost."""
    found = list(_owned(run_id, fence).values_list("cancel_requested_at", flat=True))
    return found[0] is not None if found else None


def run_metrics_add(
    *,
    run_id: int,
    fence: int,
    points: list[tuple[int, str, float]],
    offset: int,
    rewound_to: int | None = None,
) -> bool:
    """Keep (step, name, value) points and how far metrics.jsonl was read. False: the run is lost.

    A resumed run repeats steps exactly, so a point that is there already is left as it is. Where
    training went back, figures of steps behind `rewound_to` go first; losses are kept apart.
    """
    with transaction.atomic():
        if _owned(run_id, fence).update(metrics_offset=offset) != 1:
            return False
        if rewound_to is not None:
            behind = RunMetric.objects.filter(run_id=run_id, step__gt=rewound_to)
            lost = behind.filter(name="loss")
            behind.filter(name=LEFT_LOSS, step__in=lost.values("step")).delete()
            behind.exclude(name__in=("loss", LEFT_LOSS)).delete()
            lost.update(name=LEFT_LOSS)
        RunMetric.objects.bulk_create(
            (
                RunMetric(run_id=run_id, step=step, name=name, value=value)
                for step, name, value in points
            ),
            ignore_conflicts=True,
            batch_size=500,
        )
    return True


def run_finish(
    *, run_id: int, fence: int, outputs: Mapping[str, Artifact], result: Mapping[str, Any]
) -> bool:
    """The run has its result: outputs, lineage and what follows from them, in one transaction.

    The hook that settings.RUN_SUCCEEDED_HOOKS names for the program runs in the transaction, and
    RUN_LAUNCHED_HOOK for a run that says what its success registers, so that a successful run and
    its registered version are never seen one without the other.
    Returns False, changing nothing, if the run is lost. A cancellation that came first wins; the
    result stays in the run's directory for a retry.
    """
    with transaction.atomic():
        run = _owned(run_id, fence).select_for_update().first()
        if run is None:
            return False
        if run.cancel_requested_at is not None:
            _owned(run_id, fence).update(**_ended(Run.Status.CANCELLED))
            return True
        RunOutput.objects.bulk_create(
            RunOutput(run=run, role=role, artifact=artifact) for role, artifact in outputs.items()
        )
        _owned(run_id, fence).update(**_ended(Run.Status.SUCCEEDED), result=dict(result), error="")
        run.refresh_from_db()
        hooks = [settings.RUN_SUCCEEDED_HOOKS.get(run.program)]
        if run.intent:
            hooks.append(settings.RUN_LAUNCHED_HOOK)
        for hook in filter(None, hooks):
            import_string(hook)(run=run)
    return True


def run_attempt_fail(*, run_id: int, fence: int, reason: str, final: bool = False) -> bool:
    """An attempt came to nothing: cancelled if that was asked, queued again, or failed for good.

    It goes back to the queue while attempts are left, unless `final`: another attempt would end
    the same way. Returns False, changing nothing, if the run is lost.
    """
    return _attempt_end(_owned(run_id, fence), reason=reason, final=final)


def run_release(*, run_id: int, fence: int) -> bool:
    """The worker stops in good order: back to the queue, and the attempt does not count.

    A run that somebody has cancelled meanwhile is cancelled.
    """
    with transaction.atomic():
        run = _owned(run_id, fence).select_for_update().first()
        if run is None:
            return False
        if run.cancel_requested_at is not None:
            return _owned(run_id, fence).update(**_ended(Run.Status.CANCELLED)) == 1
        waiting = _queued() | {"attempts_left": F("attempts_left") + 1}
        return _owned(run_id, fence).update(**waiting, error="the worker was stopped") == 1


def runs_reap() -> int:
    """Settle running runs whose lease has run out: their worker is gone. Returns how many.

    Any number of reapers may run at once, or after a long time without one.
    """
    settled = 0
    expired = Q(status=Run.Status.RUNNING, lease_until__lt=timezone.now())
    for run in Run.objects.filter(expired).order_by("pk"):
        # The worker may have come back since: the update asks again for the expired lease.
        lost = _owned(run.pk, run.fence).filter(expired)
        reason = f"the worker {run.owner or 'that ran it'} was lost: no sign of life in time"
        tail = storage.run_log_tail(run, max_bytes=4096)
        settled += _attempt_end(lost, reason=f"{reason}\n\n{tail}".strip(), final=False)
    return settled


def run_cancel(*, run: Run, actor: User | None) -> Run:
    """Ask a run to stop. A queued one is cancelled now, a running one when its program has ended.

    Cancelling twice is one cancellation. Raises ConflictError if it has succeeded or failed.
    """
    with transaction.atomic():
        # Held between the updates: a run that goes back to the queue just then is cancelled too.
        Run.objects.select_for_update().get(pk=run.pk)
        waiting = Run.objects.filter(pk=run.pk, status=Run.Status.QUEUED)
        running = Run.objects.filter(pk=run.pk, status=Run.Status.RUNNING)
        asked = (
            waiting.update(**_ended(Run.Status.CANCELLED))
            or running.filter(owner=ELSEWHERE).update(**_ended(Run.Status.CANCELLED))
            or running.filter(cancel_requested_at=None).update(cancel_requested_at=timezone.now())
        )
        run = Run.objects.get(pk=run.pk)
        if asked:
            act_record(actor=actor, subject=run, text="cancelled")
        elif run.status in (Run.Status.SUCCEEDED, Run.Status.FAILED):
            raise ConflictError(
                gettext("The run has %(status)s already.") % {"status": run.status},
                {"status": run.status},
            )
    return run


def run_retry(*, run: Run, actor: User | None) -> Run:
    """Put a failed or cancelled run back in the queue, all its attempts restored.

    It keeps its directory, so it goes on from its newest checkpoint. Retrying one that is queued
    or running changes nothing. Raises ConflictError if it has succeeded.
    """
    with transaction.atomic():
        again = Run.objects.filter(
            pk=run.pk, status__in=[Run.Status.FAILED, Run.Status.CANCELLED]
        ).update(
            **_queued(),
            attempts_left=settings.RUN_ATTEMPTS,
            cancel_requested_at=None,
            ended_at=None,
            error="",
        )
        run = Run.objects.get(pk=run.pk)
        if again:
            act_record(actor=actor, subject=run, text="retried")
        elif run.status == Run.Status.SUCCEEDED:
            raise ConflictError(gettext("The run has succeeded already."), {"status": run.status})
    return run


def runs_ring(*, limit: int = 20) -> list[Run]:
    """The queued runs, oldest first, that a worker should be told of now; marks them as told.

    A run whose worker did not come is named again after RING_AGAIN_S.
    """
    now = timezone.now()
    silent = Q(rung_at=None) | Q(rung_at__lt=now - timedelta(seconds=RING_AGAIN_S))
    waiting = Run.objects.filter(silent, status=Run.Status.QUEUED)
    return [
        run
        for run in waiting.order_by("pk")[:limit]
        if waiting.filter(pk=run.pk).update(rung_at=now)
    ]


def _owned(run_id: int, fence: int) -> QuerySet[Run]:
    return Run.objects.filter(pk=run_id, fence=fence, status=Run.Status.RUNNING)


def _ended(status: str) -> dict[str, Any]:
    return {"status": status, "ended_at": timezone.now(), "lease_until": None}


def _queued() -> dict[str, Any]:
    return {"status": Run.Status.QUEUED, "owner": "", "lease_until": None, "rung_at": None}


def _attempt_end(owned: QuerySet[Run], *, reason: str, final: bool) -> bool:
    # PostgreSQL's text holds no NUL.
    reason = reason.replace("\x00", "").strip()
    cancelled = owned.filter(cancel_requested_at__isnull=False)
    if cancelled.update(**_ended(Run.Status.CANCELLED)):
        return True
    if not final and owned.filter(attempts_left__gt=0).update(**_queued(), error=reason):
        return True
    return owned.update(**_ended(Run.Status.FAILED), error=reason) == 1
