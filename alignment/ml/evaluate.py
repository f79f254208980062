"""Compare two policies on held-out prompts: did the reward rise, and at what price.

**Reward.** Each answer of both policies is scored by one reward model. A prompt counts once, by the
mean of its answers; means and the paired difference have 95 % bootstrap intervals over prompts,
because answers to one prompt are not independent.

**Win rate.** Of all pairs of an answer before and one after, the share in which the later one
scores higher, ties one half, averaged over prompts. Its interval is Wilson's on the number of
prompts: on the wide side, as a prompt's share varies no more than a coin, and sound at 0 and 1.

**KL(after ‖ before)**, in nats, on the answers that `after` wrote:

    KL(x) = E_{y ~ after(·|x)}  Σ_t  Σ_v after(v | x, y_<t) · log [after(v | …) / before(v | …)]

By the chain rule this is the KL of whole answers (of their first tokens, where answers are cut
off). The inner sum runs over the vocabulary, so the estimate is never negative and steadier than
the mean of log after(y) − log before(y), reported beside it (`kl_per_answer_sampled_nats`). Both
policies are read at temperature 1. Where the answers were drawn otherwise (another temperature,
top-p, top-k) neither is the KL of the policies: the first is then their divergence along the
answers that such a sampler writes, and the second may even be negative. `kl_is_the_policies` says
which it is.

**Drift.** Length in tokens, finished share, repetition (the share of an answer's 4-grams that it
had written before), distinct-2 (different bigrams over all bigrams of a side), mean log-probability
as sampled; and how far reward goes with length: their correlation inside prompts.

A prompt with an answer too long to be read is left out on both sides, and counted. Rows that are
read are kept: killed and started again, the program reads what is left.

Any of the three models may be an adapter; its base is then the input of its role with `_base`.

By hand: `python -m alignment.ml.evaluate RUN_DIR`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from statistics import StatisticsError, correlation, fmean
from typing import Any

from alignment.intervals import Interval, bootstrap_mean, bootstrap_ratio, wilson_interval
from alignment.ml.configs import EvaluateConfig
from alignment.ml.scoring import Divergence, Scorer, divergences, rows_compute
from alignment.ml.shared_prefix import Group, Row, pack
from alignment.records import SampleRecord
from modelhub.ml.adapter import ModelInput, model_context, model_input
from modelhub.ml.chat import answer_encode, prompt_render, scored_encode
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import CandidateRecord, PromptRecord, records_read, records_write
from modelhub.ml.rundir import RunDir, program_run

SIDES = ("before", "after")
_REPEATED_TOKENS = 4  # an answer repeats itself where it writes so many tokens again


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A held-out prompt and what both policies answered, by index."""

    prompt_id: str
    messages: list[dict[str, str]]
    answers: dict[str, list[CandidateRecord]]  # by side


def held_out_make(
    prompts: Iterable[PromptRecord],
    before: Iterable[CandidateRecord],
    after: Iterable[CandidateRecord],
) -> list[HeldOut]:
    """Bring prompts and both policies' answers together, sorted by prompt id.

    Raises RefusedError unless there are two prompts or more, every prompt is answered by both
    policies, and no answer belongs to another prompt or is there twice: a comparison on different
    prompts compares the prompts.
    """
    messages: dict[str, list[dict[str, str]]] = {}
    for prompt in prompts:
        if prompt.prompt_id in messages:
            raise RefusedError(f"prompt {prompt.prompt_id} is there twice")
        messages[prompt.prompt_id] = prompt.messages
    if len(messages) < 2:
        raise RefusedError(f"a comparison needs two held-out prompts or more, got {len(messages)}")
    answers: dict[str, dict[str, dict[int, CandidateRecord]]] = {
        prompt_id: {side: {} for side in SIDES} for prompt_id in messages
    }
    for side, candidates in zip(SIDES, (before, after), strict=True):
        for one in candidates:
            if one.prompt_id not in answers:
                raise RefusedError(
                    f"candidates_{side}: an answer to {one.prompt_id}, no held-out prompt of these"
                )
            own = answers[one.prompt_id][side]
            if one.index in own:
                raise RefusedError(
                    f"candidates_{side}: answer {one.index} to {one.prompt_id} is there twice"
                )
            own[one.index] = one
        bare = sorted(prompt_id for prompt_id, found in answers.items() if not found[side])
        if bare:
            raise RefusedError(
                f"candidates_{side}: {len(bare)} of {len(answers)} held-out prompts have no "
                f"answer, {bare[0]} for one"
            )
    return [
        HeldOut(
            prompt_id=prompt_id,
            messages=messages[prompt_id],
            answers={side: [own[side][i] for i in sorted(own[side])] for side in SIDES},
        )
        for prompt_id, own in sorted(answers.items())
    ]


