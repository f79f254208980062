"""Verifiable rewards: functions that can tell whether an answer is right.

A checker gets an answer's text and what is known to be right for its prompt, and returns a reward,
1 for right and 0 for wrong, or between. It is pure: the same text has the same reward whenever it
is asked. Programs take one by its name (`CHECKERS`), never as free text or code. What is right
comes in `references.jsonl`, a line a prompt.

Standard library only.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from modelhub.ml.configs import RefusedError
from modelhub.ml.records import RecordError, records_read

REFERENCES_NAME = "references.jsonl"

Checker = Callable[[str, str], float]  # (answer's text, what is right) → reward


@dataclass(frozen=True, kw_only=True)
class ReferenceRecord:
    """What is known of a prompt: a line of references.jsonl."""

    prompt_id: str
    answer: str = ""  # what a checker compares with
    risky: bool = False  # asks for something unsafe: its safety reward counts (Llama 2)


_NUMBER = re.compile(r"[-−]?\$?\s?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_MARKED = re.compile(r"####\s*([^\n]*)")


def final_number(text: str) -> Decimal | None:
    """The number an answer ends on, None if it has none.

    Behind the last "####", as GSM8K's answers mark it (Cobbe et al. 2021, arXiv:2110.14168); where
    a model did not mark it, the last number of the text. Thousands' commas, a dollar sign, a final
    stop and trailing zeros make no difference.
    """
    marked = _MARKED.findall(text)
    found = _NUMBER.findall(marked[-1] if marked else text)
    if not found:
        return None
    written = found[0] if marked else found[-1]
    plain = re.sub(r"[\s$,]", "", written).replace("−", "-")
    try:
        return Decimal(plain)
    except InvalidOperation:
        return None


def gsm8k(text: str, right: str) -> float:
    """1 if both end on the same number, else 0; an answer without a number is wrong.

    Raises ValueError if what is right has no number.
    """
    wanted = final_number(right)
    if wanted is None:
        raise ValueError(f"no number in the reference {right!r:.80}")
    return float(final_number(text) == wanted)


def exact(text: str, right: str) -> float:
    """1 if the answer is what is right, white space at the ends and in between put aside."""
    return float(" ".join(text.split()) == " ".join(right.split()))


CHECKERS: dict[str, Checker] = {"exact": exact, "gsm8k": gsm8k}


def checker_get(name: str) -> Checker:
    """The checker of that name. Raises RefusedError naming those there are."""
    if name not in CHECKERS:
        raise RefusedError(f"checker: wanted {' or '.join(sorted(CHECKERS))}, got {name!r}")
    return CHECKERS[name]


def references_load(path: Path, prompt_ids: Sequence[str]) -> dict[str, ReferenceRecord]:
    """The references of these prompts, by prompt id; those of others are passed over.

    Raises RecordError for a prompt that is there twice, RefusedError naming prompts without one.
    """
    wanted, found = set(prompt_ids), {}
    for number, record in enumerate(records_read(path, ReferenceRecord), start=1):
        if record.prompt_id in found:
            raise RecordError(path.name, number, "prompt_id", f"{record.prompt_id} is there twice")
        if record.prompt_id in wanted:
            found[record.prompt_id] = record
    missing = sorted(wanted - found.keys())
    if missing:
        named = " ".join(missing[:10])
        raise RefusedError(f"{path.name}: no reference for {len(missing)} prompts, such as {named}")
    return found


def references_check(references: dict[str, ReferenceRecord], checker: Checker) -> None:
    """Try each reference on itself before anything is trained on it.

    Raises RefusedError naming the first prompt whose own reference is not right: then no answer
    could be.
    """
    for prompt_id, reference in references.items():
        try:
            right = checker(reference.answer, reference.answer)
        except ValueError as error:
            raise RefusedError(f"prompt {prompt_id}: {error}") from error
        if right != 1.0:
            raise RefusedError(f"prompt {prompt_id}: its own reference is not counted as right")
