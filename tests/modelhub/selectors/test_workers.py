"""A run that waits for a worker that is not there says so, and only then."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from modelhub.models import Run
from modelhub.selectors.workers import Silence, workers_silence, workers_silence_now
from modelhub.services import runs


def ago(minutes: float):
    return timezone.now() - timedelta(minutes=minutes)


@pytest.fixture
def waiting(counting) -> Run:
    """A run that waits for ten minutes, and of which a worker was told just now."""
    run = counting()
    Run.objects.filter(pk=run.pk).update(created_at=ago(10.5), rung_at=ago(0.2))
    run.refresh_from_db()
    return run


def test_a_run_nobody_takes_says_for_how_long_and_which_worker_it_wants(waiting):
    assert workers_silence(run=waiting) == Silence(queue="cpu", minutes=10, is_untold=False)
    assert workers_silence_now() == workers_silence(run=waiting)
    Run.objects.filter(pk=waiting.pk).update(rung_at=None)
    waiting.refresh_from_db()
    assert workers_silence(run=waiting).is_untold


def test_a_worker_that_is_busy_reports_and_one_that_was_lost_did(waiting, counting):
    busy = counting()
    runs.run_claim(run_id=busy.pk, owner="here:1")
    assert workers_silence(run=waiting) is None
    Run.objects.filter(pk=busy.pk).update(heartbeat_at=ago(4.5))
    assert workers_silence(run=waiting).minutes == 4


def test_a_run_on_another_machine_is_no_workers_report(waiting, counting):
    runs.run_hand_out(run=counting())
    assert workers_silence(run=waiting).minutes == 10


def test_a_run_waits_since_it_was_asked_for_again(waiting, eve: User):
    runs.run_cancel(run=waiting, actor=None)
    again = runs.run_retry(run=waiting, actor=eve)
    assert workers_silence(run=again) is None


def test_a_new_run_and_one_that_ended_cost_no_query(waiting, counting, django_assert_num_queries):
    new, ended = counting(), runs.run_cancel(run=waiting, actor=None)
    with django_assert_num_queries(0):
        assert workers_silence(run=new) is workers_silence(run=ended) is None


def test_the_runs_page_and_the_hubs_say_so(waiting, eve: User, signed_in):
    staff = signed_in(eve)
    pages = [reverse("run_detail", args=[waiting.uid]), reverse("run_list"), reverse("model_list")]
    for page in pages:
        shown = staff.get(page).content.decode()
        assert "No worker has reported for 10 minutes." in shown, page
        assert "celery -A config worker -Q cpu -P solo" in shown
        assert "-Q default" not in shown
    runs.run_claim(run_id=waiting.pk, owner="here:1")
    assert all("No worker has reported" not in staff.get(page).content.decode() for page in pages)
