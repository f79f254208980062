"""Rounds in a browser: the page follows by itself, its forms work, and everyone can use it."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from alignment.models import Campaign, Round
from alignment.recipe import Recipe, recipe_dump
from alignment.services.rounds import round_advance
from annotation.models import Candidate, Membership
from modelhub.models import Run, RunMetric
from tests import builders
from tests.alignment import hands
from tests.pages.conftest import Open
from tests.pages.hostile import corpus, storable
from tests.pages.test_accessibility import violations

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
GATED = Recipe(**{**recipe_dump(hands.SMALL), "human_gates": ("deciding",)})


@pytest.fixture(autouse=True)
def folders(settings: Any, tmp_path: Path) -> None:
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    settings.RUNS_DIR = tmp_path / "runs"


@pytest.fixture
def dana(transactional_db: None) -> User:
    return builders.make_user("dana")


@pytest.fixture
def campaign(dana: User) -> Campaign:
    project = builders.make_project("Helpfulness")
    builders.make_member(project, "dana", Membership.Role.MANAGER)
    builders.make_member(project, "ranker")
    return hands.make_campaign(project)


def people(campaign: Campaign) -> list[Membership]:
    return list(campaign.project.memberships.filter(user__username="ranker"))


def path_of(round: Round, part: str = "") -> str:
    return f"/rounds/{round.uid}/{part}"


def curves_add(round: Round) -> None:
    for run in Run.objects.filter(round_run__round=round, program__in=("reward", "sft")):
        for step in range(40):
            RunMetric.objects.create(run=run, step=step, name="loss", value=0.7 / (1 + step / 9))


def evaluated(campaign: Campaign) -> Round:
    """Two promoted rounds, and a third that waits for its decision."""
    for key in ("1", "2"):
        hands.round_walk(hands.make_round(campaign, key=key), people(campaign), until="promoted")
    round = hands.make_round(campaign, GATED, key="3")
    hands.round_walk(round, people(campaign), until="deciding")
    curves_add(round)
    return round


def badge(page: Page) -> Any:
    return page.locator("#round-live .badge").first


def test_a_round_is_started_watched_and_decided_without_reloading(
    open_page: Open, campaign: Campaign, dana: User
) -> None:
    page = open_page(dana, f"/rounds/campaigns/{campaign.uid}/start/")
    page.get_by_label("Fewest rankings").fill("2")
    page.get_by_role("button", name="Start the round").click()
    page.wait_for_url(re.compile(r"/rounds/[0-9a-f]{32}/$"))
    round = Round.objects.get()
    assert round.recipe["human_gates"] == ["deciding"]
    page.evaluate("window.__same = true")

    round_advance(round=round)
    expect(badge(page)).to_have_text("sampling")
    Run.objects.update(progress_done=7, progress_total=20, progress_unit="answers")
    expect(page.get_by_text("7 of 20 answers")).to_be_visible()

    hands.runs_succeed(round)
    round_advance(round=round)
    expect(page.get_by_role("heading", name="People are ranking")).to_be_visible()
    # What is being typed is not swept away while nothing about the round's state has changed.
    page.get_by_role("button", name="Close annotating").click()
    why = page.get_by_role("dialog").get_by_label("Why")
    why.fill("enough of them")
    hands.tasks_rank(round, people(campaign))
    expect(page.get_by_text("5 of 5 accepted")).to_be_visible()
    expect(why).to_have_value("enough of them")
    page.get_by_role("dialog").get_by_role("button", name="Close annotating").click()
    expect(page.get_by_text("closed with 5 rankings: enough of them")).to_be_visible()

    hands.round_walk(round, people(campaign), until="deciding")
    expect(page.get_by_role("heading", name="Promote small v2?")).to_be_visible()
    expect(page.get_by_text("75.0%")).to_be_visible()
    page.get_by_role("link", name="Read the answers first").click()
    expect(page.get_by_role("heading", name="Answers side by side")).to_be_visible()
    page.go_back()
    page.locator("#decide-reason").fill("it says more")
    page.get_by_role("button", name="Promote").click()
    expect(badge(page)).to_have_text("promoted")
    round.refresh_from_db()
    assert round.events.last().reason == "it says more"
    assert "every 2s" not in page.content()


def test_a_double_click_and_the_back_button_start_one_round(
    open_page: Open, campaign: Campaign, dana: User, troubles: list[str]
) -> None:
    page = open_page(dana, f"/rounds/campaigns/{campaign.uid}/start/")
    page.get_by_label("Fewest rankings").fill("2")
    page.get_by_role("button", name="Start the round").dblclick()
    page.wait_for_url(re.compile(r"/rounds/[0-9a-f]{32}/$"))
    page.go_back()
    page.get_by_label("Fewest rankings").fill("2")
    page.get_by_role("button", name="Start the round").click()
    expect(page.get_by_role("alert")).to_contain_text("Round 1 is still planned")
    assert Round.objects.count() == 1
    troubles.clear()  # the browser calls the status 422 an error


def test_a_refused_form_keeps_what_was_typed(
    open_page: Open, campaign: Campaign, dana: User, troubles: list[str]
) -> None:
    page = open_page(dana, f"/rounds/campaigns/{campaign.uid}/start/")
    page.get_by_text("Advanced").click()
    page.get_by_label("Reward model").last.fill('{"lr": -1}')
    page.get_by_label("Longest answer").fill("77")
    page.get_by_role("button", name="Start the round").click()
    expect(page.get_by_text("wanted more than 0, got -1")).to_be_visible()
    expect(page.get_by_label("Longest answer")).to_have_value("77")
    assert not Round.objects.exists()
    troubles.clear()  # the browser calls the status 422 an error


@pytest.mark.parametrize(("scheme", "wide"), [("light", True), ("dark", False)])
def test_axe_finds_nothing(
    open_page: Open, campaign: Campaign, dana: User, scheme: str, wide: bool
) -> None:
    round = evaluated(campaign)
    candidate = Candidate.objects.filter(batch__purpose="evaluating").last()
    assert candidate is not None
    found: list[str] = []
    for path in (
        "/rounds/",
        "/rounds/campaigns/new/",
        f"/rounds/campaigns/{campaign.uid}/",
        f"/rounds/campaigns/{campaign.uid}/start/",
        path_of(round),
        path_of(round, "samples/"),
        f"/rounds/candidates/{candidate.uid}/",
    ):
        page = open_page(dana, path, wide=wide, color_scheme=scheme)
        found += violations(page)
        # Nothing is wider than the screen.
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        page.context.close()
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_hostile_text_stays_text_on_every_page(
    open_page: Open, campaign: Campaign, dana: User
) -> None:
    round = evaluated(campaign)
    candidate = Candidate.objects.filter(batch__purpose="evaluating").last()
    assert candidate is not None
    texts = [storable(text) for text in corpus("http://beacon.invalid")]
    together = "\n\n".join(texts)
    Campaign.objects.update(name=together[:120])
    Candidate.objects.filter(pk=candidate.pk).update(text=together[:20_000])
    round.events.update(reason=together)
    Round.objects.filter(number=2).update(state="failed", failed_in="reward", error=together)
    Run.objects.update(label=together[:200], progress_unit=together[:40])
    failed = Round.objects.get(number=2)
    for path in (
        "/rounds/",
        f"/rounds/campaigns/{campaign.uid}/",
        path_of(round),
        path_of(failed),
        path_of(round, "samples/"),
        f"/rounds/candidates/{candidate.uid}/",
    ):
        page = open_page(dana, path)
        assert page.evaluate("window.__x") is None, path
        page.context.close()
