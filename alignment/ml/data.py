"""What training reads and writes about answers: rankings and ratings in, demonstrations out.

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
from annotation.records import RankedCandidate, RankingRecord, RatingRecord
from modelhub.ml.chat import ChatTemplateError, prompt_render, scored_encode
from modelhub.ml.records import RecordError, lines_read, record_load

Tiers = tuple[tuple[int, ...], ...]  # places of candidates in their group, best first


@dataclass(frozen=True, kw_only=True)
class DemonstrationRecord:
    """An answer to imitate: a line of demonstrations.jsonl."""

    prompt_id: str
    messages: list[dict[str, str]]
    text: str
    finish_reason: str  # "stop": the model ended its turn; "length": it was cut off
    score: float | None  # the reward model's, or the checker's; None where none has judged it
    batch: str  # the candidate batch it was drawn in


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """One judgement of a group's answers, as places in the group."""

    tiers: Tiers
    batch: str | None = None  # the candidate batch it is about
    degree: int | None = None  # of a choice between two: 1 negligibly better … 4 significantly
    unsafe: tuple[int, ...] | None = None  # answers that were called unsafe; None: not asked
    weight: float = 1.0  # how far the annotator is relied on
    annotator: str = ""


@dataclass(frozen=True, kw_only=True)
class RankedGroup:
    """A prompt, its K answers, and every ranking that people gave of them."""

    prompt_id: str
    split: str  # "train", "validation" or "held_out"
    group: Group
    texts_K: tuple[str, ...]
    rankings: tuple[Ranking, ...] = ()  # that put an answer above another
    tied: tuple[Ranking, ...] = ()  # that do not: they have a say in soft and in safety labels
    writers_K: tuple[str | None, ...] = ()  # the model version that wrote each answer

    @property
    def characters(self) -> tuple[int, ...]:
        """Length of each answer's text."""
        return tuple(map(len, self.texts_K))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) of every ranking, ties left out; a pair judged twice is there twice."""
        return [pair for one in self.rankings for pair in self.pairs_of(one)]

    def pairs_of(self, ranking: Ranking) -> list[tuple[int, int]]:
        """(better, worse) of a ranking, without ties and without answers of the same tokens.

        The same tokens have the same score, whoever was put above the other: nothing is learnt
        from such a pair, and no model can be right about it.
        """
        answers = self.group.answers
        pairs = tiers_pairs(ranking.tiers)
        return [(high, low) for high, low in pairs if answers[high] != answers[low]]


@dataclass(frozen=True, kw_only=True)
class RankedData:
    """Groups that can be trained and tested on, and how many rankings could not, by reason."""

    groups: list[RankedGroup]
    rankings: int  # read
    too_long: int  # rankings with a prompt and answer of more than max_tokens
    without_pairs: int  # rankings that put no answer above another
    longest_tokens: int  # of any prompt and answer read, too long ones included
    identical: int = 0  # rankings that only put answers above others of the same tokens
    answers_empty: int = 0  # of all groups, too long ones left out

    def of_split(self, split: str, batches: Collection[str] = ()) -> list[RankedGroup]:
        """The split's groups; with `batches`, no other rankings than those of these batches."""
        groups = [one for one in self.groups if one.split == split]
        if not batches:
            return groups
        own = []
        for group in groups:
            kept = tuple(one for one in group.rankings if one.batch in batches)
            if kept:
                tied = tuple(one for one in group.tied if one.batch in batches)
                own.append(replace(group, rankings=kept, tied=tied))
        return own


@dataclass(frozen=True, kw_only=True)
class RatedAnswer:
    """What one annotator said of one answer by itself."""

    prompt_id: str
    split: str
    prompt_T: list[int]
    answer_T: list[int]
    overall: int  # 1 to 7
    weight: float = 1.0  # how far the annotator is relied on


