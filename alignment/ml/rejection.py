"""Rejection sampling: score every answer with the reward model, keep each prompt's best.

    y* = argmax over k of r(x, y_k)        y_1 … y_N drawn from the policy

Touvron et al. 2023 (arXiv:2307.09288), section 3.2.3. Fine-tuning on the kept answers
(`alignment.ml.sft`) is then one step of policy improvement. Their third version learnt from its own
samples alone and forgot what earlier ones could do; so the best answers of all earlier rounds
(inputs `pool_1`, `pool_2`, …) compete here too, scored again by this reward model, because scores
of two reward models cannot be compared. A prompt that only a pool knows keeps its best as well.

An answer cut off by the length limit is not kept unless the configuration says so: fine-tuning on
it would teach the policy not to end. An empty answer is never kept. Of answers that are the same,
or more alike than the configuration allows, the one with the higher score is kept; of equal scores
the first, this round's before a pool's. An answer that is hardly better than its prompt's average
may be left out as well (`gain_floor`): there is nothing to learn from it. Every answer that was not
kept is counted under the one reason that came first.

The mean score of the best of n, for n = 1, 2, 4, … N, is reported beside the bound log n − (n−1)/n
on how far choosing moves the distribution (KL in nats; Stiennon et al. 2020, arXiv:2009.01325,
appendix G.3).

Scores are read off shared rows (`shared_prefix`), forward only. They are kept as they come: killed
and started again, the program scores what is left, and writes the same bytes.

By hand: `python -m alignment.ml.rejection RUN_DIR`.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, pstdev
from typing import Any

from alignment.ml.alike import likeness, pieces, text_fold
from alignment.ml.configs import RejectionConfig
from alignment.ml.data import DemonstrationRecord
from alignment.ml.scoring import Scorer, rows_compute
from alignment.ml.shared_prefix import Group, Row, pack
from alignment.records import ScoreRecord
from modelhub.ml.adapter import model_context, model_input
from modelhub.ml.chat import prompt_render, reward_token_id, scored_encode
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.manifest import MANIFEST_NAME, manifest_sha256
from modelhub.ml.records import (
    CandidateRecord,
    PromptRecord,
    json_canonical,
    records_read,
    records_write,
)
from modelhub.ml.rundir import RunDir, program_run

Scores = list[float | None]  # of a prompt's answers; None: too long to be scored

CANDIDATES = "candidates"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer that may be kept."""

    source: str  # "candidates", "pool_1", …
    index: int
    text: str
    finish_reason: str
    batch: str  # where it was drawn, as its demonstration will say


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A prompt and the answers that compete to be learnt from, this round's first."""

    prompt_id: str
    messages: list[dict[str, str]]
    answers: list[Answer]


def contests_make(
    prompts: Iterable[PromptRecord],
    candidates: Iterable[CandidateRecord],
    pools: Mapping[str, Iterable[DemonstrationRecord]],
    *,
    batch: str,
) -> list[Contest]:
    """Bring prompts, their candidates and earlier rounds' bests together, sorted by prompt id.

    Raises RefusedError if there is no prompt, a prompt without candidates, a candidate without a
    prompt, one that is there twice, or a prompt id that stands for two conversations.
    """
    messages: dict[str, list[dict[str, str]]] = {}
    for prompt in prompts:
        if prompt.prompt_id in messages:
            raise RefusedError(f"prompt {prompt.prompt_id} is there twice")
        messages[prompt.prompt_id] = prompt.messages
    if not messages:
        raise RefusedError("there are no prompts")
    answers: dict[str, dict[int, Answer]] = {prompt_id: {} for prompt_id in messages}
    for one in candidates:
        if one.prompt_id not in answers:
            raise RefusedError(f"candidate {one.index} of {one.prompt_id}: no such prompt")
        if one.index in answers[one.prompt_id]:
            raise RefusedError(f"candidate {one.index} of {one.prompt_id} is there twice")
        answers[one.prompt_id][one.index] = Answer(
            source=CANDIDATES,
            index=one.index,
            text=one.text,
            finish_reason=one.finish_reason,
            batch=batch,
        )
    bare = sorted(prompt_id for prompt_id, own in answers.items() if not own)
    if bare:
        raise RefusedError(f"{len(bare)} of {len(answers)} prompts have no candidate: {bare[0]}")
    laid = {prompt_id: [own[i] for i in sorted(own)] for prompt_id, own in answers.items()}
    for source, demonstrations in pools.items():
        seen: Counter[str] = Counter()
        for best in demonstrations:
            if messages.setdefault(best.prompt_id, best.messages) != best.messages:
                raise RefusedError(f"{source}: prompt {best.prompt_id} is another conversation")
            laid.setdefault(best.prompt_id, []).append(
                Answer(
                    source=source,
                    index=seen[best.prompt_id],
                    text=best.text,
                    finish_reason=best.finish_reason,
                    batch=best.batch,
                )
            )
            seen[best.prompt_id] += 1
    return [
        Contest(prompt_id=prompt_id, messages=messages[prompt_id], answers=own)
        for prompt_id, own in sorted(laid.items())
    ]


