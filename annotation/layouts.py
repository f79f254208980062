"""The rows of a snapshot → the rows that trainers read. Plain Python, but for
words marked to be translated where they are shown.

TRL's dataset formats, conversational (lists of messages) and standard (texts): preference from what
compares answers, unpaired preference from ratings, prompt-completion from demonstrations; each with
where it came from in further columns, which trainers pass over. And the rows as they were frozen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_noop as _

from annotation.pairs import ranking_pairs
from annotation.records import DemonstrationRecord, RankingRecord, RatingRecord, source_told
from modelhub.ml.records import record_dump

COMPARING = ("ranking", "pair", "edit", "dialogue")  # kinds whose rows are RankingRecords
WITH_DEGREE = ("pair", "dialogue")
# Touvron et al. 2023 (arXiv:2307.09288), table 27, the small margin: by how much the reward of the
# better answer is to exceed the other's. `degree` is beside it, for any other scale.
MARGINS = {1: 0.0, 2: 1 / 3, 3: 2 / 3, 4: 1.0}
# Of 1 to 7: an answer is good, or bad, for a trainer that knows those two. 4 is neither.
GOOD_FROM, BAD_TO = 5, 3

Messages = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a snapshot's row becomes rows, and of which kinds of task."""

    name: str
    about: str
    kinds: tuple[str, ...]
    rows: Callable[[Any], Iterator[dict[str, Any]]]


def _origin(record: RankingRecord | RatingRecord | DemonstrationRecord) -> dict[str, Any]:
    """The columns in which every exported row tells where it came from."""
    return {
        "split": record.split,
        "tags": record.tags,
        "batch": record.batch,
        "annotator": record.annotator,
        "is_simulated": record.is_simulated,
        "source": source_told(record.source, record.is_simulated),
        "weight": record.weight,
    }


def _answer(text: str) -> Messages:
    return [{"role": "assistant", "content": text}]


def _pairs_conversational(record: RankingRecord) -> Iterator[dict[str, Any]]:
    for row, chosen, rejected in _pairs(record):
        yield {
            "prompt": record.messages,
            "chosen": _answer(chosen),
            "rejected": _answer(rejected),
            **row,
        }


def _pairs_text(record: RankingRecord) -> Iterator[dict[str, Any]]:
    prompt = transcript(record.messages)
    for row, chosen, rejected in _pairs(record):
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected, **row}


def _pairs(record: RankingRecord) -> Iterator[tuple[dict[str, Any], str, str]]:
    """The untied pairs of a ranking, with their texts."""
    candidates = {one["id"]: one for one in record.candidates}
    pairs = list(ranking_pairs(record.tiers, unacceptable=record.unacceptable))
    for pair in pairs:
        chosen, rejected = candidates[pair.better], candidates[pair.worse]
        row = {
            "ranking_id": record.id,
            "prompt_id": record.prompt_id,
            "chosen_id": pair.better,
            "rejected_id": pair.worse,
            "chosen_model_version": chosen["model_version"],
            "rejected_model_version": rejected["model_version"],
            "tiers_apart": pair.tiers_apart,
            "both_unacceptable": pair.both_unacceptable,
            "pairs_of_ranking": len(pairs),
            **_origin(record),
            # Where nobody was asked for a degree there is no such column: a trainer that finds
            # `margin` wants a number in it.
            **(_degree(record) if record.kind in WITH_DEGREE else {}),
            **(_safety(record, pair.better, pair.worse) if record.kind == "pair" else {}),
        }
        yield row, chosen["text"], rejected["text"]


def _degree(record: RankingRecord) -> dict[str, Any]:
    degree = record.degree or 1
    return {"degree": degree, "margin": MARGINS[degree]}


def _safety(record: RankingRecord, chosen: str, rejected: str) -> dict[str, Any]:
    unsafe = record.unsafe
    return {
        "chosen_unsafe": None if unsafe is None else chosen in unsafe,
        "rejected_unsafe": None if unsafe is None else rejected in unsafe,
    }


def _unpaired_conversational(record: RatingRecord) -> Iterator[dict[str, Any]]:
    for row in _unpaired(record):
        yield {"prompt": record.messages, "completion": _answer(record.candidate["text"]), **row}


def _unpaired_text(record: RatingRecord) -> Iterator[dict[str, Any]]:
    prompt = transcript(record.messages)
    for row in _unpaired(record):
        yield {"prompt": prompt, "completion": record.candidate["text"], **row}


