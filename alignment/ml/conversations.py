"""Conversations to imitate: from the files people and programs leave to tokens with a loss mask.

What is read:

    demonstrations.jsonl   what people wrote, with their follow-up turns (a frozen snapshot); what
                           rejection sampling kept; chats, {"messages": [{"role", "content"}, …]},
                           or ShareGPT's, {"conversations": [{"from", "value"}, …]}
    rankings.jsonl         dialogues: each turn's chosen answer, the talk as it went on

Loss is on what the assistant says, never on what it is told. Of an assistant's turns those count
that `loss_turns` names:

    written   the demonstration itself; turns in front of it are its context (the default)
    every     those of the context too
    last      the last one alone

A chat or ShareGPT row is a demonstration from its first answer on. Its split is a function of its
first question, as it is for prompts on the site; what rejection sampling kept is for training.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.ml.data import DemonstrationRecord
from alignment.ml.shared_prefix import Group
from annotation.records import (
    DEMONSTRATIONS_NAME,
    RANKINGS_NAME,
    RankedCandidate,
    RankingRecord,
)
from annotation.records import DemonstrationRecord as WrittenRecord
from annotation.splits import SHARES, SIDES, group_hash, split_of
from modelhub.ml.chat import (
    ChatTemplateError,
    answer_encode,
    conversation_lay,
    end_of_turn_id,
    prompt_render,
)
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import RecordError, lines_read, record_load

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A talk that ends with the assistant's words."""

    id: str  # its prompt's; names it where it is refused
    messages: list[dict[str, str]]
    written_from: int  # place of the first turn to imitate; what is before it is context
    finish_reason: str = "stop"  # "length": the last turn was cut off
    split: str = "train"
    weight: float = 1.0  # as a snapshot has it; fine-tuning takes all alike, and says so


def conversations_read(folder: Path, shares: Sequence[float] = SHARES) -> Iterator[Conversation]:
    """The conversations of an artifact, in the order of its rows.

    shares: by which a row's side is told that does not name its own (a run's `split_shares`).
    Rows without an answer to a question are yielded with no message, for the caller to count.
    Raises RecordError naming line and field, RefusedError for a folder that holds neither file.
    """
    path = folder / DEMONSTRATIONS_NAME
    if path.exists():
        for line, value in lines_read(path):
            yield _row_read(value, path.name, line, shares)
    elif (folder / RANKINGS_NAME).exists():
        yield from _dialogues_read(folder / RANKINGS_NAME)
    else:
        raise RefusedError(
            f"{folder.name} holds neither {DEMONSTRATIONS_NAME} nor {RANKINGS_NAME}: nothing to "
            "imitate"
        )


def _row_read(value: Any, file: str, line: int, shares: Sequence[float]) -> Conversation:
    if not isinstance(value, dict):
        raise RecordError(file, line, "", f"expected an object, got {type(value).__name__}")
    if "candidate" in value:
        return _written_read(record_load(WrittenRecord, value, file=file, line=line), file, line)
    if "text" in value:
        kept = record_load(DemonstrationRecord, value, file=file, line=line)
        return Conversation(
            id=kept.prompt_id,
            messages=[*kept.messages, _said("assistant", kept.text)],
            written_from=len(kept.messages),
            finish_reason=kept.finish_reason,
        )
    return _chat_read(value, file, line, shares)


def _written_read(record: WrittenRecord, file: str, line: int) -> Conversation:
    """An annotator's demonstration: the answer, and the turns that follow."""
    answer = record_load(RankedCandidate, record.candidate, file=file, line=line)
    messages = [*record.messages, _said("assistant", answer.text)]
    for turn in record.turns:
        if turn.keys() != {"user", "text"}:
            raise RecordError(file, line, "turns", f"wanted user and text, got {sorted(turn)}")
        messages += [_said("user", turn["user"]), _said("assistant", turn["text"])]
    return Conversation(
        id=record.prompt_id,
        messages=messages,
        written_from=len(record.messages),
        finish_reason="stop" if record.turns else answer.finish_reason,
        split=record.split,
        weight=record.weight,
    )