# Why an answer was not kept, in the order in which the reasons are looked for.
REASONS = ("too_long", "empty", "unfinished", "no_gain", "alike", "outranked")


@dataclass(frozen=True)
class Choice:
    """What is kept of a prompt's answers, and why each other one is not."""

    kept: list[int]  # places, best first
    dropped: dict[int, str]  # place → one of REASONS


def answers_keep(contest: Contest, scores: Scores, config: RejectionConfig) -> Choice:
    """Choose the answers of a prompt to learn from; none if no answer may be kept."""
    drawn = _drawn(contest, scores)
    floor = fmean(drawn) + config.gain_floor if config.gain_floor and drawn else -math.inf
    dropped: dict[int, str] = {}
    allowed: list[tuple[float, int]] = []
    for place, (answer, score) in enumerate(zip(contest.answers, scores, strict=True)):
        if score is None:
            dropped[place] = "too_long"
        elif not answer.text.strip():
            dropped[place] = "empty"
        elif answer.finish_reason != "stop" and config.finished_only:
            dropped[place] = "unfinished"
        elif score < floor:
            dropped[place] = "no_gain"
        else:
            allowed.append((-score, place))
    kept: dict[int, frozenset[str]] = {}
    for _, place in sorted(allowed):  # of equal scores the earlier answer comes first
        own = pieces(text_fold(contest.answers[place].text))
        if any(likeness(own, other) >= config.alike for other in kept.values()):
            dropped[place] = "alike"
        elif len(kept) == config.keep:
            dropped[place] = "outranked"
        else:
            kept[place] = own
    return Choice(list(kept), dropped)


def _drawn(contest: Contest, scores: Scores) -> list[float]:
    """The scores of this round's candidates."""
    return [
        score
        for answer, score in zip(contest.answers, scores, strict=True)
        if answer.source == CANDIDATES and score is not None
    ]


def judgement_check(contests: Sequence[Contest], scores: Sequence[Scores]) -> None:
    """Raise RefusedError if there was something to choose and every choice is a tie."""
    choices = []
    for contest, own in zip(contests, scores, strict=True):
        by_text = {
            answer.text: score
            for answer, score in zip(contest.answers, own, strict=True)
            if score is not None
        }
        if len(by_text) > 1:
            choices.append(len(set(by_text.values())) > 1)
    if choices and not any(choices):
        raise RefusedError(
            "the reward model gives all answers of each prompt one score: it cannot choose"
        )


def best_of(scores: Sequence[float], n: int) -> float:
    """Expected highest of n of these scores drawn without replacement: exact, every draw counts.

    The i-th smallest (from 0) is the highest of C(i, n−1) of the C(N, n) draws.
    """
    draws = math.comb(len(scores), n)
    return math.fsum(
        score * (math.comb(place, n - 1) / draws) for place, score in enumerate(sorted(scores))
    )


def best_of_n_curve(scores: Sequence[Sequence[float]]) -> list[dict[str, float]]:
    """Mean over prompts of `best_of` n, n = 1, 2, 4, … and the fewest answers any prompt has.

    `kl_bound`: nats by which choosing the best of n moves the distribution at most.
    """
    most = min(map(len, scores), default=0)
    counts = sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})
    return [
        {
            "n": n,
            "mean_score": fmean(best_of(own, n) for own in scores),
            "kl_bound": math.log(n) - (n - 1) / n,
        }
        for n in counts
        if n
    ]


@dataclass(frozen=True)
class Layout:
    """Contests as groups of tokens, and where each answer's score will be found."""

    groups: list[Group]
    places: list[list[tuple[int, int]]]  # of each group's answers: (contest, answer)
    tokens: list[list[int]]  # of each contest's answers

    def scores_place(
        self, rows: Sequence[Row], found: Sequence[Sequence[Sequence[float]]]
    ) -> list[Scores]:
        """The scores of the packed groups as each contest's, in its answers' order."""
        scores: list[Scores] = [[None] * len(own) for own in self.tokens]
        for row, row_scores in zip(rows, found, strict=True):
            for group, own in zip(row.indices, row_scores, strict=True):
                for (contest, place), score in zip(self.places[group], own, strict=True):
                    scores[contest][place] = score
        return scores


def layout_make(contests: Sequence[Contest], tokenizer: Any, *, max_tokens: int) -> Layout:
    """Lay contests out in tokens. Answers that with their prompt are longer than `max_tokens` are
    in no group."""
    groups, places, tokens = [], [], []
    for number, contest in enumerate(contests):
        prompt_T = prompt_render(tokenizer, contest.messages)
        answers = [scored_encode(tokenizer, a.text, a.finish_reason) for a in contest.answers]
        reading = reward_token_id(tokenizer) is not None  # a token that the policy did not write
        tokens.append([len(answer_T) - reading for answer_T in answers])
        fitting = [place for place, a in enumerate(answers) if len(prompt_T) + len(a) <= max_tokens]
        if fitting:
            groups.append(Group(prompt_T, [answers[place] for place in fitting]))
            places.append([(number, place) for place in fitting])
    return Layout(groups, places, tokens)


