"""The arrows of a run, and who may walk them."""

import threading
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection, connections
from django.utils import timezone

from alignment.ml.configs import SftConfig
from modelhub.config_fields import config_fields
from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.configs import GenerateConfig, ImportModelConfig
from modelhub.models import Artifact, Run
from modelhub.run_settings import settings_grouped
from modelhub.services import runs
from tests.builders import make_artifact
from tests.modelhub.counting import CountingConfig

Status = Run.Status


def claimed(run: Run) -> Run:
    taken = runs.run_claim(run_id=run.pk, owner="worker:1")
    assert taken is not None
    return taken


def expire(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def fresh(run: Run) -> Run:
    return Run.objects.get(pk=run.pk)


# Creating


def test_a_run_keeps_its_configuration_and_inputs(db, eve):
    prompts = make_artifact(Artifact.Kind.PROMPTS)
    config = GenerateConfig(samples=2, temperatures=(0.7, 1.0))
    run = runs.run_create(
        program="generate", config=config, inputs={"prompts": prompts}, requested_by=eve
    )
    run = fresh(run)
    assert run.config["temperatures"] == [0.7, 1.0]
    assert run.inputs.get(role="prompts").artifact == prompts
    assert (run.status, run.attempts_left, run.fence) == (Status.QUEUED, 3, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"program": "os.system"}, "no program 'os.system'"),
        ({"program": "generate"}, "for counting, not generate"),
        ({"launcher": "bash"}, "no launcher 'bash'"),
        ({"queue": "../gpu"}, "cannot name"),
        ({"inputs": {"../../etc": None}}, "cannot name"),
        ({"inputs": {"": None}}, "cannot name"),
    ],
)
def test_what_may_not_run_is_refused_and_nothing_is_queued(db, change, message):
    asked = {"program": "counting", "config": CountingConfig(), "inputs": {}} | change
    with pytest.raises(ApplicationError, match=message):
        runs.run_create(**asked)
    assert not Run.objects.exists()


def test_what_is_the_sites_to_say_is_written_into_every_run(db, settings):
    """Or a prompt that a project holds out would be trained on here."""
    settings.PROMPT_SPLIT_SHARES = (0.5, 0.1, 0.4)
    for config in (SftConfig(), SftConfig(split_shares=(1.0, 0.0, 0.0))):
        run = runs.run_create(program="sft", config=config, inputs={})
        assert run.config["split_shares"] == [0.5, 0.1, 0.4]
    assert "split_shares" not in {one.name for one in config_fields(SftConfig)}
    shown = {row.name: row for group in settings_grouped(run) for row in group.rows}
    assert shown["split_shares"].text == "0.5, 0.1, 0.4"
    assert shown["split_shares"].about


def test_a_configuration_that_json_cannot_hold_is_refused(db):
    with pytest.raises(ApplicationError):
        runs.run_create(program="counting", config=CountingConfig(step_s=float("nan")), inputs={})


# Owning


def test_a_claim_is_a_lease_with_a_fence(counting, settings):
    settings.RUN_LEASE_S = 30
    run = claimed(counting())
    assert (run.status, run.fence, run.attempts_left) == (Status.RUNNING, 1, 2)
    assert run.owner == "worker:1"
    assert timedelta(seconds=25) < run.lease_until - timezone.now() <= timedelta(seconds=30)


def test_only_a_queued_run_is_claimed(counting):
    run = counting()
    claimed(run)
    assert runs.run_claim(run_id=run.pk, owner="worker:2") is None
    assert runs.run_claim(run_id=999_999, owner="worker:2") is None
    for status in (Status.CANCELLED, Status.FAILED):
        Run.objects.filter(pk=run.pk).update(status=status)
        assert runs.run_claim(run_id=run.pk, owner="worker:2") is None


@pytest.mark.django_db(transaction=True)
def test_of_many_simultaneous_claims_one_gets_the_run(counting):
    run = counting()
    barrier, taken = threading.Barrier(8), []

    def claim(number: int) -> None:
        barrier.wait()
        try:
            if runs.run_claim(run_id=run.pk, owner=f"worker:{number}"):
                taken.append(number)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert fresh(run).owner == f"worker:{taken[0]}"
    assert fresh(run).fence == 1


def test_no_write_of_a_worker_that_lost_the_run_counts(counting):
    run = counting()
    lost = claimed(run)
    expire(run)
    runs.runs_reap()
    owner = claimed(run)
    before = Run.objects.values().get(pk=run.pk)
    named = {"run_id": run.pk, "fence": lost.fence}
    assert not runs.run_heartbeat(**named, progress=(1, 2, "steps"))
    assert not runs.run_metrics_add(**named, points=[(1, "loss", 1.0)], offset=10)
    assert not runs.run_finish(**named, outputs={"x": make_artifact()}, result={})
    assert not runs.run_attempt_fail(**named, reason="mine")
    assert not runs.run_release(**named)
    assert runs.run_cancel_asked(**named) is None
    assert Run.objects.values().get(pk=run.pk) == before
    assert not run.metrics.exists()
    assert not run.outputs.exists()
    assert runs.run_heartbeat(run_id=run.pk, fence=owner.fence)


def test_a_heartbeat_renews_the_lease_and_tells_the_progress(counting):
    run = claimed(counting())
    expire(run)
    assert runs.run_heartbeat(run_id=run.pk, fence=1, progress=(3, 9, "prompts"))
    run = fresh(run)
    assert run.lease_until > timezone.now()
    assert (run.progress_done, run.progress_total, run.progress_unit) == (3, 9, "prompts")


