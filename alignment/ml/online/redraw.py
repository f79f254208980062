"""A step's answers, scored, and prompts that tell nothing replaced by others.

A prompt whose answers all have one score has advantages of 0: a step full of them is paid for and
learns nothing. Yu et al. 2025 ("DAPO", arXiv:2503.14476, section 3.2, eq. 11) draw more prompts
until a step is full of those that tell something. Here that has a bound (`redraws`), for a policy
that answers everything rightly, or nothing, would draw for ever.

Legend: B prompts, K answers of a prompt.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from alignment.ml.configs import GroupSettings, OnlineSettings
from alignment.ml.online.losses import equal_prompts
from alignment.ml.ppo.rewards import Answers, Reward, scores_shape
from alignment.ml.ppo.sampling import Drawing, LaidPrompt


@dataclass(frozen=True)
class StepDrawn:
    """What a step learns from, and what it took to draw it."""

    answers: Answers
    scores_BK: Tensor  # as losses see them
    figures: dict[str, float]  # of every prompt drawn, those that were replaced included
    prompts: int  # drawn
    tokens: int  # written
    seconds: float  # the drawing alone


def step_draw(
    drawing: Drawing,
    reward: Reward,
    prompts: Sequence[LaidPrompt],
    places: Sequence[int],
    *,
    step: int,
    config: OnlineSettings,
) -> StepDrawn:
    """Answers to the step's prompts, at `places` among all of them.

    With `redraws` prompts whose answers score alike make room for others, in an order of the
    step's own, each at most once; those for which none is found stay. A killed run draws the same.
    """
    redraws = config.redraws if isinstance(config, GroupSettings) else 0
    started = time.perf_counter()
    drawn = drawing.draw(
        [prompts[place] for place in places], samples=config.samples, salt=f"step:{step}"
    )
    seconds = time.perf_counter() - started
    answers, raw_BK = drawn, reward.scores(drawn).view(len(places), -1)
    told, seen = [dict(reward.figures)], [raw_BK]
    tokens = _tokens_of(drawn)
    equal_B = _tells_nothing(raw_BK, drawn, config)
    equal = int(equal_B.sum())
    others = [place for place in range(len(prompts)) if place not in set(places)]
    random.Random(f"{config.seed}:redraw:{step}").shuffle(others)  # noqa: S311 - an order
    for attempt in range(redraws):
        dull = equal_B.nonzero().flatten().tolist()
        fresh, others = others[: len(dull)], others[len(dull) :]
        if not fresh:
            break
        started = time.perf_counter()
        drawn = drawing.draw(
            [prompts[place] for place in fresh],
            samples=config.samples,
            salt=f"step:{step}:redraw:{attempt}",
        )
        seconds += time.perf_counter() - started
        fresh_BK = reward.scores(drawn).view(len(fresh), -1)
        seen.append(fresh_BK)
        told.append(dict(reward.figures))
        tokens += _tokens_of(drawn)
        telling = (~_tells_nothing(fresh_BK, drawn, config)).nonzero().flatten().tolist()
        equal += len(fresh) - len(telling)
        taken = dull[: len(telling)]
        answers = answers_replace(answers, taken, drawn, telling)
        raw_BK, equal_B = raw_BK.clone(), equal_B.clone()
        raw_BK[taken], equal_B[taken] = fresh_BK[telling], False
    every_BK = torch.cat(seen)
    shaped_B = scores_shape(raw_BK.flatten(), answers.ended_B, config)
    return StepDrawn(
        answers=answers,
        scores_BK=shaped_B.view_as(raw_BK),
        figures={
            "objective/scores": float(every_BK.mean()),
            "objective/scores_std": float(every_BK.std(unbiased=False)),
            "objective/equal_prompts": equal / len(every_BK),
            **({"objective/redrawn_prompts": len(every_BK) - len(places)} if redraws else {}),
            # By prompts, over all drawings.
            **{
                name: sum(one[name] * len(own) for one, own in zip(told, seen, strict=True))
                / len(every_BK)
                for name in told[0]
            },
        },
        prompts=len(every_BK),
        tokens=tokens,
        seconds=seconds,
    )


def answers_replace(
    answers: Answers, places: Sequence[int], others: Answers, theirs: Sequence[int]
) -> Answers:
    """The answers with those to the prompts at `places` exchanged for others' at `theirs`."""
    lists = {field.name: list(getattr(answers, field.name)) for field in fields(Answers)}
    for name, own in lists.items():
        for place, their in zip(places, theirs, strict=True):
            own[place] = getattr(others, name)[their]
    return Answers(**lists)


def _tells_nothing(raw_BK: Tensor, answers: Answers, config: OnlineSettings) -> Tensor:
    """Whether a prompt's answers have one score as losses see them, bool (B,)."""
    return equal_prompts(scores_shape(raw_BK.flatten(), answers.ended_B, config).view_as(raw_BK))


def _tokens_of(answers: Answers) -> int:
    return sum(len(answer) for group in answers.groups for answer in group.answers)