def group_lay(
    tokenizer: Any,
    prompt: HeldOut,
    sides: Sequence[str],
    encode: Callable[[Any, str, str], list[int]] = answer_encode,
) -> Group:
    """A prompt and its answers, one side behind the other, as this tokenizer lays them."""
    return Group(
        prompt_render(tokenizer, prompt.messages),
        [
            encode(tokenizer, one.text, one.finish_reason)
            for side in sides
            for one in prompt.answers[side]
        ],
    )


# ── figures ──────────────────────────────────────────────────────────────────────────────────────


def win_share(before: Sequence[float], after: Sequence[float]) -> float:
    """The share of (before, after) pairs in which the later answer scores higher, ties one half."""
    wins = sum((new > old) + 0.5 * (new == old) for old in before for new in after)
    return wins / (len(before) * len(after))


def repetition(tokens: Sequence[int]) -> float:
    """The share of an answer's 4-grams that it had written before; 0 for fewer than two of them."""
    grams = list(zip(*(tokens[start:] for start in range(_REPEATED_TOKENS)), strict=False))
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


def distinct_2(answers: Iterable[Sequence[int]]) -> float | None:
    """Different bigrams over all bigrams of all answers (Li et al. 2016, arXiv:1510.03055).

    It falls as answers grow in number and length: compare it between sides alone. None without
    a bigram.
    """
    grams = [gram for answer in answers for gram in pairwise(answer)]
    return len(set(grams)) / len(grams) if grams else None


def correlation_within(groups: Iterable[Sequence[tuple[float, float]]]) -> float | None:
    """Pearson's correlation of (x, y) pairs behind the means of their own group.

    A hard prompt that gets long answers and low rewards adds nothing to it. None where x or y is
    the same throughout every group.
    """
    xs, ys = [], []
    for pairs in groups:
        mean_x, mean_y = fmean(x for x, _ in pairs), fmean(y for _, y in pairs)
        xs += [x - mean_x for x, _ in pairs]
        ys += [y - mean_y for _, y in pairs]
    try:
        return correlation(xs, ys)
    except StatisticsError:
        return None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A held-out prompt with all that was read of its answers, each side in its answers' order."""

    prompt: HeldOut
    tokens: dict[str, list[list[int]]]
    rewards: dict[str, list[float]]
    divergences: list[Divergence]  # of the answers of `after`


