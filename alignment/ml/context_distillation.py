"""Context distillation: learn to answer without a pre-prompt as one answered with it.

    keep y' ~ π(· | c, x) where r(x, y') > max over the originals y ~ π(· | x) of r(x, y)

c is the pre-prompt ("You are a responsible and safe assistant …"), x a prompt, r a safety reward
model, which reads both answers behind the prompt alone, as the policy will be asked it. Fine-tuned
on the kept answers (`alignment.ml.sft`), the policy needs c no more. On prompts that were answered
well already a pre-prompt does harm (answers turn vague, or refuse), which is why an answer is kept
only where the reward model prefers it (Touvron et al. 2023, arXiv:2307.09288, section 4.2.4; Askell
et al. 2021, arXiv:2112.00861).

The answers come from two runs of `modelhub.ml.generate` on the same prompts, one with `pre_prompt`.
Scores are read off shared rows, both kinds in one row.

By hand: `python -m alignment.ml.context_distillation RUN_DIR`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from statistics import fmean
from typing import Any

from alignment.ml.configs import ContextDistillationConfig
from alignment.ml.contests import CANDIDATES, Contest, contests_make
from alignment.ml.rejection import Scores, demonstrations_lay, layout_make, scores_lay
from alignment.ml.scoring import Scorer, rows_compute
from alignment.ml.shared_prefix import pack
from modelhub.ml.adapter import model_context, model_input
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.manifest import MANIFEST_NAME, manifest_sha256
from modelhub.ml.records import CandidateRecord, PromptRecord, records_read, records_write
from modelhub.ml.rundir import RunDir, program_run

UNDER = "candidates_under"


def contests_join(originals: Sequence[Contest], under: Sequence[Contest]) -> list[Contest]:
    """Each prompt's original answers and, behind them, those written under the pre-prompt."""
    return [
        replace(
            original,
            answers=[*original.answers, *(replace(one, source=UNDER) for one in other.answers)],
        )
        for original, other in zip(originals, under, strict=True)
    ]


def answer_keep(
    contest: Contest, scores: Scores, *, margin: float, finished_only: bool
) -> int | None:
    """The place of the answer to learn: the best under the pre-prompt, where it beats them all.

    None where it does not, where no original could be scored, or where it says what an original
    says: that teaches nothing.
    """
    originals, under = [], []
    for place, (answer, score) in enumerate(zip(contest.answers, scores, strict=True)):
        if score is None:
            continue
        if answer.source != UNDER:
            originals.append(place)
        elif answer.text.strip() and (answer.finish_reason == "stop" or not finished_only):
            under.append(place)
    if not originals or not under:
        return None
    best = max(under, key=lambda place: (scores[place], -place))
    if contest.answers[best].text in {contest.answers[place].text for place in originals}:
        return None
    bar = max(scores[place] or 0.0 for place in originals)
    return best if (scores[best] or 0.0) > bar + margin else None


def result_describe(
    contests: Sequence[Contest], scores: Sequence[Scores], kept: Sequence[int | None]
) -> dict[str, Any]:
    """How many were kept, and the mean reward of prompts' answers without and with the pre-prompt,
    over prompts with both."""
    means: dict[bool, list[float]] = {False: [], True: []}
    for contest, own in zip(contests, scores, strict=True):
        by_kind: dict[bool, list[float]] = {False: [], True: []}
        for answer, score in zip(contest.answers, own, strict=True):
            if score is not None:
                by_kind[answer.source == UNDER].append(score)
        if all(by_kind.values()):
            for kind, found in by_kind.items():
                means[kind].append(fmean(found))
    return {
        "prompts": len(contests),
        "kept": sum(place is not None for place in kept),
        "mean_score_without": fmean(means[False]) if means[False] else None,
        "mean_score_under": fmean(means[True]) if means[True] else None,
        "too_long": sum(score is None for own in scores for score in own),
    }


def main(run: RunDir) -> None:
    config = run.config(ContextDistillationConfig)
    reward, under = model_input(run, "reward"), run.input(UNDER)
    prompts = list(records_read(run.input("prompts") / "prompts.jsonl", PromptRecord))
    batch = manifest_sha256(json.loads((under / MANIFEST_NAME).read_text()))
    contests = contests_join(
        *(
            contests_make(
                prompts, records_read(folder / "candidates.jsonl", CandidateRecord), {}, batch=batch
            )
            for folder in (run.input(CANDIDATES), under)
        )
    )
    tokenizer = tokenizer_load(reward.whole)
    max_tokens = min(config.max_tokens, model_context(reward))
    layout = layout_make(contests, tokenizer, max_tokens=max_tokens)
    rows = pack(layout.groups, config.budget_tokens)

    @cache
    def scorer() -> Scorer:  # loaded only if a row is left to score
        return Scorer(reward, role="reward", dtype=config.dtype)

    found = rows_compute(run, rows, lambda _, row: scorer().scores(row))
    scores = layout.scores_place(rows, found)
    kept = [
        answer_keep(contest, own, margin=config.margin, finished_only=config.finished_only)
        for contest, own in zip(contests, scores, strict=True)
    ]
    places = [[] if place is None else [place] for place in kept]
    folder = run.output("demonstrations")
    written = records_write(
        folder / "demonstrations.jsonl", demonstrations_lay(contests, scores, places)
    )
    if not written:
        raise RefusedError("no answer under the pre-prompt is better than the original")
    records_write(folder / "scores.jsonl", scores_lay(contests, scores, places, layout.tokens))
    run.succeed(
        outputs={"demonstrations": "demonstrations"},
        result=result_describe(contests, scores, kept),
    )


if __name__ == "__main__":
    program_run(main)