def demonstrations_lay(
    contests: Sequence[Contest], scores: Sequence[Scores], kept: Sequence[Sequence[int]]
) -> Iterator[DemonstrationRecord]:
    """The kept answers as demonstrations, by prompt and best first."""
    for contest, own, places in zip(contests, scores, kept, strict=True):
        for place in places:
            answer, score = contest.answers[place], own[place]
            assert score is not None  # noqa: S101 - only what was scored is kept
            yield DemonstrationRecord(
                prompt_id=contest.prompt_id,
                messages=contest.messages,
                text=answer.text,
                finish_reason=answer.finish_reason,
                score=score,
                batch=answer.batch,
            )


def scores_lay(
    contests: Sequence[Contest],
    scores: Sequence[Scores],
    kept: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[int]],
) -> Iterator[ScoreRecord]:
    """Every answer that was looked at, in the order of scores.jsonl."""
    for contest, own, places, lengths in zip(contests, scores, kept, tokens, strict=True):
        for place, answer in enumerate(contest.answers):
            yield ScoreRecord(
                prompt_id=contest.prompt_id,
                source=answer.source,
                index=answer.index,
                score=own[place],
                tokens=lengths[place],
                finish_reason=answer.finish_reason,
                kept=place in places,
            )


def result_describe(
    contests: Sequence[Contest], scores: Sequence[Scores], choices: Sequence[Choice]
) -> dict[str, Any]:
    """Counts, and what choosing came to. Means and the curve are of this round's candidates."""
    drawn = [_drawn(contest, own) for contest, own in zip(contests, scores, strict=True)]
    drawn = [own for own in drawn if own]
    answers = [answer for contest in contests for answer in contest.answers]
    chosen = [
        (contest.answers[place], own[place])
        for contest, own, choice in zip(contests, scores, choices, strict=True)
        for place in choice.kept
    ]
    everything = [score for own in drawn for score in own]
    reasons = Counter(reason for choice in choices for reason in choice.dropped.values())
    return {
        "prompts": len(contests),
        "candidates": sum(answer.source == CANDIDATES for answer in answers),
        "kept": len(chosen),
        "kept_from_pools": sum(answer.source != CANDIDATES for answer, _ in chosen),
        "prompts_without_kept": sum(not choice.kept for choice in choices),
        "dropped": {reason: reasons[reason] for reason in REASONS},
        "mean_score_all": fmean(fmean(own) for own in drawn) if drawn else None,
        "mean_score_kept": fmean(score for _, score in chosen),
        "score_std": pstdev(everything) if everything else None,
        "score_std_within_prompt": fmean(pstdev(own) for own in drawn) if drawn else None,
        "best_of_n": best_of_n_curve(drawn),
    }


def main(run: RunDir) -> None:
    config = run.config(RejectionConfig)
    reward, candidates = model_input(run, "reward"), run.input(CANDIDATES)
    pools = [role for role in run.input_roles() if role.startswith("pool_")]
    contests = contests_make(
        records_read(run.input("prompts") / "prompts.jsonl", PromptRecord),
        records_read(candidates / "candidates.jsonl", CandidateRecord),
        {
            role: records_read(run.input(role) / "demonstrations.jsonl", DemonstrationRecord)
            for role in sorted(pools, key=lambda role: (len(role), role))
        },
        batch=manifest_sha256(json.loads((candidates / MANIFEST_NAME).read_text())),
    )
    if config.finished_only and not any(
        answer.finish_reason == "stop" for contest in contests for answer in contest.answers
    ):
        raise RefusedError("every answer was cut off by the length limit: none may be kept")
    tokenizer = tokenizer_load(reward.whole)
    max_tokens = min(config.max_tokens, model_context(reward))
    layout = layout_make(contests, tokenizer, max_tokens=max_tokens)
    rows = pack(layout.groups, config.budget_tokens)

    @cache
    def scorer() -> Scorer:  # loaded only if a row is left to score
        return Scorer(reward, role="reward", dtype=config.dtype)

    found = rows_compute(run, rows, lambda _, row: scorer().scores(row))
    scores = layout.scores_place(rows, found)
    judgement_check(contests, scores)
    choices = [
        answers_keep(contest, own, config) for contest, own in zip(contests, scores, strict=True)
    ]
    kept = [choice.kept for choice in choices]
    folder = run.output("demonstrations")
    written = records_write(
        folder / "demonstrations.jsonl", demonstrations_lay(contests, scores, kept)
    )
    if not written:
        raise RefusedError("no prompt has an answer that may be kept")
    records_write(folder / "scores.jsonl", scores_lay(contests, scores, kept, layout.tokens))
    result = result_describe(contests, scores, choices)
    print(json_canonical(result), flush=True)
    run.succeed(outputs={"demonstrations": "demonstrations"}, result=result)


if __name__ == "__main__":
    program_run(main)