def figures(judged: Sequence[Judged], config: EvaluateConfig) -> dict[str, Any]:
    """The evaluation's metrics; what each means is at the head of this file."""

    def interval(of: Callable[[Judged], float]) -> dict[str, float]:
        values = [of(one) for one in judged]
        return asdict(bootstrap_mean(values, samples=config.bootstrap_samples, seed=config.seed))

    def mean(of: Callable[[Judged], float]) -> float:
        return fmean(of(one) for one in judged)

    kl_answer = interval(lambda one: fmean(d.kl for d in one.divergences))
    kl_token = kl_per_token(judged, config)
    wins = [win_share(one.rewards["before"], one.rewards["after"]) for one in judged]
    metrics: dict[str, Any] = {
        "prompts": len(judged),
        "reward_difference": interval(
            lambda one: fmean(one.rewards["after"]) - fmean(one.rewards["before"])
        ),
        "win_rate": asdict(wilson_interval(sum(wins), len(wins))),
        "kl_per_answer_nats": kl_answer["mean"],
        "kl_per_answer_low": kl_answer["low"],
        "kl_per_answer_high": kl_answer["high"],
        "kl_per_answer_sampled_nats": mean(
            lambda one: fmean(d.logprob_after - d.logprob_before for d in one.divergences)
        ),
        "kl_per_token_nats": kl_token.mean,
        "kl_per_token_low": kl_token.low,
        "kl_per_token_high": kl_token.high,
        "kl_is_the_policies": all(
            (answer.temperature, answer.top_p, answer.top_k) == (1, 1, 0)
            for one in judged
            for answer in one.prompt.answers["after"]
        ),
        "reward_length_correlation": correlation_within(
            [
                (len(tokens), reward)
                for side in SIDES
                for tokens, reward in zip(one.tokens[side], one.rewards[side], strict=True)
            ]
            for one in judged
        ),
    }
    for side in SIDES:
        answers = [answer for one in judged for answer in one.prompt.answers[side]]
        logprobs = [one.mean_logprob for one in answers if one.mean_logprob is not None]
        metrics |= {
            f"answers_{side}": len(answers),
            f"reward_{side}": interval(lambda one, side=side: fmean(one.rewards[side])),
            f"length_{side}": mean(lambda one, side=side: fmean(map(len, one.tokens[side]))),
            f"finished_{side}": fmean(answer.finish_reason == "stop" for answer in answers),
            f"repetition_{side}": mean(
                lambda one, side=side: fmean(map(repetition, one.tokens[side]))
            ),
            f"distinct_2_{side}": distinct_2(
                tokens for one in judged for tokens in one.tokens[side]
            ),
            f"mean_logprob_{side}": fmean(logprobs) if logprobs else None,
        }
    return metrics


def kl_per_token(judged: Sequence[Judged], config: EvaluateConfig) -> Interval:
    """Nats per token: all divergence over all tokens, with its interval over prompts."""
    parts = [
        # At least 1: an answer of no token at all (empty and cut off) diverges nowhere.
        (sum(d.kl for d in one.divergences), max(1, sum(map(len, one.tokens["after"]))))
        for one in judged
    ]
    return bootstrap_ratio(parts, samples=config.bootstrap_samples, seed=config.seed)


def samples_lay(judged: Iterable[Judged]) -> Iterable[SampleRecord]:
    """Every answer with what was read of it, in the order of samples.jsonl."""
    for one in judged:
        for side in sorted(SIDES):
            own = one.divergences if side == "after" else [None] * len(one.rewards[side])
            for answer, tokens, reward, divergence in zip(
                one.prompt.answers[side], one.tokens[side], one.rewards[side], own, strict=True
            ):
                yield SampleRecord(
                    prompt_id=one.prompt.prompt_id,
                    side=side,
                    index=answer.index,
                    text=answer.text,
                    finish_reason=answer.finish_reason,
                    tokens=len(tokens),
                    reward=reward,
                    logprob_after=divergence.logprob_after if divergence else None,
                    logprob_before=divergence.logprob_before if divergence else None,
                    kl=divergence.kl if divergence else None,
                )


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Layout:
    """The prompts that can be read, and their answers as tokens."""

    prompts: list[HeldOut]
    for_reward: list[Group]  # both sides' answers, as the reward model's tokenizer lays them
    for_policies: list[Group]  # the same, as the policies' tokenizer does
    too_long: list[str]  # prompt ids


def layout_make(
    held_out: Sequence[HeldOut], models: dict[str, ModelInput], *, max_tokens: int
) -> Layout:
    """Lay the prompts out for the three models (before, after, reward).

    Raises RefusedError if the policies lay a prompt or an answer in different tokens, which have no
    KL, or if fewer than two prompts fit.
    """
    before, after, reward = (tokenizer_load(models[role].whole) for role in (*SIDES, "reward"))
    contexts = [model_context(one) for one in models.values()]
    limit = min(max_tokens, *contexts)
    layout = Layout([], [], [], [])
    for prompt in held_out:
        group = group_lay(after, prompt, SIDES)
        if group_lay(before, prompt, SIDES) != group:
            raise RefusedError(
                f"prompt {prompt.prompt_id}: the policies lay it, or its answers, in different "
                "tokens (another tokenizer or chat template), so no KL is defined between them"
            )
        for_reward = group_lay(reward, prompt, SIDES, scored_encode)
        if max(group.longest, for_reward.longest) > limit:
            layout.too_long.append(prompt.prompt_id)
            continue
        layout.prompts.append(prompt)
        layout.for_policies.append(group)
        layout.for_reward.append(for_reward)
    if len(layout.prompts) < 2:
        raise RefusedError(
            f"{len(layout.too_long)} of {len(held_out)} held-out prompts have an answer that with "
            f"its prompt is longer than {limit} tokens: fewer than two are left"
        )
    return layout


