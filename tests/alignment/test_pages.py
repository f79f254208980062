"""Pages of campaigns and rounds: who sees them, what they show, what their forms do."""

import json
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from alignment.forms import RecipeForm
from alignment.models import Campaign, Round
from alignment.recipe import Recipe, recipe_dump
from alignment.services.rounds import round_advance
from annotation.models import Candidate, Membership
from modelhub.models import ModelVersion, Run
from tests import builders
from tests.alignment import hands

SignedIn = Callable[[User], Client]
State = Round.State


@pytest.fixture
def manager(dana: User, signed_in: SignedIn) -> Client:
    return signed_in(dana)


def recipe_with(**values: object) -> Recipe:
    return Recipe(**{**recipe_dump(hands.SMALL), **values})


def form_values(campaign: Campaign, **values: object) -> dict[str, object]:
    """What the browser sends of the form as it is first shown."""
    form = RecipeForm(campaign=campaign)
    sent = {field.html_name: field.value() for field in form}
    kept = {name: value for name, value in sent.items() if value is not None and value is not False}
    return {**kept, "minimum_rankings": 2, **values}


def html(response: object) -> str:
    return response.content.decode()  # type: ignore[attr-defined]


# Access


def test_outsiders_annotators_and_reviewers_are_told_that_nothing_is_there(
    campaign: Campaign, alice: User, bob: User, charlie: User, eve: User, signed_in: SignedIn
) -> None:
    round = hands.make_round(campaign)
    candidate = Candidate.objects.create(prompt=campaign.project.prompts.first(), text="An answer.")
    reads = [
        reverse("campaign_detail", args=[campaign.uid]),
        reverse("round_new", args=[campaign.uid]),
        reverse("round_detail", args=[round.uid]),
        reverse("round_samples", args=[round.uid]),
        reverse("candidate_origin", args=[candidate.uid]),
    ]
    acts = [
        reverse(f"round_{act}", args=[round.uid])
        for act in ("cancel", "retry", "close", "continue", "decide")
    ]
    acts.append(reverse("round_new", args=[campaign.uid]))
    for person in (alice, bob, charlie, eve):
        client = signed_in(person)
        for url in reads:
            assert client.get(url).status_code == 404, (person, url)
        for url in acts:
            assert client.post(url).status_code == 404, (person, url)
    assert Round.objects.get().state == State.PLANNED


def test_a_strange_id_looks_like_a_missing_one(
    campaign: Campaign, charlie: User, signed_in: SignedIn
) -> None:
    client = signed_in(charlie)
    there = client.get(reverse("campaign_detail", args=[campaign.uid]))
    missing = client.get(reverse("campaign_detail", args=["0" * 32]))
    assert (there.status_code, len(there.content)) == (404, len(missing.content))


def test_a_stranger_is_sent_to_sign_in(campaign: Campaign) -> None:
    response = Client().get(reverse("campaign_detail", args=[campaign.uid]))
    assert response.status_code == 302 and response.url.startswith("/sign-in/")


def test_a_superuser_manages_every_project(campaign: Campaign, signed_in: SignedIn) -> None:
    client = signed_in(builders.make_user("root", is_superuser=True, is_staff=True))
    assert client.get(reverse("campaign_detail", args=[campaign.uid])).status_code == 200


@pytest.mark.parametrize("act", ["cancel", "retry", "close", "continue", "decide"])
def test_nothing_happens_on_a_get_or_without_a_token(
    campaign: Campaign, dana: User, manager: Client, act: str
) -> None:
    round = hands.make_round(campaign)
    url = reverse(f"round_{act}", args=[round.uid])
    assert manager.get(url).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(dana)
    assert strict.post(url, {"decision": "promote"}).status_code == 403
    round.refresh_from_db()
    assert round.state == State.PLANNED


# Campaigns


def test_the_list_holds_the_campaigns_of_managed_projects_only(
    campaign: Campaign, manager: Client, charlie: User, signed_in: SignedIn
) -> None:
    assert campaign.name in html(manager.get(reverse("campaign_list")))
    assert campaign.name not in html(signed_in(charlie).get(reverse("campaign_list")))


