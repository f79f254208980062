"""What a reward model is trained on: chosen, checked and laid out in steps.

Nothing is silently wrong: what would teach nothing, or not what was asked for, is refused before a
model is loaded; what merely deserves to be known is said in the log and in the result.

Legend: K answers of a prompt.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from alignment.ml.configs import RewardConfig
from alignment.ml.configs.reward import DEGREE_MARGINS
from alignment.ml.data import RankedData, RankedGroup, Ranking, steps_places
from alignment.ml.losses import better_mask
from alignment.ml.shared_prefix import Group
from modelhub.ml.chat import answer_encode, end_of_turn_id, prompt_render
from modelhub.ml.configs import RefusedError

_PROBE = [{"role": "user", "content": "What is the capital of France?"}]
_PROBE_ANSWER = "Paris."


def examples_choose(
    data: RankedData, config: RewardConfig, *, max_tokens: int
) -> tuple[list[RankedGroup], list[str]]:
    """The groups to train on, and what is worth knowing about them, a sentence each.

    Raises RefusedError, saying what was read, where there is no pair to learn from, where a setting
    asks for what no row tells, and where it would change nothing.
    """
    groups = data.of_split("train")
    if not groups:
        raise RefusedError(
            f"there is no pair to train on: {data.rankings} rankings were read; "
            f"{data.without_pairs} put no answer above another, {data.identical} only above one of "
            f"the same words, {data.too_long} have a prompt and answer of more than {max_tokens} "
            f"tokens (the longest has {data.longest_tokens}), and the other {_others(data)} are "
            "not of the training split"
        )
    notes = _notes_of(data, groups, max_tokens=max_tokens)
    if config.degree_margin != "none":
        _degrees_check(groups, notes)
    groups = _weights_apply(groups, config, notes)
    if config.leave_out_unsafe_won:
        groups = _unsafe_leave_out(groups, notes)
    if config.safety_weight:
        _safety_check(groups, notes)
    if config.soft_labels and not any(len(g.rankings) + len(g.tied) > 1 for g in groups):
        raise RefusedError(
            "reward.soft_labels would change nothing: no answers were judged more than once"
        )
    pairs = sum(len(group.pairs) for group in groups)
    if pairs < 2:
        raise RefusedError(f"there is nothing to learn from {pairs} pair: two are the least")
    return (pairs_explode(groups) if config.pairwise else groups), notes


def _others(data: RankedData) -> int:
    return data.rankings - data.without_pairs - data.identical - data.too_long


def _notes_of(data: RankedData, groups: Sequence[RankedGroup], *, max_tokens: int) -> list[str]:
    notes = []
    if data.too_long:
        notes.append(
            f"{data.too_long} of {data.rankings} rankings ({data.too_long / data.rankings:.1%}) "
            f"are left out: a prompt and answer of more than {max_tokens} tokens"
        )
    if data.without_pairs:
        notes.append(f"{data.without_pairs} rankings put no answer above another")
    if data.identical:
        notes.append(f"{data.identical} rankings only put an answer above one of the same words")
    if data.answers_empty:
        notes.append(f"{data.answers_empty} answers are empty")
    people = {one.annotator for group in groups for one in group.rankings}
    if len(people) == 1:
        notes.append("all rankings to train on are one annotator's")
    return notes


def _degrees_check(groups: Sequence[RankedGroup], notes: list[str]) -> None:
    rankings = [one for group in groups for one in group.rankings]
    told = sum(one.degree is not None for one in rankings)
    if not told:
        raise RefusedError(
            "reward.degree_margin: no ranking to train on tells a degree of preference; pairs and "
            "dialogues do, if they were asked for one"
        )
    if told < len(rankings):
        notes.append(
            f"{len(rankings) - told} of {len(rankings)} rankings tell no degree: no margin of it"
        )


def _weights_apply(
    groups: Sequence[RankedGroup], config: RewardConfig, notes: list[str]
) -> list[RankedGroup]:
    """Without the rankings that count nothing, where weights are asked for."""
    weights = {one.weight for group in groups for one in group.rankings}
    if not config.annotator_weights:
        if weights != {1.0}:
            notes.append("rows carry weights of their annotators, which are not asked for")
        return list(groups)
    if weights == {1.0}:
        raise RefusedError(
            "reward.annotator_weights: no ranking carries a weight; freeze the dataset with them"
        )
    kept = [
        replace(
            group,
            rankings=tuple(one for one in group.rankings if one.weight),
            tied=tuple(one for one in group.tied if one.weight),
        )
        for group in groups
    ]
    kept = [group for group in kept if group.rankings]
    if not kept:
        raise RefusedError("reward.annotator_weights: every ranking to train on has weight 0")
    return kept


def _unsafe_leave_out(groups: Sequence[RankedGroup], notes: list[str]) -> list[RankedGroup]:
    """Without rankings in which an unsafe answer beat a safe one, as Llama 2 left them out."""

    def contrary(group: RankedGroup, one: Ranking) -> bool:
        unsafe = set(one.unsafe or ())
        return any(high in unsafe and low not in unsafe for high, low in group.pairs_of(one))

    kept = [
        replace(group, rankings=tuple(one for one in group.rankings if not contrary(group, one)))
        for group in groups
    ]
    left_out = sum(len(g.rankings) for g in groups) - sum(len(g.rankings) for g in kept)
    if left_out:
        notes.append(f"{left_out} rankings are left out: an unsafe answer beat a safe one")
    kept = [group for group in kept if group.rankings]
    if not kept:
        raise RefusedError("in every ranking to train on an unsafe answer beat a safe one")
    return kept


def _safety_check(groups: Sequence[RankedGroup], notes: list[str]) -> None:
    labels = [
        place in one.unsafe
        for group in groups
        for one in (*group.rankings, *group.tied)
        if one.unsafe is not None
        for place in range(len(group.texts_K))
    ]
    if not labels:
        raise RefusedError(
            "reward.safety_weight: no ranking to train on says which answers are unsafe; pairs do, "
            "if their project asks for safety labels"
        )
    if len(set(labels)) == 1:
        kind = "unsafe" if labels[0] else "safe"
        raise RefusedError(
            f"reward.safety_weight: all {len(labels)} safety labels say {kind}, so that a model "
            "that always says so is never wrong"
        )
    notes.append(f"{sum(labels)} of {len(labels)} safety labels say unsafe")


def template_check(policy_tokenizer: Any, tokenizer: Any) -> None:
    """Raise RefusedError unless both lay a chat, and the end of an answer, in the same tokens.

    A reward model that judges chats laid out in another way than the policy writes them judges
    another thing, and every score still looks like one.
    """
    laid = [
        [
            *prompt_render(one, _PROBE),
            *answer_encode(one, _PROBE_ANSWER, "stop"),
        ]
        for one in (policy_tokenizer, tokenizer)
    ]
    if laid[0] != laid[1]:
        places = enumerate(zip(*laid, strict=False))
        first = next((i for i, (a, b) in places if a != b), min(map(len, laid)))
        raise RefusedError(
            f"the policy's tokenizer lays a chat in {len(laid[0])} tokens, the base's in "
            f"{len(laid[1])}, and they differ from token {first} on: another chat template or "
            f"vocabulary (ends of turn {end_of_turn_id(policy_tokenizer)} and "
            f"{end_of_turn_id(tokenizer)})"
        )


def pairs_explode(groups: Sequence[RankedGroup]) -> list[RankedGroup]:
    """Every pair of every ranking as a group of its own, to be shuffled by itself.

    What most trainers do. An answer of a ranking of K is then in K − 1 examples, and met so often
    in an epoch (Ouyang et al. 2022, footnote 5: it overfits).
    """
    exploded = []
    for group in groups:
        for one in group.rankings:
            for number, (high, low) in enumerate(group.pairs_of(one)):
                places = (high, low)
                unsafe = one.unsafe
                if unsafe is not None:
                    unsafe = tuple(new for new, old in enumerate(places) if old in unsafe)
                exploded.append(
                    replace(
                        group,
                        group=Group(group.group.prompt_T, [group.group.answers[i] for i in places]),
                        texts_K=tuple(group.texts_K[i] for i in places),
                        writers_K=tuple(group.writers_K[i] for i in places)
                        if group.writers_K
                        else (),
                        rankings=(replace(one, tiers=((0,), (1,)), unsafe=unsafe),),
                        tied=group.tied if len(group.texts_K) == 2 and not number else (),
                    )
                )
    return exploded


def steps_plan(groups: Sequence[RankedGroup], config: RewardConfig) -> list[list[int]]:
    """The groups of every step, as places in `groups`: all epochs, each in an order of its own.

    An epoch's steps are even, of about `rankings_per_step` rankings; a group's stay together.
    """
    epochs = steps_places(
        [len(group.rankings) for group in groups],
        epochs=config.epochs,
        per_step=config.rankings_per_step,
        seed=config.seed,
    )
    return [places for steps in epochs for places in steps]


def better_of(group: RankedGroup, ranking: Ranking) -> Tensor:
    """Which answer is put above which: `better_mask`, without answers of the same tokens."""
    answers = [tuple(one) for one in group.group.answers]
    better_KK = better_mask(ranking.tiers, len(answers))
    if len(set(answers)) < len(answers):
        for i, one in enumerate(answers):
            for j, other in enumerate(answers):
                if one == other:
                    better_KK[i, j] = False
    return better_KK


def margin_of(ranking: Ranking, config: RewardConfig) -> float:
    """How far apart the scores of the ranking's pairs should be, in nats."""
    if not ranking.degree:
        return config.margin
    return config.margin + DEGREE_MARGINS[config.degree_margin][ranking.degree - 1]
