"""Which prompts a round is about, and what it starts from."""

import pytest

from alignment.models import Campaign
from alignment.recipe import Recipe
from alignment.selectors.rounds import (
    campaign_policy,
    prompt_counts,
    prompt_tags,
    prompts_select,
    round_annotation_progress,
    rounds_to_advance,
)
from alignment.services.rounds import round_advance, round_cancel
from annotation.models import CandidateBatch, Membership, Project, Prompt, Split, Task
from annotation.services.assignments import assignment_next
from annotation.services.batches import candidate_batch_ingest
from modelhub.services.versions import alias_move
from tests import builders
from tests.alignment import hands


def tagged(project: Project, split: str, *tags: str) -> Prompt:
    prompt = builders.make_prompt(project, split=split)
    prompt.tags = list(tags)
    prompt.save()
    return prompt


def test_prompts_are_chosen_by_any_of_the_tags(campaign: Campaign) -> None:
    poem = tagged(campaign.project, Split.TRAIN, "poem", "short")
    code = tagged(campaign.project, Split.HELD_OUT, "code")
    recipe = Recipe(prompt_tags=("poem", "code"))
    assert prompts_select(campaign=campaign, recipe=recipe) == [poem, code]
    assert len(prompts_select(campaign=campaign, recipe=Recipe())) == 7
    assert prompt_tags(project=campaign.project) == [("code", 1), ("poem", 1), ("short", 1)]


@pytest.mark.parametrize("source", Prompt.NEVER_SAMPLED)
def test_what_no_round_takes_is_not_counted_as_its_prompts(campaign: Campaign, source: str) -> None:
    taken = len(prompts_select(campaign=campaign, recipe=Recipe()))
    asked = tagged(campaign.project, Split.TRAIN)
    assert sum(count for _, count in prompt_counts(project=campaign.project)) == taken + 1
    Prompt.objects.filter(pk=asked.pk).update(source=source)
    assert len(prompts_select(campaign=campaign, recipe=Recipe())) == taken
    assert sum(count for _, count in prompt_counts(project=campaign.project)) == taken


def test_a_limit_keeps_the_splits_shares_and_draws_the_same_for_the_same_seed(
    project: Project,
) -> None:
    campaign = hands.make_campaign(project, train=30, held_out=10)

    def drawn(seed: int, limit: int, draw: int = 0) -> list[Prompt]:
        recipe = Recipe(prompt_limit=limit, seed=seed)
        return prompts_select(campaign=campaign, recipe=recipe, draw=draw)

    chosen = drawn(seed=1, limit=20)
    assert [p.split for p in chosen].count(Split.TRAIN) == 15
    assert [p.split for p in chosen].count(Split.HELD_OUT) == 5
    assert drawn(seed=1, limit=20) == chosen
    assert drawn(seed=2, limit=20) != chosen
    assert drawn(seed=1, limit=20, draw=2) != chosen
    assert len(drawn(seed=1, limit=400)) == 40
    # Two of a side are the least that can be compared.
    assert [p.split for p in drawn(seed=1, limit=4)].count(Split.HELD_OUT) == 2


def test_a_round_starts_from_the_champion_even_if_it_was_moved_by_hand(
    campaign: Campaign,
) -> None:
    assert campaign_policy(campaign=campaign) == campaign.base_version
    other = builders.make_version(campaign.policy_model.name)
    alias_move(
        model=campaign.policy_model,
        name="champion",
        version=other,
        actor=None,
        reason="rolled back by hand",
    )
    assert campaign_policy(campaign=campaign) == other
    assert hands.make_round(campaign).policy_in == other


def test_annotating_is_complete_when_nothing_is_free_and_nobody_is_at_it(
    campaign: Campaign, people: list[Membership]
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="annotating")
    progress = round_annotation_progress(round=round)
    assert (progress.tasks, progress.wanted, progress.free, progress.accepted) == (5, 5, 5, 0)
    assert not progress.is_complete
    held = assignment_next(membership=people[0])
    hands.tasks_rank(round, people[1:])
    progress = round_annotation_progress(round=round)
    assert held is not None
    assert (progress.accepted, progress.free, progress.live) == (4, 0, 1)
    assert not progress.is_complete and not round_advance(round=round)
    hands.tasks_rank(round, people[:1])
    assert round_annotation_progress(round=round).is_complete


def test_rounds_that_may_have_something_to_do(campaign: Campaign) -> None:
    round = hands.make_round(campaign)
    assert list(rounds_to_advance()) == [round]
    round_advance(round=round)
    hands.runs_succeed(round)
    round_cancel(round=round, actor=None)
    assert list(rounds_to_advance()) == []
    candidate_batch_ingest(batch=CandidateBatch.objects.get())  # its answers come in late
    assert list(rounds_to_advance()) == [round]
    round_advance(round=round)
    assert not Task.objects.filter(closed_at=None).exists()
    assert list(rounds_to_advance()) == []