def _chat_read(row: dict[str, Any], file: str, line: int, shares: Sequence[float]) -> Conversation:
    """A row of turns, ours or ShareGPT's. Questions behind the last answer teach nothing."""
    names = ("conversations", "from", "value")
    if "messages" in row:
        names = ("messages", "role", "content")
    field, role, content = names
    turns = row.get(field)
    if not isinstance(turns, list):
        raise RecordError(file, line, "", "wanted text, candidate, messages or conversations")
    messages = []
    for place, turn in enumerate(turns):
        where = f"{field}[{place}]"
        if not isinstance(turn, dict) or not isinstance(turn.get(content), str):
            raise RecordError(file, line, where, f"wanted {role} and {content}")
        if turn.get(role) not in _ROLES:
            raise RecordError(file, line, where, f"unknown role {turn.get(role)!r:.40}")
        messages.append(_said(_ROLES[turn[role]], turn[content]))
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    roles = [message["role"] for message in messages]
    name = str(row.get("prompt_id") or row.get("id") or f"{file}:{line}")
    if "user" not in roles or roles.index("user") > roles.index("assistant"):
        return Conversation(id=name, messages=[], written_from=0)
    split = row.get("split", split_of(group_hash(messages), shares))
    if split not in SIDES:
        raise RecordError(file, line, "split", f"wanted one of {', '.join(SIDES)}, got {split!r}")
    return Conversation(
        id=name, messages=messages, written_from=roles.index("assistant"), split=split
    )


def _dialogues_read(path: Path) -> Iterator[Conversation]:
    """Dialogues: the last turn's messages hold all that was chosen before, so it is the talk."""
    turns: dict[str, dict[int, tuple[int, RankingRecord]]] = {}
    for line, value in lines_read(path):
        record = record_load(RankingRecord, value, file=path.name, line=line)
        if record.kind != "dialogue":
            raise RecordError(
                path.name, line, "kind", f"a {record.kind} compares answers; dialogues are imitated"
            )
        talk, _, number = record.id.rpartition("-")
        turns.setdefault(talk, {})[int(number)] = (line, record)
    for talk, own in turns.items():
        (_, first), (line, last) = own[min(own)], own[max(own)]
        answers = [
            record_load(RankedCandidate, one, file=path.name, line=line) for one in last.candidates
        ]
        chosen = next(one for one in answers if one.id == last.tiers[0][0])
        yield Conversation(
            id=talk,
            messages=[*last.messages, _said("assistant", chosen.text)],
            written_from=len(first.messages),
            finish_reason=chosen.finish_reason,
            split=last.split,
            weight=last.weight,
        )


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


# ── in tokens ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Lesson:
    """Conversations that begin alike, their beginning once, and what is learnt of each.

    `group`: tokens up to the first turn that is learnt, and what follows in each conversation,
    later questions included. `taught`: for each of its answers, whether each token has a loss.
    """

    group: Group
    taught: list[list[bool]]

    @property
    def taught_tokens(self) -> int:
        return sum(map(sum, self.taught))


@dataclass(frozen=True)
class Lessons:
    """What can be learnt from, and the ids of what cannot, one for each conversation left out."""

    lessons: list[Lesson]
    too_long: list[str]
    empty: list[str]  # no word in the turns to learn
    unanswered: list[str]  # no answer to a question

    @property
    def conversations(self) -> int:
        return sum(len(lesson.taught) for lesson in self.lessons)


