"""Answers that are desirable or not, each by itself: from ratings, from rankings, or from both.

An answer is rated desirable from one threshold on, undesirable up to another, by the mean of its
ratings; in rankings it is desirable if it was put above others more often than below: of a pair
the chosen one, and not the other. What is neither, or one by its ratings and the other by its
rankings, is left out and counted. Answers of the same tokens to the same prompt are one answer.

Legend: K answers of a prompt.
"""

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alignment.ml.configs import KtoConfig
from alignment.ml.configs.kto import BALANCE
from alignment.ml.data import RankedData, RatedData, rankings_load, ratings_load
from alignment.ml.shared_prefix import Group
from annotation.records import RANKINGS_NAME, RATINGS_NAME
from modelhub.ml.configs import RefusedError
from modelhub.ml.rundir import RunDir


@dataclass(frozen=True, kw_only=True)
class UnpairedGroup:
    """A prompt and its K answers, each desirable or not."""

    prompt_id: str
    split: str  # "train", "validation" or "held_out"
    group: Group
    desirable_K: tuple[bool, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(desirable, undesirable) answers of the prompt, as places."""
        ups = [place for place, is_up in enumerate(self.desirable_K) if is_up]
        downs = [place for place, is_up in enumerate(self.desirable_K) if not is_up]
        return [(up, down) for up in ups for down in downs]


@dataclass(frozen=True, kw_only=True)
class UnpairedData:
    """Groups to train and test on, and how many answers could not be placed."""

    groups: list[UnpairedGroup]
    answers: int  # that were judged
    undecided: int  # neither: between the thresholds, above as often as below, or contradictory
    notes: list[str] = field(default_factory=list)  # worth knowing, a sentence each

    def of_split(self, split: str) -> list[UnpairedGroup]:
        return [one for one in self.groups if one.split == split]


@dataclass
class _Judged:
    """What was said of one answer, by weight."""

    rating_sum: float = 0.0
    rating_weight: float = 0.0
    above: float = 0.0
    below: float = 0.0

    def is_desirable(self, *, desirable_from: float, undesirable_to: float) -> bool | None:
        """None: neither."""
        verdicts = set()
        if self.rating_weight:
            mean = self.rating_sum / self.rating_weight
            if mean >= desirable_from:
                verdicts.add(True)
            elif mean <= undesirable_to:
                verdicts.add(False)
        if self.above != self.below:
            verdicts.add(self.above > self.below)
        return verdicts.pop() if len(verdicts) == 1 else None


@dataclass
class _Prompt:
    split: str
    prompt_T: list[int]
    answers: dict[tuple[int, ...], _Judged] = field(default_factory=dict)


def unpaired_make(
    rated: RatedData | None,
    ranked: RankedData | None,
    *,
    desirable_from: float,
    undesirable_to: float,
    weighted: bool,
) -> UnpairedData:
    """Every answer of ratings and rankings placed; prompts in the order they are first met.

    weighted: a row counts by its weight. Raises RefusedError for a prompt whose ratings are on
    another side of the split than its rankings, and for weights that are asked for and told by no
    row.
    """
    prompts: dict[str, _Prompt] = {}
    weights: set[float] = set()

    def judged(prompt_id: str, split: str, prompt_T: list[int], answer_T: list[int]) -> _Judged:
        own = prompts.setdefault(prompt_id, _Prompt(split, prompt_T))
        if own.split != split:
            raise RefusedError(
                f"prompt {prompt_id} is in {own.split} by its ratings, in {split} by its rankings"
            )
        return own.answers.setdefault(tuple(answer_T), _Judged())

    for one in rated.answers if rated else ():
        weights.add(one.weight)
        weight = one.weight if weighted else 1.0
        answer = judged(one.prompt_id, one.split, one.prompt_T, one.answer_T)
        answer.rating_sum += weight * one.overall
        answer.rating_weight += weight
    for group in ranked.groups if ranked else ():
        found = [
            judged(group.prompt_id, group.split, group.group.prompt_T, answer_T)
            for answer_T in group.group.answers
        ]
        for ranking in group.rankings:
            weights.add(ranking.weight)
            for high, low in group.pairs_of(ranking):
                found[high].above += ranking.weight if weighted else 1.0
                found[low].below += ranking.weight if weighted else 1.0
    if weighted and weights == {1.0}:
        raise RefusedError(
            "annotator_weights: no row carries a weight; freeze the dataset with them"
        )
    groups, undecided = [], 0
    for prompt_id, prompt in prompts.items():
        placed = {
            answer_T: verdict
            for answer_T, one in prompt.answers.items()
            if (
                verdict := one.is_desirable(
                    desirable_from=desirable_from, undesirable_to=undesirable_to
                )
            )
            is not None
        }
        undecided += len(prompt.answers) - len(placed)
        if placed:
            groups.append(
                UnpairedGroup(
                    prompt_id=prompt_id,
                    split=prompt.split,
                    group=Group(prompt.prompt_T, [list(answer_T) for answer_T in placed]),
                    desirable_K=tuple(placed.values()),
                )
            )
    notes = []
    if not weighted and weights - {1.0}:
        notes.append("rows carry weights of their annotators, which are not asked for")
    return UnpairedData(
        groups=groups,
        answers=sum(len(prompt.answers) for prompt in prompts.values()),
        undecided=undecided,
        notes=notes,
    )


def classes_of(groups: Sequence[UnpairedGroup]) -> tuple[int, int]:
    """(desirable answers, undesirable ones)."""
    desirable = sum(sum(one.desirable_K) for one in groups)
    return desirable, sum(len(one.desirable_K) for one in groups) - desirable


def unpaired_read(
    run: RunDir, config: KtoConfig, tokenizer: Any, *, max_tokens: int
) -> tuple[UnpairedData, list[str]]:
    """The run's ratings and rankings, and what is worth knowing about them, a sentence each.

    Raises RefusedError, saying what was read, where the training split has not both classes, or
    fewer than two prompts.
    """
    rated = ranked = None
    if run.has_input("ratings"):
        path = run.input("ratings") / RATINGS_NAME
        rated = ratings_load(path, tokenizer, max_tokens=max_tokens)
    if run.has_input("rankings"):
        path = run.input("rankings") / RANKINGS_NAME
        ranked = rankings_load(path, tokenizer, max_tokens=max_tokens)
    if rated is None and ranked is None:
        raise RefusedError("there is nothing to learn from: give ratings, rankings, or both")
    data = unpaired_make(
        rated,
        ranked,
        desirable_from=config.desirable_from,
        undesirable_to=config.undesirable_to,
        weighted=config.annotator_weights,
    )
    notes = [*data.notes]
    for one, what in ((rated, "ratings"), (ranked, "rankings")):
        if one and one.too_long:
            notes.append(
                f"{one.too_long} {what} left out: a prompt and answer of more than {max_tokens} "
                f"tokens (the longest has {one.longest_tokens})"
            )
    if data.undecided:
        notes.append(
            f"{data.undecided} of {data.answers} answers are neither desirable nor undesirable: "
            f"rated between {config.undesirable_to:g} and {config.desirable_from:g}, above others "
            "as often as below, or judged both ways"
        )
    train = data.of_split("train")
    desirable, undesirable = classes_of(train)
    if not desirable or not undesirable or len(train) < 2:
        raise RefusedError(
            f"the training split has {desirable} desirable and {undesirable} undesirable answers "
            f"to {len(train)} prompts: KTO needs both, and two prompts. Ratings count from "
            f"{config.desirable_from:g} on and up to {config.undesirable_to:g}; "
            + "; ".join(notes or ["nothing was left out"])
        )
    steps = len(unpaired_steps(train, epochs=1, per_step=config.examples_per_step, seed=0))
    if steps < math.ceil((desirable + undesirable) / config.examples_per_step):
        notes.append(
            f"an epoch has {steps} steps of about {(desirable + undesirable) / steps:.0f} answers "
            f"instead of {config.examples_per_step}: every step has both classes and two prompts"
        )
    return data, notes


def weights_balance(
    desirable: int, undesirable: int, config: KtoConfig
) -> tuple[KtoConfig, str | None]:
    """The config with the classes' weights to train with, and what is to be said about them.

    Where λ_D·n_D / (λ_U·n_U) is outside `BALANCE` the weight of the class that weighs too little is
    proposed; with `balance` its least value that will do is taken.
    """
    low, high = BALANCE
    ratio = (config.desirable_weight * desirable) / (config.undesirable_weight * undesirable)
    if low <= ratio <= high:
        return config, None
    if ratio < low:
        name, weight = "desirable_weight", config.desirable_weight
        least, most = weight * low / ratio, weight * high / ratio
        taken = replace(config, desirable_weight=least)
    else:
        name, weight = "undesirable_weight", config.undesirable_weight
        least, most = weight * ratio / high, weight * ratio / low
        taken = replace(config, undesirable_weight=least)
    told = (
        f"{desirable} desirable and {undesirable} undesirable answers: λ_D·n_D / (λ_U·n_U) is "
        f"{ratio:.3g}, outside {low:g} to {high:g}; {name} "
    )
    if config.balance:
        return taken, f"{told}is taken as {least:.4g}"
    return config, f"{told}from {least:.4g} to {most:.4g} would do (or balance)"


def mismatched(groups: Sequence[Group], *, context_tokens: int) -> list[Group]:
    """Each group's answers behind the next one's prompt, the last one's behind the first's.

    Answers that nobody gave to that prompt, of the kind that is given: what KTO's reference point
    is estimated from. Empty for a single group. An answer that fits behind its own prompt may not
    behind another: of more than `context_tokens` together it is left out, and so is a group without
    an answer.
    """
    if len(groups) < 2:
        return []
    found = []
    for own, other in zip(groups, [*groups[1:], groups[0]], strict=True):
        room_tokens = context_tokens - len(other.prompt_T)
        if answers := [answer_T for answer_T in own.answers if len(answer_T) <= room_tokens]:
            found.append(Group(other.prompt_T, answers))
    return found


def unpaired_steps(
    groups: Sequence[UnpairedGroup], *, epochs: int, per_step: int, seed: int
) -> list[list[int]]:
    """The groups of every step, as places: both classes and two prompts at least in each.

    Every epoch takes every group once, in a drawing of its own, and its steps have as nearly as can
    be the same number of answers of either class. An epoch has about answers / `per_step` steps, or
    fewer where a class is too rare to be in so many. Raises ValueError for groups that cannot fill
    one step.
    """
    mixed = [place for place, one in enumerate(groups) if len(set(one.desirable_K)) == 2]
    alone = {
        is_up: [place for place, one in enumerate(groups) if set(one.desirable_K) == {is_up}]
        for is_up in (True, False)
    }
    pairs = min(map(len, alone.values()))
    answers = sum(len(one.desirable_K) for one in groups)
    count = min(math.ceil(answers / per_step), len(mixed) + pairs, len(groups) // 2)
    if count < 1:
        raise ValueError("a step needs a desirable answer, an undesirable one and two prompts")
    plan = []
    for epoch in range(epochs):
        draw = random.Random(f"{seed}:{epoch}")  # noqa: S311 - an order, not a secret
        strata = [list(mixed), list(alone[True]), list(alone[False])]
        for stratum in strata:
            draw.shuffle(stratum)
        both, ups, downs = strata
        # What makes a step whole first: one group of either class, or one that has both.
        steps = [[ups.pop(), downs.pop()] for _ in range(min(count, pairs))]
        steps += [[both.pop()] for _ in range(count - len(steps))]
        lonely = [step for step in steps if len(step) == 1]
        for step in lonely:  # count is at most half the groups: there is one left for each
            step.append(max(strata, key=len).pop())
        for stratum in strata:
            _deal(stratum, steps, groups)
        draw.shuffle(steps)
        plan += steps
    return plan


def _deal(
    places: Sequence[int], steps: Sequence[list[int]], groups: Sequence[UnpairedGroup]
) -> None:
    """Add groups of one kind to the steps, each to the one that has least of what it brings."""
    if not places:
        return
    classes = set(groups[places[0]].desirable_K)

    def brought(place: int) -> int:
        return sum(is_up in classes for is_up in groups[place].desirable_K)

    heap = [(sum(map(brought, step)), number) for number, step in enumerate(steps)]
    heapq.heapify(heap)
    for place in places:
        had, number = heapq.heappop(heap)
        steps[number].append(place)
        heapq.heappush(heap, (had + brought(place), number))