def test_a_campaign_is_made_from_a_form(manager: Client, dana: User) -> None:
    project = dana.memberships.get().project
    base = hands.make_base("other")
    page = html(manager.get(reverse("campaign_new")))
    assert base.uid in page and project.uid in page
    values = {
        "project": project.uid,
        "name": "Spring refresh",
        "base_version": base.uid,
        "champion_alias": "champion",
    }
    response = manager.post(reverse("campaign_new"), values)
    campaign = Campaign.objects.get()
    assert response.url == reverse("campaign_detail", args=[campaign.uid])
    assert campaign.created_by == dana and campaign.policy_model == base.model
    # The alias is this campaign's: a second one must choose another.
    again = manager.post(reverse("campaign_new"), {**values, "name": "Another"})
    assert again.status_code == 422 and "another campaign" in html(again)
    assert Campaign.objects.count() == 1


def test_a_campaign_cannot_be_made_on_a_strange_project_or_from_a_reward_model(
    manager: Client, charlie: User
) -> None:
    strange = charlie.memberships.get().project
    reward = builders.make_version("judge", role=ModelVersion.Role.REWARD)
    response = manager.post(
        reverse("campaign_new"),
        {
            "project": strange.uid,
            "name": "Stolen",
            "base_version": reward.uid,
            "champion_alias": "champion",
        },
    )
    assert response.status_code == 422
    assert set(response.context["form"].errors) == {"project", "base_version"}
    assert not Campaign.objects.exists()


def test_a_campaign_shows_its_rounds_versions_champion_and_chart(
    campaign: Campaign, people: list[Membership], manager: Client
) -> None:
    url = reverse("campaign_detail", args=[campaign.uid])
    assert "No round yet" in html(manager.get(url))
    for key in ("1", "2"):
        hands.round_walk(hands.make_round(campaign, key=key), people, until="promoted")
    page = html(manager.get(url))
    assert "The champion is <strong>small v3</strong>" in page
    assert "Reward difference by round" in page and "small@champion" in page
    assert page.count('class="whisker"') == 2
    assert "from small v2, by" in page


# Starting a round


def test_one_form_starts_a_round_and_a_second_click_starts_none(
    campaign: Campaign, manager: Client, dana: User
) -> None:
    url = reverse("round_new", args=[campaign.uid])
    assert "3 train, 0 validation, 2 held-out" in html(manager.get(url))
    assert not Round.objects.exists()
    values = form_values(campaign, samples=3, temperatures="0.5, 1")
    first = manager.post(url, values)
    second = manager.post(url, values)
    round = Round.objects.get()
    assert first.url == second.url == reverse("round_detail", args=[round.uid])
    assert round.started_by == dana
    assert round.recipe["samples"] == 3 and round.recipe["temperatures"] == [0.5, 1.0]
    assert round.recipe["human_gates"] == ["deciding"]


def test_another_form_cannot_start_a_second_open_round(campaign: Campaign, manager: Client) -> None:
    url = reverse("round_new", args=[campaign.uid])
    manager.post(url, form_values(campaign))
    response = manager.post(url, form_values(campaign))
    assert response.status_code == 422 and "still planned" in html(response)
    assert Round.objects.count() == 1


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("samples", "1", "greater than or equal to 2"),
        ("temperatures", "warm", "Numbers with commas"),
        ("temperatures", "nan", "Numbers with commas"),
        ("temperatures", "9", "0 to 5"),
        ("keep", "9", "1 to improving_samples"),
        ("reward", '{"lr": -1}', "more than 0"),
        ("reward", '{"teacher": 1}', "unknown setting teacher"),
        ("sft", "[1]", "A JSON object"),
        ("sft", "{", "Not JSON"),
        ("generate", '{"endpoint_url": "http://127.0.0.1"}', "cannot be set"),
        ("prompt_tags", "no-such-tag", "Of the 0 selected prompts"),
        ("minimum_rankings", "500", "asks for at least 500"),
    ],
)
def test_a_refused_recipe_starts_nothing_and_is_told_at_its_field(
    campaign: Campaign, manager: Client, field: str, value: str, said: str
) -> None:
    url = reverse("round_new", args=[campaign.uid])
    response = manager.post(url, form_values(campaign, **{field: value}))
    assert response.status_code == 422
    assert field in response.context["form"].errors
    assert said in html(response)
    assert not Round.objects.exists()


