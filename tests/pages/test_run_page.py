"""A run's page in a browser: curves that grow, a log that follows, buttons that ask first."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect

from modelhub import storage
from modelhub.models import Run
from modelhub.services import runs
from tests import builders
from tests.pages.conftest import Open

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def eve(transactional_db: None) -> User:
    return builders.make_user("eve", is_staff=True)


@pytest.fixture
def run(transactional_db: None, settings: Any, tmp_path: Path) -> Run:
    """A run that a worker has just begun."""
    settings.RUNS_DIR = tmp_path / "runs"
    run = Run.objects.create(program="reward", config={"seed": 3}, label="Round 1: reward")
    (storage.run_folder_make(run) / storage.LOG_NAME).write_text("begun <b>now</b>\n")
    claimed = runs.run_claim(run_id=run.pk, owner="here:1")
    assert claimed is not None
    return claimed


def points_add(run: Run, first: int, last: int) -> None:
    points = [
        (step, name, value / step)
        for step in range(first, last + 1)
        for name, value in (("loss", 1.0), ("lr", 1e-5))
    ]
    assert runs.run_metrics_add(run_id=run.pk, fence=run.fence, points=points, offset=last)


def test_curves_and_progress_grow_while_the_page_is_open(open_page: Open, eve, run):
    page = open_page(eve, f"/hub/runs/{run.uid}/")
    expect(page.get_by_text("They appear when the program has written")).to_be_visible()
    points_add(run, 1, 4)
    runs.run_heartbeat(run_id=run.pk, fence=run.fence, progress=(4, 9, "steps"))
    expect(page.get_by_role("img", name="loss: 4 points, from 1 to 0.25")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("lr: 4 points, from 1e-5"))).to_be_visible()
    expect(page.locator("figure.chart canvas")).to_have_count(2)
    expect(page.get_by_text("4 of 9 steps")).to_be_visible()
    points_add(run, 5, 8)
    expect(page.get_by_role("img", name="loss: 8 points, from 1 to 0.125")).to_be_visible()
    expect(page.locator("figure.chart", has_text="loss")).to_contain_text("0.125 at step 8")


def test_the_end_of_the_run_is_seen_and_nothing_more_is_asked(open_page: Open, eve, run):
    page = open_page(eve, f"/hub/runs/{run.uid}/")
    expect(page.locator("#run-live .badge").first).to_have_text("running")
    with (storage.run_folder(run) / storage.LOG_NAME).open("a") as log:
        log.write("the dog ate <script>it</script>\n")
    points_add(run, 1, 2)
    runs.run_attempt_fail(run_id=run.pk, fence=run.fence, reason="ValueError: it", final=True)
    expect(page.get_by_role("heading", name="It failed")).to_be_visible()
    expect(page.locator("#run-log pre")).to_contain_text("the dog ate <script>it</script>")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("loss"))).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(4500)
    assert asked == []


def test_cancelling_asks_first(open_page: Open, eve, run):
    page = open_page(eve, f"/hub/runs/{run.uid}/")
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Keep as it is").click()
    run.refresh_from_db()
    assert run.cancel_requested_at is None
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.get_by_text("The run is stopping.")).to_be_visible()
    expect(page.get_by_text("stopping", exact=True)).to_be_visible()
    run.refresh_from_db()
    assert run.cancel_requested_at is not None


def test_the_dark_page_draws_its_curves_anew(open_page: Open, eve, run):
    points_add(run, 1, 4)
    page = open_page(eve, f"/hub/runs/{run.uid}/")
    expect(page.locator("figure.chart canvas")).to_have_count(2)
    page.get_by_role("button", name="Switch between light and dark").click()
    expect(page.locator("figure.chart canvas")).to_have_count(2)
