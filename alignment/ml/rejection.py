"""Rejection sampling: score every answer with a reward model or a checker, keep each prompt's best.

    y* = argmax over k of r(x, y_k)        y_1 … y_N drawn from the policy

Touvron et al. 2023 (arXiv:2307.09288), section 3.2.3. Fine-tuning on the kept answers
(`alignment.ml.sft`) is then one step of policy improvement. Their third version learnt from its own
samples alone and forgot what earlier ones could do; so the best answers of all earlier rounds
(inputs `pool_1`, `pool_2`, …) compete here too, scored again by this reward model, because scores
of two reward models cannot be compared. A prompt that only a pool knows keeps its best as well.

Where right answers are known (input `references`), a checker may judge instead of a reward model: a
wrong answer is never kept, and of the right ones those that read differently (Yuan et al. 2023,
arXiv:2308.01825, section 3.3; Zelikman et al. 2022, arXiv:2203.14465). With both, the reward model
chooses among the right answers.

An answer cut off by the length limit is not kept unless the configuration says so: fine-tuning on
it would teach the policy not to end. An empty answer is never kept. Of answers that are the same,
or more alike than the configuration allows, the one with the higher score is kept; of equal scores
the first, this round's before a pool's. An answer that is hardly better than its prompt's average
may be left out as well (`gain_floor`): there is nothing to learn from it. Every answer that was not
kept is counted under the one reason that came first.

The mean score of the best of n, for n = 1, 2, 4, … N, is reported beside the bound log n − (n−1)/n
on how far choosing moves the distribution (KL in nats; Stiennon et al. 2020, arXiv:2009.01325,
appendix G.3). With a checker so is pass@n, how often one of n is right (Chen et al. 2021,
arXiv:2107.03374, eq. 1); with a reward model too, how often the one that it likes best is.

Scores are read off shared rows (`shared_prefix`), forward only. They are kept as they come: killed
and started again, the program scores what is left, and writes the same bytes.

By hand: `python -m alignment.ml.rejection RUN_DIR`.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from alignment.ml.alike import likeness, pieces, text_fold
from alignment.ml.best_of_n import Rights, best_of_n_curve
from alignment.ml.checkers import REFERENCES_NAME, checker_get, references_check, references_load
from alignment.ml.configs import RejectionConfig
from alignment.ml.contests import CANDIDATES, Contest, contests_make
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


# Why an answer was not kept, in the order in which the reasons are looked for.
REASONS = ("too_long", "empty", "unfinished", "wrong", "no_gain", "alike", "outranked")


@dataclass(frozen=True)
class Choice:
    """What is kept of a prompt's answers, and why each other one is not."""

    kept: list[int]  # places, best first
    dropped: dict[int, str]  # place → one of REASONS


def answers_keep(
    contest: Contest, scores: Scores, config: RejectionConfig, rights: Rights | None = None
) -> Choice:
    """Choose the answers of a prompt to learn from; none if no answer may be kept.

    rights: which of them are, where a checker has told.
    """
    drawn = [score for _, score in _drawn(contest, scores)]
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
        elif rights is not None and not rights[place]:
            dropped[place] = "wrong"
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


def _drawn(contest: Contest, scores: Scores) -> list[tuple[int, float]]:
    """(place, score) of this round's candidates."""
    return [
        (place, score)
        for place, (answer, score) in enumerate(zip(contest.answers, scores, strict=True))
        if answer.source == CANDIDATES and score is not None
    ]