@dataclass(frozen=True, kw_only=True)
class RatedData:
    """Ratings that can be learnt from, and how many could not."""

    answers: list[RatedAnswer]
    ratings: int  # read
    too_long: int  # of a prompt and answer of more than max_tokens
    longest_tokens: int  # of any prompt and answer read, too long ones included


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
    rankings = too_long = without_pairs = identical = longest = 0
    for line, value in lines_read(path):
        record = record_load(RankingRecord, value, file=path.name, line=line)
        candidates = _candidates_read(record, file=path.name, line=line)
        ranking = _ranking_read(record, candidates, file=path.name, line=line)
        rankings += 1
        if splits.setdefault(record.prompt_id, record.split) != record.split:
            raise RecordError(
                path.name, line, "split", f"prompt {record.prompt_id} is on both sides"
            )
        key = (record.prompt_id, tuple(one.id for one in candidates))
        if key not in groups:
            if record.prompt_id not in prompts:
                prompts[record.prompt_id] = _prompt_read(record, tokenizer, path.name, line)
            answers = [scored_encode(tokenizer, c.text, c.finish_reason) for c in candidates]
            groups[key] = RankedGroup(
                prompt_id=record.prompt_id,
                split=record.split,
                group=Group(prompts[record.prompt_id], answers),
                texts_K=tuple(candidate.text for candidate in candidates),
                writers_K=tuple(candidate.model_version for candidate in candidates),
            )
        found = groups[key]
        longest = max(longest, found.group.longest)
        if found.group.longest > max_tokens:
            too_long += 1
        elif found.pairs_of(ranking):
            groups[key] = replace(found, rankings=(*found.rankings, ranking))
        else:
            tied = not tiers_pairs(ranking.tiers)
            without_pairs, identical = without_pairs + tied, identical + (not tied)
            groups[key] = replace(found, tied=(*found.tied, ranking))
    usable = [group for group in groups.values() if group.rankings]
    return RankedData(
        groups=usable,
        rankings=rankings,
        too_long=too_long,
        without_pairs=without_pairs,
        longest_tokens=longest,
        identical=identical,
        answers_empty=sum(not text.strip() for group in usable for text in group.texts_K),
    )


def ratings_load(path: Path, tokenizer: Any, *, max_tokens: int) -> RatedData:
    """Read ratings.jsonl, a rating of one answer in a line. Nothing is cut, as in `rankings_load`.

    Raises RecordError naming line and field for a row that does not fit, or whose messages the
    tokenizer's chat template cannot lay out.
    """
    prompts: dict[str, list[int]] = {}
    splits: dict[str, str] = {}
    answers = []
    ratings = too_long = longest = 0
    for line, value in lines_read(path):
        record = record_load(RatingRecord, value, file=path.name, line=line)
        answer = record_load(RankedCandidate, record.candidate, file=path.name, line=line)
        if not 1 <= record.overall <= 7:
            raise RecordError(path.name, line, "overall", f"wanted 1 to 7, got {record.overall}")
        _weight_check(record, file=path.name, line=line)
        ratings += 1
        if splits.setdefault(record.prompt_id, record.split) != record.split:
            raise RecordError(
                path.name, line, "split", f"prompt {record.prompt_id} is on both sides"
            )
        if record.prompt_id not in prompts:
            prompts[record.prompt_id] = _prompt_read(record, tokenizer, path.name, line)
        prompt_T = prompts[record.prompt_id]
        answer_T = scored_encode(tokenizer, answer.text, answer.finish_reason)
        longest = max(longest, len(prompt_T) + len(answer_T))
        if len(prompt_T) + len(answer_T) > max_tokens:
            too_long += 1
            continue
        answers.append(
            RatedAnswer(
                prompt_id=record.prompt_id,
                split=record.split,
                prompt_T=prompt_T,
                answer_T=answer_T,
                overall=record.overall,
                weight=record.weight,
            )
        )
    return RatedData(answers=answers, ratings=ratings, too_long=too_long, longest_tokens=longest)


def _prompt_read(
    record: RankingRecord | RatingRecord, tokenizer: Any, file: str, line: int
) -> list[int]:
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


def _ranking_read(
    record: RankingRecord, candidates: Sequence[RankedCandidate], *, file: str, line: int
) -> Ranking:
    places = {candidate.id: place for place, candidate in enumerate(candidates)}
    named = [one for tier in record.tiers for one in tier]
    for field, ids in (("tiers", named), ("unsafe", record.unsafe or [])):
        for one in ids:
            if one not in places:
                raise RecordError(file, line, field, f"{one} is not a candidate of this ranking")
        if len(set(ids)) != len(ids):
            raise RecordError(file, line, field, "the same candidate twice")
    _weight_check(record, file=file, line=line)
    if record.degree is not None and not 0 <= record.degree <= 4:
        raise RecordError(file, line, "degree", f"wanted 0 to 4, got {record.degree}")
    return Ranking(
        tiers=tuple(tuple(places[one] for one in tier) for tier in record.tiers if tier),
        batch=record.batch,
        degree=record.degree,
        unsafe=None if record.unsafe is None else tuple(places[one] for one in record.unsafe),
        weight=record.weight,
        annotator=record.annotator,
    )


def _weight_check(record: RankingRecord | RatingRecord, *, file: str, line: int) -> None:
    if not 0 <= record.weight < math.inf:
        raise RecordError(file, line, "weight", f"wanted 0 or more, got {record.weight}")