def test_points_that_come_twice_are_kept_once(counting):
    run = claimed(counting())
    for offset in (10, 20):
        runs.run_metrics_add(
            run_id=run.pk, fence=1, points=[(1, "loss", 0.5), (2, "loss", 0.4)], offset=offset
        )
    assert list(run.metrics.values_list("step", "value")) == [(1, 0.5), (2, 0.4)]
    assert fresh(run).metrics_offset == 20


# Reaping


def test_a_run_with_a_live_lease_is_left_alone(counting):
    claimed(counting())
    assert runs.runs_reap() == 0


def test_an_expired_run_goes_back_to_the_queue_until_its_attempts_are_out(counting):
    run = counting()
    for attempt in (1, 2, 3):
        assert claimed(run).fence == attempt
        expire(run)
        assert runs.runs_reap() == 1
        assert runs.runs_reap() == 0
    run = fresh(run)
    assert run.status == Status.FAILED
    assert "worker worker:1 was lost" in run.error


@pytest.mark.django_db(transaction=True)
def test_two_reapers_settle_a_run_once(counting):
    run = counting()
    claimed(run)
    expire(run)
    barrier, settled = threading.Barrier(4), []

    def reap() -> None:
        barrier.wait()
        try:
            settled.append(runs.runs_reap())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=reap) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(settled) == 1
    assert fresh(run).attempts_left == 2


def test_an_expired_run_that_was_to_stop_is_cancelled(counting):
    run = claimed(counting())
    runs.run_cancel(run=run, actor=None)
    expire(run)
    assert runs.runs_reap() == 1
    assert fresh(run).status == Status.CANCELLED


# Ending


def test_a_released_run_has_its_attempt_back(counting):
    run = claimed(counting())
    assert runs.run_release(run_id=run.pk, fence=1)
    assert (fresh(run).status, fresh(run).attempts_left) == (Status.QUEUED, 3)


def test_a_run_cancelled_before_its_worker_stops_is_not_queued_again(counting):
    run = claimed(counting())
    runs.run_cancel(run=run, actor=None)
    assert runs.run_release(run_id=run.pk, fence=1)
    assert fresh(run).status == Status.CANCELLED


def test_a_cancellation_that_came_before_the_end_wins(counting):
    run = claimed(counting())
    runs.run_cancel(run=run, actor=None)
    assert runs.run_finish(run_id=run.pk, fence=1, outputs={"x": make_artifact()}, result={"a": 1})
    run = fresh(run)
    assert run.status == Status.CANCELLED
    assert run.result is None
    assert not run.outputs.exists()


def test_cancelling_a_queued_run_ends_it_and_is_kept_in_its_history(counting, eve):
    run = counting()
    for _ in range(2):
        assert runs.run_cancel(run=run, actor=eve).status == Status.CANCELLED
    assert fresh(run).ended_at is not None
    entry = LogEntry.objects.get()
    assert (entry.user, entry.change_message, entry.object_id) == (eve, "cancelled", str(run.pk))


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
def test_an_ended_run_is_not_cancelled(counting, status):
    run = counting()
    Run.objects.filter(pk=run.pk).update(status=status, result={})
    with pytest.raises(ConflictError):
        runs.run_cancel(run=run, actor=None)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_a_retry_restores_the_attempts(counting, status):
    run = counting()
    Run.objects.filter(pk=run.pk).update(
        status=status,
        attempts_left=0,
        error="no",
        fence=3,
        cancel_requested_at=timezone.now(),
        ended_at=timezone.now(),
    )
    run = runs.run_retry(run=run, actor=None)
    assert (run.status, run.attempts_left, run.error) == (Status.QUEUED, 3, "")
    assert run.cancel_requested_at is None
    assert run.ended_at is None
    assert claimed(run).fence == 4


def test_a_retry_of_a_live_run_changes_nothing_and_of_a_success_is_refused(counting):
    run = claimed(counting())
    assert runs.run_retry(run=run, actor=None).status == Status.RUNNING
    Run.objects.filter(pk=run.pk).update(status=Status.SUCCEEDED, result={})
    with pytest.raises(ConflictError):
        runs.run_retry(run=run, actor=None)


def test_an_error_with_a_nul_is_kept_without_it(counting):
    run = claimed(counting())
    runs.run_attempt_fail(run_id=run.pk, fence=1, reason="a\x00b", final=True)
    assert fresh(run).error == "ab"


# Ringing


def test_a_waiting_run_is_rung_once_and_again_when_nobody_came(counting):
    first, second = counting(), counting()
    assert runs.runs_ring() == [first, second]
    assert runs.runs_ring() == []
    Run.objects.filter(pk=first.pk).update(rung_at=timezone.now() - timedelta(seconds=31))
    assert runs.runs_ring() == [first]


def test_a_run_back_in_the_queue_is_rung_at_once(counting):
    run = counting()
    runs.runs_ring()
    claimed(run)
    expire(run)
    runs.runs_reap()
    assert runs.runs_ring() == [run]


def test_a_running_run_is_not_rung(counting):
    claimed(counting())
    assert runs.runs_ring() == []
    assert connection.vendor in ("sqlite", "postgresql")


def test_the_label_of_an_import_is_short_enough_for_its_column(db):
    config = ImportModelConfig(source="hub", location="a/b", model="m")
    run = runs.run_create(program="import_model", config=config, inputs={}, label="x" * 500)
    assert len(fresh(run).label) == 200
