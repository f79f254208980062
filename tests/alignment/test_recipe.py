"""Recipes: what they refuse, and that they come back from JSON as they went."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment.models import Round
from alignment.recipe import STAGES, Recipe, recipe_dump, recipe_load
from modelhub.ml.configs import ConfigError
from modelhub.ml.records import json_canonical, json_strict


def test_the_stages_are_the_states_that_do_something_in_their_order() -> None:
    assert tuple(Round.State.values[: len(STAGES)]) == STAGES
    assert set(Round.State.values) - set(STAGES) == set(Round.ENDED)


def test_the_defaults_hold() -> None:
    recipe = Recipe()
    assert recipe.human_gates == ("deciding",)
    assert recipe.ranking_config(seed=7).samples == 4
    assert recipe.improving_config(seed=7).samples == 8
    assert recipe.evaluation_sampling_config(seed=7).temperatures == (1.0,)
    assert recipe.reward_config().seed == recipe.seed == 0


@settings(
    suppress_health_check=[HealthCheck.too_slow], deadline=None
)  # on a busy machine the first text is
@given(
    samples=st.integers(2, 16),
    temperatures=st.lists(st.floats(0, 5), min_size=1, max_size=4),
    tags=st.lists(st.text(min_size=1, max_size=9).filter(str.isprintable), max_size=3),
    lr=st.floats(1e-7, 1),
    gates=st.lists(st.sampled_from(STAGES), unique=True),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_recipe_comes_back_from_json_as_it_went(
    samples: int,
    temperatures: list[float],
    tags: list[str],
    lr: float,
    gates: list[str],
    seed: int,
) -> None:
    recipe = Recipe(
        samples=samples,
        temperatures=tuple(temperatures),
        prompt_tags=tuple(tags),
        reward={"lr": lr},
        human_gates=tuple(gates),
        seed=seed,
    )
    assert recipe_load(json_strict(json_canonical(recipe_dump(recipe)))) == recipe


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"samples": 1}, "recipe.samples: wanted 2 to 16, got 1"),
        ({"samples": 17}, "recipe.samples"),
        ({"samples": True}, "recipe.samples: expected int"),
        ({"temperatures": []}, "recipe.temperatures: wanted one or more"),
        ({"improving_temperatures": [5.1]}, "recipe.improving_temperatures"),
        ({"engine": "openai"}, "recipe.engine"),
        ({"overlap": 0}, "recipe.overlap"),
        ({"minimum_rankings": 0}, "recipe.minimum_rankings"),
        ({"reward_accuracy_floor": 1.5}, "recipe.reward_accuracy_floor"),
        ({"keep": 9}, "recipe.keep: wanted 1 to improving_samples, got 9"),
        ({"kl_limit": -1}, "recipe.kl_limit"),
        ({"human_gates": ["deciding", "deciding"]}, "recipe.human_gates"),
        ({"human_gates": ["failed"]}, "recipe.human_gates"),
        ({"prompt_tags": [""]}, "recipe.prompt_tags"),
        ({"seed": 2**31}, "recipe.seed"),
        ({"reward": {"lr": -1}}, "recipe.reward.lr: wanted more than 0"),
        ({"reward": {"ranks": 1}}, "recipe.reward: unknown setting ranks"),
        ({"reward": []}, "recipe.reward: expected an object"),
        ({"sft": {"epochs": 1.5}}, "recipe.sft.epochs: expected int"),
        ({"rejection": {"keep": 2}}, "keep is a setting of the recipe itself"),
        ({"generate": {"samples": 2}}, "samples is a setting of the recipe itself"),
        ({"generate": {"top_p": 0}}, "recipe.generate.top_p"),
        ({"generate": {"endpoint_url": "http://here"}}, "endpoint_url cannot be set"),
        ({"generate": {"endpoint_key_variable": "HOME"}}, "endpoint_key_variable cannot"),
        ({"max_tokens": 4000}, "recipe.generate.max_context_tokens"),
        ({"reward": {"held_out_batches": ["b"]}}, "recipe.reward: held_out_batches is a setting"),
        ({"improving": "dpo"}, "recipe.improving: wanted rejection, ppo, rejection+ppo"),
        ({"ppo": {"engine": "vllm"}}, "recipe.ppo: engine is a setting of the recipe itself"),
        ({"ppo": {"lam": 2.0}}, "recipe.ppo.lam: wanted 0 to 1"),
        (
            {"improving": "rejection+ppo", "reward": {"end_of_session": "<|bye|>"}},
            "recipe.reward: end_of_session must be that of sft",
        ),
        (
            {"improving": "rejection+ppo", "sft": {"adapter": "lora", "publish": "adapter"}},
            "recipe.sft: publish must be merged",
        ),
        ({"colour": "blue"}, "recipe: unknown setting colour"),
    ],
)
def test_a_recipe_is_refused_naming_the_field(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        recipe_load(values)
    assert said in str(refused.value)


def test_ppo_draws_answers_as_the_rest_of_the_recipe_does() -> None:
    recipe = Recipe(
        engine="transformers", max_tokens=3000, generate={"max_context_tokens": 8192}, seed=5
    )
    config = recipe.ppo_config()
    assert (config.engine, config.max_tokens, config.seed) == ("transformers", 3000, 5)
    assert config.max_context_tokens == 8192