def rights_of(
    contests: Sequence[Contest], references: Path, config: RejectionConfig
) -> list[Rights]:
    """Which answers the checker counts as right.

    references: references.jsonl. Raises RefusedError for a prompt without a reference, or with one
    that is not right itself, and if no answer may be kept because none is right.
    """
    checker = checker_get(config.checker)
    known = references_load(references, [contest.prompt_id for contest in contests])
    references_check(known, checker)
    rights = [
        [checker(answer.text, known[contest.prompt_id].answer) == 1.0 for answer in contest.answers]
        for contest in contests
    ]
    if not any(map(any, rights)):
        raise RefusedError(
            f"none of {sum(map(len, rights))} answers is right by {config.checker}: there is "
            "nothing to keep; draw more, or take prompts that the policy answers rightly at times"
        )
    return rights


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
    tokens: Sequence[Sequence[int]] | None,
    rights: Sequence[Rights] | None = None,
) -> Iterator[ScoreRecord]:
    """Every answer that was looked at, in the order of scores.jsonl."""
    for number, contest in enumerate(contests):
        for place, answer in enumerate(contest.answers):
            yield ScoreRecord(
                prompt_id=contest.prompt_id,
                source=answer.source,
                index=answer.index,
                score=scores[number][place],
                tokens=tokens[number][place] if tokens else None,
                finish_reason=answer.finish_reason,
                kept=place in kept[number],
                right=rights[number][place] if rights else None,
            )


def result_describe(
    contests: Sequence[Contest],
    scores: Sequence[Scores],
    choices: Sequence[Choice],
    rights: Sequence[Rights] | None = None,
) -> dict[str, Any]:
    """Counts, and what choosing came to. Means and the curve are of this round's candidates."""
    places = [_drawn(contest, own) for contest, own in zip(contests, scores, strict=True)]
    drawn = [[score for _, score in own] for own in places if own]
    right = None
    if rights is not None:
        right = [
            [own[place] for place, _ in found]
            for own, found in zip(rights, places, strict=True)
            if found
        ]
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
        **(_right_describe(right) if right else {}),
        "best_of_n": best_of_n_curve(drawn, right),
    }


def _right_describe(rights: Sequence[Rights]) -> dict[str, Any]:
    """How many of the candidates are right. Prompts of which all are, or none is, tell the most
    about the questions: too easy, or too hard, for this policy."""
    return {
        "right": sum(map(sum, rights)),
        "prompts_all_right": sum(map(all, rights)),
        "prompts_none_right": sum(not any(own) for own in rights),
    }


def inputs_check(run: RunDir, config: RejectionConfig) -> None:
    """Raise RefusedError if nothing would judge the answers, or something would go unread."""
    if config.checker:
        checker_get(config.checker)
        if not run.has_input("references"):
            raise RefusedError(f"checker {config.checker} needs the input references")
    elif run.has_input("references"):
        raise RefusedError("references are for a checker: name one, or leave the input out")
    elif not run.has_input("reward"):
        raise RefusedError("nothing judges the answers: give the input reward, or a checker")
    if config.gain_floor and not run.has_input("reward"):
        raise RefusedError(
            "gain_floor is in a reward model's unit, and none is given: a checker's answers are "
            "right or wrong"
        )


def scores_read(
    run: RunDir, contests: Sequence[Contest], config: RejectionConfig
) -> tuple[list[Scores], list[list[int]]]:
    """The reward model's score of every answer, and the answers' tokens as it reads them.

    Raises RefusedError if it cannot tell any prompt's answers apart.
    """
    reward = model_input(run, "reward")
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
    return scores, layout.tokens


def main(run: RunDir) -> None:
    config = run.config(RejectionConfig)
    inputs_check(run, config)
    candidates = run.input(CANDIDATES)
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
    rights: list[Rights] | None = None
    tokens: list[list[int]] | None = None
    if config.checker:
        rights = rights_of(contests, run.input("references") / REFERENCES_NAME, config)
    if run.has_input("reward"):
        scores, tokens = scores_read(run, contests, config)
    else:
        scores = [[float(right) for right in own] for own in rights or []]
    choices = [
        answers_keep(contest, own, config, rights[place] if rights else None)
        for place, (contest, own) in enumerate(zip(contests, scores, strict=True))
    ]
    kept = [choice.kept for choice in choices]
    folder = run.output("demonstrations")
    written = records_write(
        folder / "demonstrations.jsonl", demonstrations_lay(contests, scores, kept)
    )
    if not written:
        raise RefusedError("no prompt has an answer that may be kept")
    records_write(folder / "scores.jsonl", scores_lay(contests, scores, kept, tokens, rights))
    result = result_describe(contests, scores, choices, rights)
    print(json_canonical(result), flush=True)
    run.succeed(outputs={"demonstrations": "demonstrations"}, result=result)


if __name__ == "__main__":
    program_run(main)
