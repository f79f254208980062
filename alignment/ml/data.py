"""What training reads and writes about answers: rankings in, demonstrations out.

A ranking row becomes a group of token ids (`shared_prefix.Group`) and tiers of places in it. Rows
that rank the same answers to the same prompt, as happens when several annotators are given one
task, become one group with several rankings: its forward pass is paid once.
"""

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignment.ml.shared_prefix import Group
from annotation.pairs import tiers_pairs
from annotation.records import RankedCandidate, RankingRecord
from modelhub.ml.chat import ChatTemplateError, answer_encode, prompt_render
from modelhub.ml.records import RecordError, lines_read, record_load

Tiers = tuple[tuple[int, ...], ...]  # places of candidates in their group, best first


@dataclass(frozen=True, kw_only=True)
class DemonstrationRecord:
    """An answer to imitate: a line of demonstrations.jsonl."""

    prompt_id: str
    messages: list[dict[str, str]]
    text: str
    finish_reason: str  # "stop": the model ended its turn; "length": it was cut off
    score: float | None  # the reward model's; None where none has judged it
    batch: str  # the candidate batch it was drawn in


@dataclass(frozen=True)
class RankedGroup:
    """A prompt, its K answers, and every ranking that people gave of them."""

    prompt_id: str
    split: str  # "train", "validation" or "held_out"
    group: Group
    characters_K: tuple[int, ...]  # length of each answer's text
    rankings: tuple[Tiers, ...]
    batches: tuple[str | None, ...] = ()  # of each ranking, the candidate batch it is about

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) of every ranking, ties left out; a pair judged twice is there twice."""
        return [pair for tiers in self.rankings for pair in tiers_pairs(tiers)]


@dataclass(frozen=True)
class RankedData:
    """Groups that can be trained and tested on, and how many rankings could not, by reason."""

    groups: list[RankedGroup]
    rankings: int  # read
    too_long: int  # rankings with a prompt and answer of more than max_tokens
    without_pairs: int  # rankings that put no answer above another
    longest_tokens: int  # of any prompt and answer read, too long ones included

    def of_split(self, split: str, batches: Collection[str] = ()) -> list[RankedGroup]:
        """The split's groups; with `batches`, no other rankings than those of these batches."""
        groups = [one for one in self.groups if one.split == split]
        if not batches:
            return groups
        own = []
        for group in groups:
            places = [i for i, batch in enumerate(group.batches) if batch in batches]
            if places:
                rankings = tuple(group.rankings[i] for i in places)
                kept = tuple(group.batches[i] for i in places)
                own.append(replace(group, rankings=rankings, batches=kept))
        return own


def steps_places(
    sizes: Sequence[int], *, epochs: int, per_step: int, seed: int
) -> list[list[list[int]]]:
    """The places of every step of every epoch, over groups of `sizes` examples.

    Each epoch takes every group once, in an order of its own. A group is never split over steps;
    within that, an epoch's steps are as even as can be, so that no short last step counts as much
    as a full one.
    """
    total = sum(sizes)
    count = math.ceil(total / per_step)
    plan = []
    for epoch in range(epochs):
        order = list(range(len(sizes)))
        random.Random(f"{seed}:{epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
        steps: list[list[int]] = []
        places: list[int] = []
        taken, boundary = 0, 1
        for place in order:
            places.append(place)
            taken += sizes[place]
            if taken * count >= boundary * total:
                steps.append(places)
                places, boundary = [], taken * count // total + 1
        plan.append(steps)
    return plan


def rankings_load(path: Path, tokenizer: Any, *, max_tokens: int) -> RankedData:
    """Read rankings.jsonl.

    Nothing is cut: a ranking of which one answer, with its prompt, has more than `max_tokens` is
    left out whole and counted. Groups come in the order of their first row.

    Raises RecordError naming line and field for a row that does not fit, or whose messages the
    tokenizer's chat template cannot lay out.
    """
    prompts: dict[str, list[int]] = {}
    splits: dict[str, str] = {}
    groups: dict[tuple[str, tuple[str, ...]], RankedGroup] = {}
    rankings = too_long = without_pairs = longest = 0
    for line, value in lines_read(path):
        record = record_load(RankingRecord, value, file=path.name, line=line)
        candidates = _candidates_read(record, file=path.name, line=line)
        tiers = _tiers_read(record, candidates, file=path.name, line=line)
        rankings += 1
        if splits.setdefault(record.prompt_id, record.split) != record.split:
            raise RecordError(
                path.name, line, "split", f"prompt {record.prompt_id} is on both sides"
            )
        key = (record.prompt_id, tuple(one.id for one in candidates))
        if key not in groups:
            if record.prompt_id not in prompts:
                prompts[record.prompt_id] = _prompt_read(record, tokenizer, path.name, line)
            answers = [answer_encode(tokenizer, c.text, c.finish_reason) for c in candidates]
            groups[key] = RankedGroup(
                record.prompt_id,
                record.split,
                Group(prompts[record.prompt_id], answers),
                tuple(len(candidate.text) for candidate in candidates),
                (),
                (),
            )
        found = groups[key]
        longest = max(longest, found.group.longest)
        if found.group.longest > max_tokens:
            too_long += 1
        elif not tiers_pairs(tiers):
            without_pairs += 1
        else:
            groups[key] = RankedGroup(
                found.prompt_id,
                found.split,
                found.group,
                found.characters_K,
                (*found.rankings, tiers),
                (*found.batches, record.batch),
            )
    usable = [group for group in groups.values() if group.rankings]
    return RankedData(usable, rankings, too_long, without_pairs, longest)


def _prompt_read(record: RankingRecord, tokenizer: Any, file: str, line: int) -> list[int]:
    try:
        return prompt_render(tokenizer, record.messages)
    except ChatTemplateError as error:
        raise RecordError(file, line, "messages", str(error)) from error


def _candidates_read(record: RankingRecord, *, file: str, line: int) -> list[RankedCandidate]:
    candidates = [
        record_load(RankedCandidate, one, file=file, line=line) for one in record.candidates
    ]
    ids = [one.id for one in candidates]
    if len(set(ids)) != len(ids):
        raise RecordError(file, line, "candidates", "the same id twice")
    return candidates


def _tiers_read(
    record: RankingRecord, candidates: Sequence[RankedCandidate], *, file: str, line: int
) -> Tiers:
    places = {candidate.id: place for place, candidate in enumerate(candidates)}
    named = [one for tier in record.tiers for one in tier]
    for one in named:
        if one not in places:
            raise RecordError(file, line, "tiers", f"{one} is not a candidate of this ranking")
    if len(set(named)) != len(named):
        raise RecordError(file, line, "tiers", "the same candidate twice")
    return tuple(tuple(places[one] for one in tier) for tier in record.tiers if tier)