def test_the_form_offers_the_recipe_of_the_round_before(
    campaign: Campaign, manager: Client
) -> None:
    tuning = {"adapter": "lora", "lora_rank": 8}
    round = hands.make_round(campaign, recipe_with(samples=5, sft=tuning))
    form = RecipeForm(campaign=campaign)
    assert form["samples"].value() == 5
    assert json.loads(form["sft"].value()) == tuning
    assert form["launch_key"].value() != round.launch_key


# A round


def test_a_round_is_shown_in_every_state(
    campaign: Campaign, people: list[Membership], manager: Client
) -> None:
    resting = ("planned", "sampling", "annotating", "reward", "improving", "evaluating", "deciding")
    round = hands.make_round(campaign, recipe_with(human_gates=("deciding",)))
    url = reverse("round_detail", args=[round.uid])
    for state in resting:
        hands.round_walk(round, people, until=state)
        page = html(manager.get(url))
        assert f'data-state="{state}"' in page
        assert 'hx-trigger="every 2s"' in page
    assert "Held-out pairs ranked right" in page and "75.0%" in page and "58.0%" in page
    assert "+0.300" in page and "+0.100 to +0.500" in page
    assert "2.50 nats per answer" in page
    assert "Promote small v2?" in page


def test_the_live_part_comes_only_when_something_has_changed(
    campaign: Campaign, people: list[Membership], manager: Client
) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    url = reverse("round_detail", args=[round.uid])
    whole = manager.get(url)
    seen, state = whole.context["seen"], whole.context["state_key"]
    polled = {"seen": seen, "state": state}
    htmx = {"HTTP_HX_REQUEST": "true"}
    assert manager.get(url, polled, **htmx).status_code == 204
    Run.objects.update(progress_done=3, progress_total=15, progress_unit="samples")
    changed = manager.get(url, polled, **htmx)
    assert changed.status_code == 200 and "3 of 15 samples" in html(changed)
    assert "<html" not in html(changed) and "hx-swap-oob" not in html(changed)
    hands.runs_succeed(round)
    round_advance(round=round)
    annotating = manager.get(url, polled, **htmx)
    assert 'hx-swap-oob="true"' in html(annotating) and "Close annotating" in html(annotating)
    hands.round_walk(round, people, until="promoted")
    done = manager.get(url, polled, **htmx)
    assert done.status_code == 286 and "hx-trigger" not in html(done)


def test_a_poll_costs_few_queries_whatever_the_size_of_the_round(
    campaign: Campaign,
    people: list[Membership],
    manager: Client,
    django_assert_max_num_queries: Callable[[int], object],
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="promoted")
    with django_assert_max_num_queries(22):
        manager.get(reverse("round_detail", args=[round.uid]))


def test_a_manager_decides_with_a_reason(
    campaign: Campaign, people: list[Membership], manager: Client, dana: User
) -> None:
    round = hands.make_round(campaign, recipe_with(human_gates=("deciding",)))
    hands.round_walk(round, people, until="deciding")
    url = reverse("round_decide", args=[round.uid])
    assert "Promote or reject" in html(manager.post(url, {"reason": "?"}, follow=True))
    response = manager.post(url, {"decision": "promote", "reason": "clearly better"}, follow=True)
    assert "is the champion" in html(response)
    round.refresh_from_db()
    event = round.events.last()
    assert round.state == State.PROMOTED
    assert event.actor == dana and event.reason == "clearly better"


def test_a_failed_round_says_why_and_is_retried(campaign: Campaign, manager: Client) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    hands.run_fail(hands.queued(round)[0], "out of memory <script>")
    round_advance(round=round)
    page = html(manager.get(reverse("round_detail", args=[round.uid])))
    assert "out of memory &lt;script&gt;" in page and "Retry from there" in page
    manager.post(reverse("round_retry", args=[round.uid]))
    round.refresh_from_db()
    assert round.state == State.SAMPLING