def _unpaired(record: RatingRecord) -> Iterator[dict[str, Any]]:
    """The row of a rating that says good or bad; none for one between."""
    if BAD_TO < record.overall < GOOD_FROM:
        return
    yield {
        "label": record.overall >= GOOD_FROM,
        "rating_id": record.rating_id,
        "prompt_id": record.prompt_id,
        "candidate_id": record.candidate["id"],
        "model_version": record.candidate["model_version"],
        "overall": record.overall,
        "flags": record.flags,
        **_origin(record),
    }


def _completions_conversational(record: DemonstrationRecord) -> Iterator[dict[str, Any]]:
    for row, messages, text in _completions(record):
        yield {"prompt": messages, "completion": _answer(text), **row}


def _completions_text(record: DemonstrationRecord) -> Iterator[dict[str, Any]]:
    for row, messages, text in _completions(record):
        yield {"prompt": transcript(messages), "completion": text, **row}


def _completions(record: DemonstrationRecord) -> Iterator[tuple[dict[str, Any], Messages, str]]:
    """Each answer of a demonstration, with the talk before it."""
    messages, text = list(record.messages), str(record.candidate["text"])
    for number in range(1 + len(record.turns)):
        if number:
            turn = record.turns[number - 1]
            messages = [*messages, *_answer(text), {"role": "user", "content": turn["user"]}]
            text = turn["text"]
        row = {
            "demonstration_id": record.id,
            "prompt_id": record.prompt_id,
            "candidate_id": None if number else record.candidate["id"],
            "turn": number,
            "started_from": None if number else record.started_from,
            **_origin(record),
        }
        yield row, messages, text


def _as_frozen(record: Any) -> Iterator[dict[str, Any]]:
    yield record_dump(record)


def transcript(messages: list[dict[str, str]]) -> str:
    """A conversation as one text, for trainers without a chat template.

    A lone user turn is its own text; anything else is laid as Anthropic's HH-RLHF lays dialogues,
    "\\n\\nHuman: …\\n\\nAssistant:", with a system message before it.
    """
    if [one["role"] for one in messages] == ["user"]:
        return messages[0]["content"]
    names = {"system": "", "user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
    turns = [names[one["role"]] + one["content"] for one in messages]
    return "".join(turns) + "\n\nAssistant:"


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            name="trl",
            about=_("TRL preference, conversational: one row for each untied pair of answers."),
            kinds=COMPARING,
            rows=_pairs_conversational,
        ),
        Layout(
            name="trl-text",
            about=_("TRL preference, standard: one row for each untied pair of answers, as text."),
            kinds=COMPARING,
            rows=_pairs_text,
        ),
        Layout(
            name="rankings",
            about=_("Rankings as they were frozen: all answers to a prompt, in tiers, best first."),
            kinds=COMPARING,
            rows=_as_frozen,
        ),
        Layout(
            name="trl-unpaired",
            about=_(
                "TRL unpaired preference, conversational: one row for each answer rated 5 or more "
                "(good) or 3 or less (bad)."
            ),
            kinds=("rating",),
            rows=_unpaired_conversational,
        ),
        Layout(
            name="trl-unpaired-text",
            about=_("TRL unpaired preference, standard: the same, as text."),
            kinds=("rating",),
            rows=_unpaired_text,
        ),
        Layout(
            name="ratings",
            about=_("Ratings as they were frozen: one row for each answer."),
            kinds=("rating",),
            rows=_as_frozen,
        ),
        Layout(
            name="trl-completion",
            about=_("TRL prompt-completion, conversational: one row for each answer written."),
            kinds=("demonstration",),
            rows=_completions_conversational,
        ),
        Layout(
            name="trl-completion-text",
            about=_("TRL prompt-completion, standard: one row for each answer written, as text."),
            kinds=("demonstration",),
            rows=_completions_text,
        ),
        Layout(
            name="demonstrations",
            about=_("Demonstrations as they were frozen: one row for each submission."),
            kinds=("demonstration",),
            rows=_as_frozen,
        ),
    )
}


def layouts_of(kind: str) -> list[Layout]:
    """The layouts of a kind of task; the first is the one for whoever names none."""
    return [layout for layout in LAYOUTS.values() if kind in layout.kinds]
