"""The API of campaigns and rounds: managers alone, explicit fields, done once under a key."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from alignment.models import Campaign, Round
from alignment.recipe import Recipe, recipe_dump
from alignment.services import rounds
from alignment.services.rounds import round_advance
from alignment.services.stages import Frozen, rankings_freeze
from annotation.models import Membership
from modelhub.models import ModelVersion
from tests import builders
from tests.alignment import hands

SignedIn = Callable[[User], Client]
SMALL = {"samples": 3, "engine": "transformers", "minimum_rankings": 2}


@pytest.fixture
def manager(dana: User, signed_in: SignedIn) -> Client:
    return signed_in(dana)


def post(client: Client, url: str, body: Any = None, key: str | None = None) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post(
        url, {} if body is None else body, content_type="application/json", headers=headers
    )


def start(client: Client, campaign: Campaign, key: str | None = None, **recipe: Any) -> Any:
    url = f"/api/v1/campaigns/{campaign.uid}/rounds/"
    return post(client, url, {"recipe": {**SMALL, **recipe}}, key)


def test_a_round_is_started_read_closed_and_decided(
    campaign: Campaign, people: list[Membership], manager: Client
) -> None:
    started = start(manager, campaign, key="one")
    assert started.status_code == 201
    round = Round.objects.get()
    assert started.json()["uid"] == round.uid and started.json()["state"] == "planned"
    hands.round_walk(round, people, until="annotating")
    url = f"/api/v1/rounds/{round.uid}/"
    refused = post(manager, f"{url}close/")
    assert refused.status_code == 400 and refused.json()["extra"] == {"accepted": 0, "minimum": 2}
    hands.tasks_rank(round, people)
    assert post(manager, f"{url}close/", {"reason": "enough"}).json()["state"] == "freezing"
    hands.round_walk(round, people, until="deciding")
    shown = manager.get(url).json()
    assert [stage["standing"] for stage in shown["stages"]] == ["done"] * 7 + ["now"]
    assert shown["annotation"]["accepted"] == 5
    assert shown["held_out"]["accuracy"] == 0.75
    assert shown["evaluation"]["reward_difference"]["mean"] == 0.3
    assert shown["waits_for_person"] is True
    decided = post(manager, f"{url}decide/", {"promote": True, "reason": "better"})
    assert decided.json()["state"] == "promoted"
    assert decided.json()["policy_out"]["number"] == 2
    again = post(manager, f"{url}decide/", {"promote": False})
    assert again.status_code == 409
    listed = manager.get(f"/api/v1/campaigns/{campaign.uid}/rounds/").json()
    assert [one["state"] for one in listed] == ["promoted"]
    detail = manager.get(f"/api/v1/campaigns/{campaign.uid}/").json()
    assert detail["champion"]["number"] == 2


def test_one_key_starts_one_round_however_often_it_is_sent(
    campaign: Campaign, manager: Client
) -> None:
    replies = [start(manager, campaign, key="the same") for _ in range(5)]
    assert {reply.json()["uid"] for reply in replies} == {Round.objects.get().uid}
    other = start(manager, campaign, key="the same", samples=4)
    assert other.status_code == 409
    assert start(manager, campaign, key="another").status_code == 409  # one is open
    assert Round.objects.count() == 1


def test_cancel_and_retry(campaign: Campaign, manager: Client) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    hands.run_fail(hands.queued(round)[0])
    round_advance(round=round)
    url = f"/api/v1/rounds/{round.uid}"
    assert post(manager, f"{url}/continue/").status_code == 409
    first = post(manager, f"{url}/retry/", key="r")
    assert first.json()["state"] == "sampling"
    assert post(manager, f"{url}/retry/", key="r").json() == first.json()
    assert post(manager, f"{url}/cancel/", {"reason": "no"}).json()["state"] == "cancelled"


def test_everybody_else_is_told_that_nothing_is_there(
    campaign: Campaign,
    alice: User,
    bob: User,
    charlie: User,
    eve: User,
    signed_in: SignedIn,
) -> None:
    round = hands.make_round(campaign)
    for person in (alice, bob, charlie, eve):
        client = signed_in(person)
        assert client.get("/api/v1/campaigns/").json() == []
        for url in (
            f"/api/v1/campaigns/{campaign.uid}/",
            f"/api/v1/campaigns/{campaign.uid}/rounds/",
            f"/api/v1/rounds/{round.uid}/",
        ):
            assert client.get(url).status_code == 404
        assert start(client, campaign).status_code == 404
        for act in ("cancel", "retry", "close", "continue"):
            assert post(client, f"/api/v1/rounds/{round.uid}/{act}/").status_code == 404
        body = {"promote": True}
        assert post(client, f"/api/v1/rounds/{round.uid}/decide/", body).status_code == 404
    assert Client().get("/api/v1/campaigns/").status_code in (401, 403)


def test_an_id_that_is_not_ours_is_refused_as_a_field(
    manager: Client, dana: User, charlie: User
) -> None:
    ours = dana.memberships.get().project
    base = hands.make_base("mine")
    reward = builders.make_version("judge", role=ModelVersion.Role.REWARD)
    body = {"project": ours.uid, "name": "A campaign", "base_version": base.uid}
    strange = charlie.memberships.get().project.uid
    for field, value in [
        ("project", strange),
        ("project", "0" * 32),
        ("project", ours.pk),
        ("project", [ours.uid]),
        ("base_version", reward.uid),
        ("base_version", base.pk),
        ("created_by", 1),
        ("policy_model", base.model.uid),
    ]:
        response = post(manager, "/api/v1/campaigns/", {**body, field: value})
        assert response.status_code == 400, (field, value)
        assert list(response.json()["extra"]["fields"]) == [field]
    assert not Campaign.objects.exists()
    made = post(manager, "/api/v1/campaigns/", body, key="c")
    assert made.status_code == 201 and made.json()["project"] == ours.uid
    assert post(manager, "/api/v1/campaigns/", body, key="c").json() == made.json()
    assert Campaign.objects.get().created_by == dana


@pytest.mark.parametrize(
    "recipe",
    [
        {"samples": 1},
        {"samples": "4"},
        {"temperatures": []},
        {"unknown": 1},
        {"reward": {"lr": 0}},
        {"generate": {"endpoint_key_variable": "HOME"}},
        {"human_gates": ["promoted"]},
    ],
)
def test_a_recipe_that_does_not_hold_is_refused_naming_its_field(
    campaign: Campaign, manager: Client, recipe: dict[str, Any]
) -> None:
    response = start(manager, campaign, **recipe)
    assert response.status_code == 400
    (said,) = response.json()["extra"]["fields"]["recipe"]
    assert next(iter(recipe)) in said
    assert not Round.objects.exists()


@pytest.mark.parametrize("field", ["state", "policy_out", "number", "lap", "launch_key", "error"])
def test_no_field_of_a_round_can_be_set_from_outside(
    campaign: Campaign, manager: Client, field: str
) -> None:
    url = f"/api/v1/campaigns/{campaign.uid}/rounds/"
    response = post(manager, url, {"recipe": SMALL, field: "promoted"})
    assert response.status_code == 400 and list(response.json()["extra"]["fields"]) == [field]
    round = hands.make_round(campaign)
    for act in ("cancel", "retry", "close"):
        body = {field: "promoted"}
        assert post(manager, f"/api/v1/rounds/{round.uid}/{act}/", body).status_code == 400
    round.refresh_from_db()
    assert round.state == "planned"


def test_a_gates_rankings_are_frozen_before_the_transaction_that_keeps_the_reply(
    campaign: Campaign,
    people: list[Membership],
    manager: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe(**{**recipe_dump(hands.SMALL), "human_gates": ("freezing",)})
    round = hands.round_walk(hands.make_round(campaign, recipe), people, until="freezing")
    depths = []

    def freeze(*, round: Round) -> Frozen:
        depths.append(len(connection.atomic_blocks))
        return rankings_freeze(round=round)

    monkeypatch.setattr(rounds, "rankings_freeze", freeze)
    answer = post(manager, f"/api/v1/rounds/{round.uid}/continue/", key="go")
    assert answer.json()["state"] == "reward"
    assert depths == [len(connection.atomic_blocks)]  # none but the test's own