def test_closing_and_cancelling_from_the_page(
    campaign: Campaign, people: list[Membership], manager: Client
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="annotating")
    close = reverse("round_close", args=[round.uid])
    assert "asks for at least 2" in html(manager.post(close, follow=True))
    hands.tasks_rank(round, people)
    manager.post(close, {"reason": "enough"})
    round.refresh_from_db()
    assert round.state == State.FREEZING
    manager.post(reverse("round_cancel", args=[round.uid]), {"reason": "wrong base"})
    round.refresh_from_db()
    assert round.state == State.CANCELLED and round.events.last().reason == "wrong base"
    page = html(manager.get(reverse("round_detail", args=[round.uid])))
    assert "wrong base" in page and "Cancel the round" not in page


def test_a_round_that_wants_more_people_than_there_are_says_so(
    campaign: Campaign, people: list[Membership], manager: Client
) -> None:
    round = hands.make_round(campaign, recipe_with(overlap=5))
    hands.round_walk(round, people, until="annotating")
    page = html(manager.get(reverse("round_detail", args=[round.uid])))
    assert "Each task wants 5 people, and the project has 4." in page
    assert "minimum_rankings" in page  # the recipe is there to be read


def test_answers_are_read_side_by_side_and_rendered_safely(
    campaign: Campaign, people: list[Membership], manager: Client
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="promoted")
    page = html(manager.get(reverse("round_samples", args=[round.uid])))
    assert page.count('class="section sample-pair"') == 2
    assert "small v1" in page and "small v2" in page and "+0.400" in page
    candidate = Candidate.objects.filter(
        batch__purpose="evaluating", version=round.policy_out
    ).last()
    assert candidate is not None
    assert reverse("candidate_origin", args=[candidate.uid]) in page
    Candidate.objects.filter(pk=candidate.pk).update(text="<img src=x onerror=alert(1)> **bold**")
    origin = html(manager.get(reverse("candidate_origin", args=[candidate.uid])))
    assert "<img" not in origin and "<strong>bold</strong>" in origin
    assert "5 rankings" in origin and "ranker-0" in origin and "small v2" in origin
    assert "Nobody has ranked it" in origin
    ranked = Candidate.objects.filter(batch=round.batch).first()
    assert ranked is not None
    fate = html(manager.get(reverse("candidate_origin", args=[ranked.uid])))
    assert "Helpfulness dataset 1" in fate and "small-reward v1" in fate
    assert "Nobody has ranked it" not in fate


def test_of_another_projects_judgements_a_page_shows_counts_and_no_names(
    campaign: Campaign, manager: Client, signed_in: SignedIn
) -> None:
    theirs = hands.make_campaign(builders.make_project("Zebra"), name="hidden")
    bella = builders.make_member(theirs.project, "bella")
    round = hands.round_walk(hands.make_round(theirs), [bella], until="promoted")
    candidate = Candidate.objects.create(
        prompt=campaign.project.prompts.first(), version=round.policy_out, text="An answer."
    )
    url = reverse("candidate_origin", args=[candidate.uid])
    page = html(manager.get(url))
    assert "bella" not in page and "Zebra" not in page and theirs.name not in page
    assert round.dataset is not None and round.dataset.uid not in page
    assert "1 of other projects" in page and "a dataset of another project" in page
    assert "5 rankings" in page
    everybodys = html(signed_in(builders.make_user("root", is_superuser=True)).get(url))
    assert "bella" in everybodys and str(round.dataset) in everybodys


def test_no_page_carries_an_inline_script_style_or_handler(
    campaign: Campaign, people: list[Membership], manager: Client
) -> None:
    round = hands.make_round(campaign, recipe_with(human_gates=("deciding",)))
    hands.round_walk(round, people, until="deciding")
    for url in (
        reverse("campaign_list"),
        reverse("campaign_new"),
        reverse("campaign_detail", args=[campaign.uid]),
        reverse("round_new", args=[campaign.uid]),
        reverse("round_detail", args=[round.uid]),
        reverse("round_samples", args=[round.uid]),
    ):
        page = html(manager.get(url))
        assert " style=" not in page and " onclick=" not in page and "<style" not in page, url
        assert "<script>" not in page, url
