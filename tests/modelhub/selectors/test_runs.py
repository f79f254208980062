from datetime import timedelta

import pytest
from django.utils import timezone

from modelhub.models import Run, RunMetric
from modelhub.selectors.runs import run_counts, run_series, runs_are_neglected, runs_list
from modelhub.services import runs


def test_a_short_curve_is_given_as_it_is(counting):
    run = counting()
    for step, value in ((1, 3.0), (2, 1.0), (7, 2.0)):
        RunMetric.objects.create(run=run, step=step, name="loss", value=value)
    RunMetric.objects.create(run=run, step=2, name="kl", value=0.5)
    assert run_series(run=run) == {
        "kl": {"steps": [2], "values": [0.5], "lows": [0.5], "highs": [0.5]},
        "loss": {
            "steps": [1, 2, 7],
            "values": [3.0, 1.0, 2.0],
            "lows": [3.0, 1.0, 2.0],
            "highs": [3.0, 1.0, 2.0],
        },
    }


def test_a_long_curve_keeps_its_spikes(counting):
    """1000 steps in 10 stretches of 100: stretch i holds steps 100 i + 1 … 100 (i + 1)."""
    run = counting()
    RunMetric.objects.bulk_create(
        RunMetric(run=run, step=step, name="loss", value=50.0 if step == 250 else 1.0)
        for step in range(1, 1001)
    )
    curve = run_series(run=run, points=10)["loss"]
    assert curve["steps"] == [100 * i for i in range(1, 11)]
    assert curve["highs"] == [1.0, 1.0, 50.0] + [1.0] * 7
    assert curve["lows"] == [1.0] * 10
    assert curve["values"][2] == pytest.approx((99 + 50) / 100)


def test_a_run_without_metrics_has_no_curves(counting):
    assert run_series(run=counting()) == {}


def test_runs_are_listed_by_status_and_program(counting):
    first, second = counting(), counting()
    runs.run_cancel(run=first, actor=None)
    assert list(runs_list()) == [second, first]
    assert list(runs_list(status="cancelled")) == [first]
    assert list(runs_list(program="counting", status="queued")) == [second]
    assert list(runs_list(program="sft")) == []
    counts = run_counts()
    assert (counts["queued"], counts["cancelled"], counts["running"]) == (1, 1, 0)


def test_runs_that_no_scheduler_looks_after_are_neglected(counting, settings):
    run = counting()
    assert not runs_are_neglected()
    minute_ago = timezone.now() - timedelta(seconds=61)
    Run.objects.filter(pk=run.pk).update(created_at=minute_ago)
    assert runs_are_neglected()
    runs.runs_ring()
    assert not runs_are_neglected()
    Run.objects.filter(pk=run.pk).update(rung_at=minute_ago)
    assert runs_are_neglected()
    settings.RUN_LEASE_S = -1
    runs.run_claim(run_id=run.pk, owner="gone")
    assert runs_are_neglected()
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() + timedelta(seconds=30))
    assert not runs_are_neglected()
