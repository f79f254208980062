"""Choices between given answers, by how likely a policy finds each of their tokens.

A question's answers share its tokens (`shared_prefix`), so that a choice costs little more than one
answer. Nothing is drawn: a policy chooses the same every time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alignment.ml.checkers import REFERENCES_NAME, references_load
from alignment.ml.data import RankedGroup
from alignment.ml.shared_prefix import Group, answer_logprobs, pack
from annotation.splits import group_hash, split_of
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import PromptRecord, records_read

_MARK = "####"  # behind it stands the answer of a worked solution, as GSM8K has it


@torch.no_grad()
def means_of(model: Any, groups: Sequence[Group], budget_tokens: int) -> list[list[float]]:
    """The mean log-probability of a token of each group's answers, nats.

    An empty answer has no likelihood a token; it is taken for one of log-probability 0.
    """
    found: list[list[float]] = [[] for _ in groups]
    for row in pack(groups, budget_tokens):
        for index, answers in zip(row.indices, answer_logprobs(model, row), strict=True):
            found[index] = [float(one.mean()) if len(one) else 0.0 for one in answers]
    return found


def preferences_right(
    model: Any, groups: Sequence[RankedGroup], budget_tokens: int
) -> list[tuple[float, float]]:
    """(pairs whose better answer is the likelier a token, pairs) of each prompt; equals count half.

    A prompt may have several groups.
    """
    found = {one.prompt_id: (0.0, 0.0) for one in groups}
    every = means_of(model, [one.group for one in groups], budget_tokens)
    for group, means in zip(groups, every, strict=True):
        gaps = [means[better] - means[worse] for better, worse in group.pairs]
        right, pairs = found[group.prompt_id]
        right += sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps)
        found[group.prompt_id] = (right, pairs + len(gaps))
    return list(found.values())


def questions_right(model: Any, questions: Sequence[Group], budget_tokens: int) -> list[float]:
    """1 for each question whose first answer is the likeliest a token, else 0; of several that are
    equally likely each counts its part."""
    found = []
    for means in means_of(model, questions, budget_tokens):
        best = max(means)
        found.append((means[0] == best) / means.count(best))
    return found


@dataclass(frozen=True)
class Questions:
    """Questions with their answers to choose from, the right one first."""

    groups: list[Group]
    learnt_from: int  # prompts left out as of the train split
    too_long: int


def questions_lay(
    prompts: Path,
    references: Path,
    tokenizer: Any,
    *,
    options: int,
    max_tokens: int,
    at_most: int,
    shares: Sequence[float],
) -> Questions:
    """Lay multiple-choice questions out of prompts and what is right for each.

    prompts, references: folders with prompts.jsonl and references.jsonl; shares: of the split. The
    wrong answers to a question are the right ones to the questions behind it, in the order of their
    ids, the first again behind the last: numbers of the same kind, of which none is right. Of a
    worked solution ("… #### 18") its end alone is an answer. Prompts that training may have seen
    are left out.
    Raises RefusedError if fewer than two questions are left, or there are too few answers.
    """
    every = list(records_read(prompts / "prompts.jsonl", PromptRecord))
    unseen = sorted(
        (one for one in every if split_of(group_hash(one.messages), shares) != "train"),
        key=lambda one: one.prompt_id,
    )
    known = references_load(references / REFERENCES_NAME, [one.prompt_id for one in unseen])
    rights = [_answer_of(known[one.prompt_id].answer) for one in unseen]
    if len(set(rights)) < options:
        raise RefusedError(
            f"{len(unseen)} of {len(every)} questions are of an unseen split, with "
            f"{len(set(rights))} different answers: a choice between {options} wants more"
        )
    groups: list[Group] = []
    too_long = 0
    for number, prompt in enumerate(unseen):
        others = dict.fromkeys([*rights[number + 1 :], *rights[:number]])
        others.pop(rights[number], None)
        offered = [rights[number], *list(others)[: options - 1]]
        group = Group(
            prompt_render(tokenizer, prompt.messages),
            [answer_encode(tokenizer, text, "stop") for text in offered],
        )
        if group.longest > max_tokens:
            too_long += 1
        else:
            groups.append(group)
    if len(groups) < 2:
        raise RefusedError(
            f"{len(groups)} of {len(unseen)} unseen questions fit into {max_tokens} tokens: too few"
        )
    return Questions(groups[:at_most], len(every) - len(unseen), too_long)


def _answer_of(reference: str) -> str:
    """What is chosen: the answer itself, or the marked end of a worked solution."""
    _, mark, end = reference.rpartition(_MARK)
    return f"{mark} {end.strip()}" if mark else reference.strip()