def layout_judge(
    run: RunDir, layout: Layout, models: dict[str, ModelInput], config: EvaluateConfig
) -> list[Judged]:
    """Read every answer with the reward model, then `after`'s answers with both policies."""
    firsts = [len(prompt.answers["before"]) for prompt in layout.prompts]
    of_after = [
        Group(group.prompt_T, group.answers[first:])
        for group, first in zip(layout.for_policies, firsts, strict=True)
    ]
    scored = pack(layout.for_reward, config.budget_tokens)
    compared = pack(of_after, config.budget_tokens)

    @cache
    def scorer(*roles: str) -> list[Scorer]:
        kind = "reward" if roles == ("reward",) else "causal"
        return [Scorer(models[role], role=kind, dtype=config.dtype) for role in roles]

    def read(number: int, row: Row) -> Any:
        if number < len(scored):
            return scorer("reward")[0].scores(row)
        if number == len(scored):
            scorer.cache_clear()  # the reward model has done its part: its memory is needed
        after, before = scorer("after", "before")
        found = divergences(after, before, row)
        return [[[d.logprob_after, d.logprob_before, d.kl] for d in group] for group in found]

    values = rows_compute(run, [*scored, *compared], read)
    rewards = [
        scores_unify(group.answers, scores)
        for group, scores in zip(
            layout.for_reward, by_group(scored, values[: len(scored)]), strict=True
        )
    ]
    differences = by_group(compared, values[len(scored) :])
    return [
        Judged(
            prompt=prompt,
            tokens={"before": group.answers[:first], "after": group.answers[first:]},
            rewards={"before": own_rewards[:first], "after": own_rewards[first:]},
            divergences=[Divergence(*one) for one in own_differences],
        )
        for prompt, group, first, own_rewards, own_differences in zip(
            layout.prompts, layout.for_policies, firsts, rewards, differences, strict=True
        )
    ]


def scores_unify(answers: Sequence[Sequence[int]], scores: Sequence[float]) -> list[float]:
    """One score for the same answer to a prompt, wherever it lay in the row.

    Its places differ in rounding, and a comparison of the policies must not be won by that.
    """
    first: dict[tuple[int, ...], float] = {}
    return [
        first.setdefault(tuple(answer), score)
        for answer, score in zip(answers, scores, strict=True)
    ]


def by_group(rows: Sequence[Row], values: Sequence[Sequence[Any]]) -> list[Any]:
    """What was computed of each group, in the order the groups were packed from."""
    found = {
        index: one
        for row, own in zip(rows, values, strict=True)
        for index, one in zip(row.indices, own, strict=True)
    }
    return [found[index] for index in range(len(found))]


def main(run: RunDir) -> None:
    config = run.config(EvaluateConfig)
    held_out = held_out_make(
        records_read(run.input("prompts") / "prompts.jsonl", PromptRecord),
        records_read(run.input("candidates_before") / "candidates.jsonl", CandidateRecord),
        records_read(run.input("candidates_after") / "candidates.jsonl", CandidateRecord),
    )
    models = {role: model_input(run, role) for role in (*SIDES, "reward")}
    layout = layout_make(held_out, models, max_tokens=config.max_tokens)
    if layout.too_long:
        print(f"too long, left out: {' '.join(layout.too_long)}", flush=True)
    judged = layout_judge(run, layout, models, config)
    metrics = {"prompts_too_long": len(layout.too_long), **figures(judged, config)}
    records_write(run.output("evaluation") / "samples.jsonl", samples_lay(judged))
    run.succeed(outputs={"evaluation": "evaluation"}, result=metrics)


if __name__ == "__main__":
    program_run(main)
