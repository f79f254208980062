"""Dialogues: the annotator writes, two live models answer, one answer is chosen and goes on.

Each turn's answers are candidates of a prompt of their own: the talk up to them. So a turn has the
split of what it opens with, its answers can be traced like any others, and nothing a page claims
about them has to be believed: a submission names candidates that this assignment was given.
"""

import hashlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext

from annotation.models import (
    Assignment,
    Candidate,
    Degree,
    Dialogue,
    DialogueTurn,
    Prompt,
    Submission,
    Task,
)
from annotation.services.submissions import Asked, JudgementKind, submission_settle
from annotation.services.writings import writing_check
from annotation.splits import content_hash, group_hash, split_of
from annotation.task_forms import DialogueForm, Side, form_of
from modelhub.endpoints import EndpointFailedError, answer_stream
from modelhub.errors import ApplicationError, ConflictError
from modelhub.models import Endpoint, ModelVersion

_TRIES_A_TURN = 4  # a message may be put otherwise, so many times on average
_CHOICES = [degree for degree in Degree.values if degree != Degree.TIE]


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A part of an answer: which of the two, in the order they are shown, and its text."""

    candidate: int
    text: str


def dialogue_submit(
    *,
    assignment: Assignment,
    turns: Sequence[Mapping[str, Any]],
    rationale: str = "",
    active_s: float = 0.0,
) -> Submission:
    """Store a dialogue. See submission_settle.

    turns: [{"user": what was written, "candidates": the uids of its two answers, "chosen": one of
    them, "degree": 1 to 4}, …], each going on from the one chosen before.
    """
    return submission_settle(
        DIALOGUE,
        assignment=assignment,
        judgement={"turns": turns},
        rationale=rationale,
        active_s=active_s,
    ).submission


def dialogue_answers(
    *, assignment: Assignment, user: str, after: str | None, turn: int
) -> Iterator[Delta | DialogueTurn]:
    """Two answers to a message, part by part as they are written; the kept turn comes last.

    after: the uid of the answer that was chosen in the turn before; None opens the talk.
    turn: how many turns there have been.
    The same message in the same place is answered once: asked again, its turn comes at once. The
    answers are kept only when both are whole. What is wrong is refused here, before the first part:
    raises ApplicationError. Raises EndpointFailedError while it goes on.
    """
    form = form_of(assignment.task.project, Task.Kind.DIALOGUE)
    if assignment.task.kind != Task.Kind.DIALOGUE or not isinstance(form, DialogueForm):
        raise ApplicationError(gettext("This task is no dialogue."))
    if assignment.state not in (Assignment.State.LIVE, Assignment.State.EXPIRED):
        raise ConflictError(
            gettext("This task is %(state)s.") % {"state": assignment.get_state_display()}
        )
    if not form.sides:
        raise ApplicationError(
            gettext("The manager has not chosen the models of this project yet.")
        )
    if not 0 <= turn < form.max_turns:
        raise ApplicationError(
            gettext("This project's dialogues have at most %(max_turns)s turns.")
            % {"max_turns": form.max_turns},
            {"field": "turns"},
        )
    if (after is None) != (turn == 0):
        raise ApplicationError(
            gettext("A turn goes on from the answer chosen before it."), {"field": "after"}
        )
    messages = [
        *_talk_before(assignment, after),
        {"role": "user", "content": writing_check(user, "user")},
    ]
    had = _turns(assignment)
    for one in had:
        if one.prompt.messages == messages:
            return iter([one])
    if len(had) >= _TRIES_A_TURN * form.max_turns:
        raise ApplicationError(
            gettext("So many messages were put that this task gives no more answers.")
        )
    sides = _in_shown_order(form.sides, assignment, messages)
    endpoints = {one.name: one for one in Endpoint.objects.select_related("version")}
    for side in sides:
        if side.endpoint not in endpoints:
            raise ApplicationError(gettext("A model of this project is gone; tell its manager."))
    return _answers(
        assignment, messages, [(endpoints[side.endpoint], side) for side in sides], form.max_tokens
    )


def _answers(
    assignment: Assignment,
    messages: list[dict[str, str]],
    sides: Sequence[tuple[Endpoint, Side]],
    max_tokens: int,
) -> Iterator[Delta | DialogueTurn]:
    """Ask both at once, each in a thread that knows no database."""
    parts: queue.Queue[Delta | int | EndpointFailedError] = queue.Queue()
    gone = threading.Event()

    def ask(place: int, endpoint: Endpoint, side: Side) -> None:
        try:
            stream = answer_stream(
                endpoint=endpoint,
                messages=messages,
                temperature=side.temperature,
                max_tokens=max_tokens,
            )
            for text in stream:
                if gone.is_set():
                    return
                parts.put(Delta(candidate=place, text=text))
            parts.put(place)
        except EndpointFailedError as error:
            parts.put(error)
        except Exception as error:  # a thread's error is nobody's unless it is handed on
            parts.put(EndpointFailedError(f"{endpoint} failed: {type(error).__name__}"))

    for place, (endpoint, side) in enumerate(sides):
        threading.Thread(target=ask, args=(place, endpoint, side), daemon=True).start()
    texts, writing = ["", ""], {0, 1}
    try:
        while writing:
            part = parts.get()
            if isinstance(part, EndpointFailedError):
                raise part
            if isinstance(part, Delta):
                texts[part.candidate] += part.text
                yield part
            else:
                writing.remove(part)
    finally:
        gone.set()  # the page was closed, or one side failed: ask for no more
    yield _turn_keep(assignment, messages, texts, sides, max_tokens)


@transaction.atomic
def _turn_keep(
    assignment: Assignment,
    messages: list[dict[str, str]],
    texts: Sequence[str],
    sides: Sequence[tuple[Endpoint, Side]],
    max_tokens: int,
) -> DialogueTurn:
    Assignment.objects.select_for_update(no_key=True).get(pk=assignment.pk)  # two pages at once
    prompt = _prompt_ensure(assignment.task, messages)
    same = DialogueTurn.objects.filter(assignment=assignment, prompt=prompt)
    kept = same.select_related("first", "second", "prompt").first()
    if kept is not None:
        return kept
    versions = {
        one.uid: one
        for one in ModelVersion.objects.filter(uid__in=[side.version for _, side in sides])
    }
    first, second = (
        Candidate.objects.create(
            prompt=prompt,
            text=text,
            version=versions.get(side.version) or endpoint.version,
            decoding={
                "engine": "endpoint",
                "endpoint": endpoint.name,
                "model": endpoint.served_model,
                "temperature": side.temperature,
                "max_tokens": max_tokens,
            },
        )
        for text, (endpoint, side) in zip(texts, sides, strict=True)
    )
    return DialogueTurn.objects.create(
        assignment=assignment, prompt=prompt, first=first, second=second
    )


def _prompt_ensure(task: Task, messages: list[dict[str, str]]) -> Prompt:
    """The prompt that is this talk so far; a new one stays on the side of what it opens with."""
    group = group_hash(messages)
    mine = Prompt.objects.filter(project=task.project_id)
    side = mine.filter(group_hash=group).values_list("split", flat=True).first()
    prompt, _ = mine.get_or_create(
        content_hash=content_hash(messages),
        defaults={
            "project_id": task.project_id,
            "messages": messages,
            "group_hash": group,
            "split": side or split_of(group, settings.PROMPT_SPLIT_SHARES),
            "tags": task.prompt.tags,
            "source": Prompt.OF_DIALOGUE,
        },
    )
    return prompt


def _in_shown_order(
    sides: Sequence[Side], assignment: Assignment, messages: list[dict[str, str]]
) -> Sequence[Side]:
    """The two sides, changed about by the assignment's seed: nobody learns which is which."""
    seed = f"{assignment.shuffle_seed}:{content_hash(messages)}"
    swap = hashlib.sha256(seed.encode()).digest()[0] & 1
    return sides[::-1] if swap else sides


