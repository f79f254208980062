"""What a round's recipe asks that its project or its policy cannot give: refused before it starts.

Found out later it would cost people their rankings.
"""

from collections import Counter

from django.utils.translation import gettext, ngettext

from alignment.models import Campaign
from alignment.recipe import Recipe
from alignment.selectors.rounds import prompts_select
from annotation.models import Split
from modelhub.errors import ApplicationError
from modelhub.ml.model_directory import tokenizer_tokens
from modelhub.ml.safetensors_file import ModelDirectoryError
from modelhub.models import ModelVersion
from modelhub.storage import artifact_folder

HELD_OUT_PROMPTS = 2  # a difference between policies needs a spread between prompts


def prompts_check(*, campaign: Campaign, recipe: Recipe) -> None:
    """Raise ApplicationError if the recipe cannot come to an end on the project's prompts."""
    prompts = prompts_select(campaign=campaign, recipe=recipe, draw=1)
    found = Counter(prompt.split for prompt in prompts)
    for split, least, why in (
        (Split.TRAIN, 1, "to train on"),
        (Split.HELD_OUT, HELD_OUT_PROMPTS, "to compare the policies on"),
    ):
        if found[split] < least:
            raise ApplicationError(
                gettext(
                    "Of the %(number)s selected prompts %(found)s are %(label)s; at least "
                    "%(least)s is wanted %(why)s. Import more prompts or select more of them."
                )
                % {
                    "number": len(prompts),
                    "found": found[split],
                    "label": Split(split).label,
                    "least": least,
                    "why": why,
                },
                {"field": "prompt_tags" if recipe.prompt_tags else "prompt_limit"},
            )
    wanted = len(prompts) * recipe.overlap
    if wanted < recipe.minimum_rankings:
        raise ApplicationError(
            ngettext(
                "%(number)s prompt ranked by %(overlap)s each gives %(wanted)s rankings; the "
                "recipe asks for at least %(minimum_rankings)s.",
                "%(number)s prompts ranked by %(overlap)s each give %(wanted)s rankings; the "
                "recipe asks for at least %(minimum_rankings)s.",
                len(prompts),
            )
            % {
                "number": len(prompts),
                "overlap": recipe.overlap,
                "wanted": wanted,
                "minimum_rankings": recipe.minimum_rankings,
            },
            {"field": "minimum_rankings"},
        )


def session_end_check(*, policy_in: ModelVersion, recipe: Recipe) -> None:
    """Raise ApplicationError if fine-tuning could not add its end-of-session token to the policy,
    or the reward model that PPO asks behind it could not."""
    sft, reward = recipe.sft_config(), recipe.reward_config()
    token = sft.end_of_session
    if recipe.improving == "ppo" or not token:
        return
    try:
        known = tokenizer_tokens(artifact_folder(policy_in.artifact))
    except ModelDirectoryError as error:
        raise ApplicationError(f"{policy_in}: {error}") from error
    if token in known:
        return
    if sft.adapter:
        raise ApplicationError(
            gettext(
                "%(policy_in)s does not have the token %(token)s, and an adapter would not learn"
                " it: let fine-tuning train every weight, or leave its end_of_session empty."
            )
            % {"policy_in": policy_in, "token": token},
            {"field": "sft"},
        )
    if recipe.improving == "rejection+ppo" and reward.publish == "adapter":
        raise ApplicationError(
            gettext(
                "%(policy_in)s does not have the token %(token)s that fine-tuning adds before PPO,"
                " and a reward model that is an adapter has no row for it: publish it merged, or"
                " leave fine-tuning’s end_of_session empty."
            )
            % {"policy_in": policy_in, "token": token},
            {"field": "reward"},
        )
