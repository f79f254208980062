"""What the annotator's page is given to show."""

import json
from collections.abc import Container, Mapping
from typing import Any

from django.utils.translation import gettext

from annotation.identity import identity_mask
from annotation.models import (
    Assignment,
    Candidate,
    DialogueTurn,
    Guideline,
    Membership,
    Prompt,
    Question,
    Rating,
    Review,
    Submission,
    Task,
    TaskCandidate,
)
from annotation.selectors.people import desk_counts
from annotation.shown_order import order_shuffled
from annotation.task_forms import DOCUMENT_QUESTION, form_of
from modelhub.prepared import Prepared
from modelhub.rendering import markdown_render, words_count

# Tags of prompts whose text is covered until somebody chooses to read it.
SENSITIVE_TAGS = frozenset({"sensitive", "risky", "unsafe", "violent", "sexual", "self-harm"})


def assignment_payload(*, assignment: Assignment) -> dict[str, Any]:
    """All that the annotator's page shows of an assignment, as JSON.

    Five queries, six where answers are compared, and one more where something was begun before.

    Blind: answers come in the shown order, under letters, without the model or the sampling that
    made them; where one names itself the name is hidden (annotation.identity); nothing says that a
    task's judgement is known, or was given before. HTML is rendered and safe
    (modelhub.rendering). A dialogue brings the answers it was given so far; one query more.
    """
    task, membership = assignment.task, assignment.annotator
    candidates = {
        uid: Candidate(uid=uid, text=text, token_count=token_count)
        for uid, text, token_count in _ANSWERS.rows(task=task.pk)
    }
    guidelines = _GUIDELINE.rows(guideline=assignment.guideline_id or 0)
    counts = desk_counts(membership=membership)
    payload = {
        "assignment": {
            "uid": assignment.uid,
            "state": assignment.state,
            "lease_until": assignment.lease_until.isoformat(),
            "draft": assignment.draft,
            "draft_sequence": assignment.draft_sequence,
            "active_s": assignment.active_s,
        },
        "task": {
            "uid": task.uid,
            "kind": task.kind,
            "is_sensitive": not SENSITIVE_TAGS.isdisjoint(task.prompt.tags),
        },
        "form": form_of(membership.project, task.kind).shown(),
        "prompt": {
            "messages": [
                {
                    "role": str(message["role"]),
                    "text": str(message["content"]),
                    "html": markdown_render(str(message["content"])),
                }
                for message in messages_shown(task.prompt)
            ]
        },
        "candidates": [
            {"letter": letter_of(place), **candidate_payload(candidates[uid])}
            for place, uid in enumerate(order_shuffled(candidates, seed=assignment.shuffle_seed))
        ],
        "guideline": next(
            (
                {
                    "number": number,
                    "html": markdown_render(text),
                    "read": membership.guideline_read,
                }
                for number, text in guidelines
            ),
            None,
        ),
        "progress": {name: counts[name] for name in ("submitted_today", "open")},
        "notifications": counts["unread"],
        "question": next(
            (
                {"text": text, "answer": answer}
                for text, answer in _ANSWERED.rows(assignment=assignment.pk)
            ),
            None,
        ),
        "sent_back": _sent_back(assignment),
    }
    if task.kind in (Task.Kind.RANKING, Task.Kind.PAIR):
        payload["rated"] = _rated_before(membership, task, candidates)
    if task.kind == Task.Kind.DIALOGUE:
        turns = DialogueTurn.objects.filter(assignment=assignment).order_by("pk")
        payload["answers"] = [
            turn_payload(turn) for turn in turns.select_related("prompt", "first", "second")
        ]
    return payload


def _rated_before(membership: Membership, task: Task, uids: Container[str]) -> dict[str, int]:
    """What this annotator rated these answers before, 1 to 7: to be compared, not shown."""
    rows = _RATED.rows(annotator=membership.pk, prompt=task.prompt_id)
    ratings = json.loads(rows[0][0]) if rows else {}
    return {uid: one["overall"] for uid, one in ratings.items() if uid in uids}


def _sent_back(assignment: Assignment) -> dict[str, str] | None:
    """Who sent the judgement back and why, until it is sent again. What was sent has a draft."""
    if assignment.draft is None:
        return None
    rows = _SENT_BACK.rows(assignment=assignment.pk)
    return next(({"by": by, "reason": reason} for by, reason in rows), None)


_SENT_BACK = Prepared(
    lambda assignment: (
        Review.objects.filter(
            submission__assignment=assignment,
            submission__status=Submission.Status.WITHDRAWN,
            verdict=Review.Verdict.SEND_BACK,
        )
        .order_by("-pk")
        .values_list("reviewer__user__username", "reason")[:1]
    ),
    numbers=("assignment",),
)
_RATED = Prepared(
    lambda annotator, prompt: (
        Rating.objects.filter(submission__annotator=annotator, submission__task__prompt=prompt)
        .exclude(submission__status=Submission.Status.WITHDRAWN)
        .order_by("-submission")
        .values_list("ratings")[:1]
    ),
    numbers=("annotator", "prompt"),
)
_ANSWERS = Prepared(
    lambda task: (
        TaskCandidate.objects.filter(task=task)
        .order_by("position")
        .values_list("candidate__uid", "candidate__text", "candidate__token_count")
    ),
    numbers=("task",),
)


_ANSWERED = Prepared(
    lambda assignment: (
        Question.objects.filter(assignment=assignment, answered_at__isnull=False)
        .order_by("-answered_at")
        .values_list("text", "answer")[:1]
    ),
    numbers=("assignment",),
)


_GUIDELINE = Prepared(
    lambda guideline: (
        Guideline.objects.filter(pk=guideline).order_by().values_list("number", "text")
    ),
    numbers=("guideline",),
)


def messages_shown(prompt: Prompt) -> list[Mapping[str, str]]:
    """What annotators, and who reviews them, read of a prompt.

    Of a document of a corpus the question alone, in their language: where the document is from is
    for those who manage.
    """
    if prompt.source == Prompt.OF_CORPUS:
        return [{"role": "user", "content": gettext(DOCUMENT_QUESTION)}]
    return list(prompt.messages)


def candidate_payload(candidate: Candidate) -> dict[str, Any]:
    """An answer as the page shows it. Its length is in words, and in tokens where a model told."""
    text = identity_mask(candidate.text)
    return {
        "uid": candidate.uid,
        "text": text,
        "html": markdown_render(text),
        "words": words_count(text),
        "tokens": candidate.token_count,
    }


def turn_payload(turn: DialogueTurn) -> dict[str, Any]:
    """What was written in a turn of a dialogue, and its two answers in the order to show them."""
    return {
        "user": turn.prompt.messages[-1]["content"],
        "candidates": [candidate_payload(turn.first), candidate_payload(turn.second)],
    }


def letter_of(place: int) -> str:
    """A, B, …, Z, AA, AB, …: what the answer shown at a place (from 0) is called."""
    letters = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
