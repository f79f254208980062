"""What a round is refused before it costs anybody a ranking."""

import pytest

from alignment.models import Campaign
from alignment.recipe import Recipe, recipe_dump
from alignment.services.campaigns import campaign_create
from annotation.models import Membership
from modelhub.errors import ApplicationError
from tests.alignment import hands

TOKEN = "<|end_of_session|>"


def recipe_with(**values: object) -> Recipe:
    return Recipe(**{**recipe_dump(hands.SMALL), "improving": "rejection+ppo", **values})


LLAMA_2 = {"preset": "llama-2"}


def test_a_round_of_llama_2s_with_ppo_trains_a_reward_model_that_has_its_new_token(
    campaign: Campaign, people: list[Membership]
) -> None:
    round = hands.make_round(campaign, recipe_with(sft=LLAMA_2))
    hands.round_walk(round, people, until="reward")
    (run,) = hands.queued(round)
    assert run.program == "reward"
    assert run.config["end_of_session"] == TOKEN
    assert recipe_with(sft=LLAMA_2).sft_config().end_of_session == TOKEN


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"sft": {**LLAMA_2, "adapter": "lora"}}, "sft"),
        ({"sft": {**LLAMA_2, "adapter": "lora"}, "improving": "rejection"}, "sft"),
        ({"sft": LLAMA_2, "reward": {"adapter": "lora", "publish": "adapter"}}, "reward"),
    ],
)
def test_a_token_that_has_no_row_to_be_learnt_in_is_refused_at_planning(
    campaign: Campaign, values: dict[str, object], field: str
) -> None:
    with pytest.raises(ApplicationError) as refused:
        hands.make_round(campaign, recipe_with(**values))
    assert refused.value.extra == {"field": field}
    assert TOKEN in refused.value.message
    assert not campaign.rounds.exists()


def test_a_policy_that_has_the_token_may_be_trained_by_adapters(campaign: Campaign) -> None:
    later = campaign_create(
        project=campaign.project,
        name="Later",
        base_version=hands.make_base("later", tokens=[TOKEN]),
        created_by=None,
    )
    reward = {"adapter": "lora", "publish": "adapter"}
    recipe = recipe_with(sft={**LLAMA_2, "adapter": "lora"}, reward=reward)
    assert hands.make_round(later, recipe).number == 1


def test_without_fine_tuning_before_it_ppo_needs_no_token(campaign: Campaign) -> None:
    recipe = recipe_with(sft={**LLAMA_2, "adapter": "lora"}, improving="ppo")
    assert recipe.reward_config().end_of_session == ""
    assert hands.make_round(campaign, recipe).number == 1
