"""A run that waits for a worker that is not there says so, and only then."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import override

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
    assert workers_silence(runs=[waiting]) == Silence(queue="cpu", minutes=10, is_untold=False)
    assert workers_silence_now() == workers_silence(runs=[waiting])
    Run.objects.filter(pk=waiting.pk).update(rung_at=None)
    waiting.refresh_from_db()
    assert workers_silence(runs=[waiting]).is_untold


def test_a_worker_that_is_busy_reports_and_one_that_was_lost_did(waiting, counting):
    busy = counting()
    runs.run_claim(run_id=busy.pk, owner="here:1")
    assert workers_silence(runs=[waiting]) is None
    Run.objects.filter(pk=busy.pk).update(heartbeat_at=ago(4.5))
    assert workers_silence(runs=[waiting]).minutes == 4


def test_a_run_on_another_machine_is_no_workers_report(waiting, counting):
    runs.run_hand_out(run=counting())
    assert workers_silence(runs=[waiting]).minutes == 10


def test_a_run_waits_since_it_was_asked_for_again(waiting, eve: User):
    runs.run_cancel(run=waiting, actor=None)
    again = runs.run_retry(run=waiting, actor=eve)
    assert workers_silence(runs=[again]) is None


def test_a_new_run_and_one_that_ended_cost_no_query(waiting, counting, django_assert_num_queries):
    new, ended = counting(), runs.run_cancel(run=waiting, actor=None)
    with django_assert_num_queries(0):
        assert workers_silence(runs=[new, ended]) is None


def test_the_run_that_waits_longest_is_told_of_with_two_queries(
    waiting, counting, eve: User, django_assert_num_queries
):
    """The first asked for was retried a minute ago, the last came to nothing an hour later."""
    later, back = counting(), counting()
    Run.objects.filter(pk=later.pk).update(created_at=ago(7.5))
    Run.objects.filter(pk=back.pk).update(created_at=ago(90), heartbeat_at=ago(30), queue="gpu")
    runs.run_retry(run=runs.run_cancel(run=waiting, actor=None), actor=eve)
    queued = list(Run.objects.order_by("pk"))
    with django_assert_num_queries(2):
        assert workers_silence(runs=queued) == Silence(queue="gpu", minutes=30, is_untold=True)
    assert workers_silence_now() == workers_silence(runs=queued)
    runs.run_cancel(run=back, actor=None)
    Run.objects.filter(pk=back.pk).update(heartbeat_at=None)
    assert workers_silence_now() == Silence(queue="cpu", minutes=7, is_untold=True)


def test_a_worker_busy_for_another_queue_may_take_this_one_next(waiting, counting):
    busy = counting()
    Run.objects.filter(pk=busy.pk).update(queue="gpu")
    runs.run_claim(run_id=busy.pk, owner="here:1")
    assert workers_silence(runs=[waiting]) is None


@pytest.mark.parametrize(
    ("minutes", "english", "chinese"),
    [
        (1, "1 minute", "1 分钟"),
        (119, "119 minutes", "119 分钟"),
        (120, "2 hours", "2 小时"),
        (2879, "47 hours", "47 小时"),
        (3600, "2 days", "2 天"),
    ],
)
def test_a_long_silence_is_told_in_hours_and_days(minutes: int, english: str, chinese: str):
    silence = Silence(queue="cpu", minutes=minutes, is_untold=False)
    assert silence.time == english
    with override("zh-hans"):
        assert silence.time == chinese


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
