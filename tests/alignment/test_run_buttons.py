"""A manager stops and takes up single runs, on the page of their round."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from alignment.models import Campaign, Round
from alignment.services.rounds import round_advance
from modelhub.models import Run
from tests import builders
from tests.alignment import hands
from tests.alignment.test_pages import SignedIn, State, html


@pytest.fixture
def manager(dana: User, signed_in: SignedIn) -> Client:
    return signed_in(dana)


def test_a_manager_cancels_and_retries_a_run_on_the_rounds_page(
    campaign: Campaign, dana: User, charlie: User, manager: Client, signed_in: SignedIn
) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    run = round.round_runs.get().run
    page, cancel, retry = (
        reverse("round_detail", args=[round.uid]),
        reverse("round_run_cancel", args=[round.uid, run.uid]),
        reverse("round_run_retry", args=[round.uid, run.uid]),
    )
    assert cancel in html(manager.get(page)) and retry not in html(manager.get(page))
    # Polling, it is told that nothing is new: no token is drawn again with the buttons.
    seen = re.search(r"seen=(\w+)", html(manager.get(page)))
    assert seen is not None
    polled = manager.get(page, {"seen": seen[1]}, headers={"HX-Request": "true"})
    assert polled.status_code == 204
    assert signed_in(charlie).post(cancel).status_code == 404
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(dana)
    assert strict.post(cancel).status_code == 403
    manager.post(cancel)
    run.refresh_from_db()
    assert run.status == Run.Status.CANCELLED
    round_advance(round=round)
    assert round.state == State.FAILED and retry in html(manager.get(page))
    manager.post(retry)
    run.refresh_from_db()
    round.refresh_from_db()
    assert run.status == Run.Status.QUEUED and round.state == State.SAMPLING
    other = hands.make_round(
        hands.make_campaign(builders.make_project("Other"), name="other"), key="other"
    )
    round_advance(round=other)
    strange = other.round_runs.get().run
    for name in ("round_run_cancel", "round_run_retry"):
        url = reverse(name, args=[round.uid, strange.uid])
        assert manager.post(url).status_code == 404
    strange.refresh_from_db()
    assert strange.status == Run.Status.QUEUED


def test_a_run_of_a_stage_that_is_over_is_not_retried(campaign: Campaign, manager: Client) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    run = round.round_runs.get().run
    hands.run_fail(run)
    Round.objects.filter(pk=round.pk).update(state=State.ANNOTATING)
    url = reverse("round_run_retry", args=[round.uid, run.uid])
    assert "has gone on" in html(manager.post(url, follow=True))
    run.refresh_from_db()
    assert run.status == Run.Status.FAILED


def test_a_manager_who_is_not_staff_is_told_whom_to_ask_for_a_worker(
    campaign: Campaign, dana: User, manager: Client
) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    Run.objects.update(created_at=timezone.now() - timedelta(hours=60))
    page = reverse("round_detail", args=[round.uid])
    shown = html(manager.get(page))
    assert "No worker has reported for 2 days." in shown
    assert "Ask whoever runs this site" in shown and "make up" not in shown
    User.objects.filter(pk=dana.pk).update(is_staff=True)
    shown = html(manager.get(page))
    assert "Ask whoever runs this site" not in shown and "make up" in shown
