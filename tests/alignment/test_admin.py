"""Rounds in the admin: seen by managers of the staff, moved by services, never edited."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from alignment.models import Campaign, Round
from alignment.recipe import Recipe, recipe_dump
from alignment.services.rounds import round_advance
from annotation.models import Membership
from tests import builders
from tests.alignment import hands

ROUNDS = "/admin/alignment/round/"


@pytest.fixture
def staff(campaign: Campaign, signed_in: Callable[[User], Client]) -> Client:
    user = builders.make_user("erin", is_staff=True)
    Membership.objects.create(project=campaign.project, user=user, role=Membership.Role.MANAGER)
    return signed_in(user)


def act(client: Client, action: str, *rounds: Round) -> str:
    chosen = {"action": action, "_selected_action": [round.pk for round in rounds]}
    return client.post(ROUNDS, chosen, follow=True).content.decode()


def test_a_manager_of_the_staff_reads_everything_and_edits_nothing(
    campaign: Campaign, people: list[Membership], staff: Client
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="promoted")
    assert "Start a round" in staff.get("/admin/alignment/campaign/").content.decode()
    for url in (
        ROUNDS,
        f"/admin/alignment/campaign/{campaign.pk}/change/",
        f"{ROUNDS}{round.pk}/change/",
        "/admin/alignment/stageevent/",
        "/admin/alignment/evaluation/",
        f"/admin/alignment/evaluation/{round.evaluation.pk}/change/",
    ):
        page = staff.get(url)
        assert page.status_code == 200, url
        assert 'name="_save"' not in page.content.decode()
    assert staff.post(f"{ROUNDS}{round.pk}/change/", {"state": "planned"}).status_code == 403
    assert staff.get(f"{ROUNDS}add/").status_code == 403
    assert staff.post(f"{ROUNDS}{round.pk}/delete/", {"post": "yes"}).status_code == 403


def test_staff_who_manage_nothing_here_see_nothing_here(
    campaign: Campaign, eve: User, signed_in: Callable[[User], Client]
) -> None:
    round = hands.make_round(campaign)
    other = builders.make_project("Other")
    Membership.objects.create(project=other, user=eve, role=Membership.Role.MANAGER)
    client = signed_in(eve)
    assert campaign.name not in client.get(ROUNDS).content.decode()
    assert client.get(f"{ROUNDS}{round.pk}/change/").status_code in (302, 403, 404)
    act(client, "cancel", round)
    round.refresh_from_db()
    assert round.state == "planned"


def test_actions_go_through_the_services(
    campaign: Campaign, people: list[Membership], staff: Client
) -> None:
    recipe = Recipe(**{**recipe_dump(hands.SMALL), "human_gates": ("reward", "deciding")})
    round = hands.make_round(campaign, recipe)
    round_advance(round=round)
    hands.run_fail(hands.queued(round)[0])
    round_advance(round=round)
    assert "1 going on" in act(staff, "retry", round)
    hands.round_walk(round, people, until="annotating")
    assert "asks for at least 2" in act(staff, "close_annotating", round)
    hands.tasks_rank(round, people)
    assert "1 closed" in act(staff, "close_annotating", round)
    round_advance(round=round)
    hands.runs_succeed(round)
    round_advance(round=round)
    assert "1 going on" in act(staff, "go_on", round)
    hands.round_walk(round, people, until="deciding")
    assert "1 rejected" in act(staff, "reject", round)
    event = round.events.last()
    assert event.actor is not None and event.actor.username == "erin"
    second = hands.make_round(campaign, key="2")
    assert "1 cancelled" in act(staff, "cancel", second)
    assert "not deciding" in act(staff, "promote", second)


def test_advancing_from_the_admin_rings_the_task(
    campaign: Campaign, staff: Client, django_capture_on_commit_callbacks: Callable[..., object]
) -> None:
    round = hands.make_round(campaign)
    with django_capture_on_commit_callbacks() as callbacks:  # type: ignore[attr-defined]
        act(staff, "advance", round)
    assert len(callbacks) == 1
    assert reverse("round_detail", args=[round.uid]) in staff.get(ROUNDS).content.decode()