def lessons_make(
    conversations: Iterable[Conversation],
    tokenizer: Any,
    *,
    max_tokens: int,
    loss_turns: str = "written",
    end_of_session: str = "",
) -> Lessons:
    """Lay conversations out as tokens with their loss mask, those with one beginning together.

    A conversation longer than `max_tokens`, or in whose turns to learn there is no word, is left
    out whole and listed: of an empty answer that ended the end alone would be learnt. Lessons come
    in the order of their ids. end_of_session: a token of the vocabulary that is written, and
    learnt, behind a conversation that ended; empty: none.

    Raises RefusedError without conversations, if one prompt id stands for two conversations, or
    for a token that cannot end a session; ChatTemplateError naming the turn whose tokens cannot be
    told.
    """
    ending = _session_end_id(tokenizer, end_of_session)
    by_id: dict[str, list[Conversation]] = {}
    for conversation in conversations:
        by_id.setdefault(conversation.id, []).append(conversation)
    if not by_id:
        raise RefusedError("there are no demonstrations")
    made = Lessons([], [], [], [])
    for name, own in sorted(by_id.items()):
        answered = [one for one in own if one.messages]
        made.unanswered.extend([name] * (len(own) - len(answered)))
        contexts = [one.messages[: one.written_from] for one in answered]
        if any(context != contexts[0] for context in contexts):
            raise RefusedError(f"prompt {name} stands for different conversations")
        for beginning, alike in _by_beginning(answered, loss_turns):
            prompt_T = prompt_render(tokenizer, beginning)
            answers: list[list[int]] = []
            taught: list[list[bool]] = []
            for one in alike:
                answer_T, taught_T = _answer_lay(one, tokenizer, loss_turns, ending)
                said = [one.messages[place]["content"] for place in _turns_learnt(one, loss_turns)]
                if len(prompt_T) + len(answer_T) > max_tokens:
                    made.too_long.append(name)
                elif not any(text.strip() for text in said):
                    made.empty.append(name)
                else:
                    answers.append(answer_T)
                    taught.append(taught_T)
            if answers:
                made.lessons.append(Lesson(Group(prompt_T, answers), taught))
    return made


def _by_beginning(
    conversations: Sequence[Conversation], loss_turns: str
) -> list[tuple[list[dict[str, str]], list[Conversation]]]:
    """Conversations by what comes before the first turn that is learnt, in their order."""
    found: list[tuple[list[dict[str, str]], list[Conversation]]] = []
    for one in conversations:
        beginning = one.messages[: _turns_learnt(one, loss_turns)[0]]
        alike = next((own for begun, own in found if begun == beginning), None)
        if alike is None:
            found.append((beginning, alike := []))
        alike.append(one)
    return found


def _turns_learnt(conversation: Conversation, loss_turns: str) -> list[int]:
    """Places of the assistant's turns that have a loss; the last turn always has."""
    last = len(conversation.messages) - 1
    first = {"written": conversation.written_from, "every": 0, "last": last}[loss_turns]
    places = range(first, last + 1)
    return [place for place in places if conversation.messages[place]["role"] == "assistant"]


def _answer_lay(
    conversation: Conversation, tokenizer: Any, loss_turns: str, ending: int | None
) -> tuple[list[int], list[bool]]:
    """A conversation's tokens behind its beginning, and which of them have a loss."""
    turns = _turns_learnt(conversation, loss_turns)
    last = conversation.messages[-1]["content"]
    if len(turns) == 1:
        answer_T = answer_encode(tokenizer, last, conversation.finish_reason)
        taught_T = [True] * len(answer_T)
    else:
        try:
            laid = conversation_lay(
                tokenizer,
                conversation.messages,
                turns,
                finish_reason=conversation.finish_reason,
            )
        except ChatTemplateError as error:
            raise ChatTemplateError(f"conversation {conversation.id}, {error}") from error
        start = laid.turns[0][0]
        answer_T = laid.tokens_T[start:]
        taught_T = [False] * len(answer_T)
        for first, stop in laid.turns:
            taught_T[first - start : stop - start] = [True] * (stop - first)
    if ending is not None and conversation.finish_reason == "stop":
        answer_T, taught_T = [*answer_T, ending], [*taught_T, True]
    return answer_T, taught_T


def _session_end_id(tokenizer: Any, token: str) -> int | None:
    if not token:
        return None
    found = tokenizer.get_vocab().get(token)
    if found is None:
        raise RefusedError(f"end_of_session {token!r} is not a token of the model's vocabulary")
    if found == end_of_turn_id(tokenizer):
        raise RefusedError(
            f"end_of_session {token!r} is the token that ends a turn already: a session's end "
            "needs one of its own"
        )
    return int(found)


def taught_places(lessons: Sequence[Lesson]) -> list[bool]:
    """Whether each answer token of a row has a loss, in the order of `Row.answer_places`."""
    return [one for lesson in lessons for taught in lesson.taught for one in taught]
