"""Prompts with the answers that compete to be learnt from: a run's own and earlier bests."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from alignment.ml.data import DemonstrationRecord
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import CandidateRecord, PromptRecord

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