def _talk_before(assignment: Assignment, after: str | None) -> list[dict[str, str]]:
    """What was said up to and with an answer. The task's prompt is what the talk is to be about:
    of it, the models are given the system messages alone."""
    if after is None:
        return [one for one in assignment.task.prompt.messages if one["role"] == "system"]
    for turn in _turns(assignment):
        for candidate in (turn.first, turn.second):
            if candidate.uid == after:
                answer = {"role": "assistant", "content": candidate.text}
                return [*turn.prompt.messages, answer]
    raise ApplicationError(
        gettext("%(after)s is no answer of this dialogue.") % {"after": after}, {"field": "after"}
    )


def _turns(assignment: Assignment) -> list[DialogueTurn]:
    return list(
        DialogueTurn.objects.filter(assignment=assignment)
        .select_related("prompt", "first", "second")
        .order_by("pk")
    )


def _check(asked: Asked[DialogueForm], judgement: dict[str, Any]) -> dict[str, Any]:
    turns = judgement["turns"]
    if not 1 <= len(turns) <= asked.form.max_turns:
        raise ApplicationError(
            gettext("A dialogue has 1 to %(max_turns)s turns; this has %(number)s.")
            % {"max_turns": asked.form.max_turns, "number": len(turns)},
            {"field": "turns"},
        )
    given = {frozenset((one.first.uid, one.second.uid)): one for one in _turns(asked.assignment)}
    messages = _talk_before(asked.assignment, None)
    checked = []
    for place, turn in enumerate(turns):
        where = f"turns[{place}]"
        messages.append({"role": "user", "content": turn["user"]})
        answered = given.get(frozenset(turn["candidates"]))
        if answered is None or answered.prompt.messages != messages:
            raise ApplicationError(
                gettext("These are not the answers that this message was given here."),
                {"field": f"{where}.candidates"},
            )
        if turn["chosen"] not in turn["candidates"]:
            raise ApplicationError(gettext("Wanted one of the two."), {"field": f"{where}.chosen"})
        if turn["degree"] not in _CHOICES:
            raise ApplicationError(
                gettext("degree is 1 to 4; got %(degree)s.") % {"degree": turn["degree"]},
                {"field": f"{where}.degree"},
            )
        chosen = answered.first if answered.first.uid == turn["chosen"] else answered.second
        messages.append({"role": "assistant", "content": chosen.text})
        checked.append(
            {
                "user": turn["user"],
                "candidates": [answered.first.uid, answered.second.uid],
                "chosen": chosen.uid,
                "degree": int(turn["degree"]),
            }
        )
    return {"turns": checked}


def _keep(submission: Submission, judgement: dict[str, Any]) -> None:
    Dialogue.objects.create(submission=submission, turns=judgement["turns"])


DIALOGUE: JudgementKind[DialogueForm] = JudgementKind(
    kind=Task.Kind.DIALOGUE, check=_check, keep=_keep, rows=(Dialogue,)
)
