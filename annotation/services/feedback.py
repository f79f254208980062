"""Feedback from a product in use, kept as judgements like any other and marked as the product's.

A choice between two answers is a pair of the smallest degree, for a click does not say how much
better; among more it is a ranking in which the others are tied. Votes are ratings: the best and the
worst mark there is, for that is all that a thumb can say.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.models import (
    Assignment,
    Candidate,
    Degree,
    ProjectToken,
    Prompt,
    Submission,
    Task,
    TaskCandidate,
)
from annotation.services.kinds import KINDS
from annotation.services.prompts import MAX_SOURCE_CHARS, prompts_import
from annotation.services.ratings import BEST, WORST
from annotation.splits import content_hash
from modelhub.errors import ApplicationError
from modelhub.models import ModelVersion

MAX_ANSWERS = 9
MAX_ANSWER_CHARS = 100_000
MAX_MODEL_CHARS = 200
MAX_COMMENT_CHARS = 20_000
_MARKS = {"up": BEST, "down": WORST}


@dataclass(frozen=True, kw_only=True)
class ShownAnswer:
    """An answer that a product's user saw."""

    text: str
    version_uid: str | None = None  # of a model version of the hub
    model: str = ""  # what the product calls the model that wrote it
    vote: str | None = None  # "up" or "down"


@transaction.atomic
def feedback_record(
    *,
    token: ProjectToken,
    messages: Sequence[dict[str, str]],
    answers: Sequence[ShownAnswer],
    chosen: int | None = None,
    comment: str = "",
) -> Submission:
    """Keep what a user of the product thought of the answers they were shown.

    messages: the conversation up to the answer, as in an import of prompts; the prompt that says
    the same is used again. answers: in the order they were shown. Either `chosen`, the place from 0
    of the one the user preferred, or votes. comment: in the user's words.
    The task that holds them is closed from the first: nobody is asked about it.
    Raises ApplicationError naming the field.
    """
    kind = _kind(answers, chosen)
    versions = _versions(answers)
    prompt = _prompt_ensure(token, messages)
    candidates = [
        Candidate(
            prompt=prompt,
            index=place,
            text=answer.text,
            version=versions.get(answer.version_uid or ""),
            decoding={"engine": "product", **({"model": answer.model} if answer.model else {})},
        )
        for place, answer in enumerate(answers)
    ]
    Candidate.objects.bulk_create(candidates)
    shown = [one.uid for one in candidates]
    if kind == Task.Kind.RATING:  # of the answers that had a vote
        shown = [uid for uid, answer in zip(shown, answers, strict=True) if answer.vote]
    submission = _submitted(token, prompt, kind, candidates, shown, comment)
    KINDS[kind].keep(submission, _judgement(kind, [one.uid for one in candidates], answers, chosen))
    return submission


def _kind(answers: Sequence[ShownAnswer], chosen: int | None) -> str:
    votes = [answer.vote for answer in answers if answer.vote is not None]
    if not 1 <= len(answers) <= MAX_ANSWERS:
        raise ApplicationError(
            gettext("Wanted 1 to %(max_answers)s answers.") % {"max_answers": MAX_ANSWERS},
            {"field": "answers"},
        )
    if (chosen is None) == (not votes):
        raise ApplicationError(gettext("Wanted either a choice or votes."), {"field": "chosen"})
    for place, answer in enumerate(answers):
        if answer.vote is not None and answer.vote not in _MARKS:
            raise ApplicationError(
                gettext("A vote is up or down; got %(vote)s.") % {"vote": f"{answer.vote!r:.60}"},
                {"field": f"answers[{place}].vote"},
            )
    if chosen is None:
        _different_check(answers)
        return Task.Kind.RATING
    if not 0 <= chosen < len(answers) or len(answers) < 2:
        raise ApplicationError(
            gettext(
                "chosen is the place of one of two answers or more; got %(chosen)s of %(number)s."
            )
            % {"chosen": chosen, "number": len(answers)},
            {"field": "chosen"},
        )
    _different_check(answers)
    return Task.Kind.PAIR if len(answers) == 2 else Task.Kind.RANKING


def _different_check(answers: Sequence[ShownAnswer]) -> None:
    """Between two answers that read the same there is nothing to prefer, or to learn."""
    first: dict[str, int] = {}
    for place, answer in enumerate(answers):
        same = first.setdefault(answer.text.strip(), place)
        if same != place:
            raise ApplicationError(
                gettext("This answer reads the same as answers[%(same)s]; send it once.")
                % {"same": same},
                {"field": f"answers[{place}].text"},
            )


def _judgement(
    kind: str, uids: Sequence[str], answers: Sequence[ShownAnswer], chosen: int | None
) -> dict[str, Any]:
    if chosen is None:
        marks = {
            uid: {"overall": _MARKS[answer.vote], "flags": []}
            for uid, answer in zip(uids, answers, strict=True)
            if answer.vote is not None
        }
        return {"ratings": marks}
    if kind == Task.Kind.PAIR:
        return {"better": uids[chosen], "degree": int(Degree.NEGLIGIBLY), "unsafe": []}
    others = sorted(uid for uid in uids if uid != uids[chosen])
    return {"tiers": [[uids[chosen]], others], "unacceptable": []}


def _versions(answers: Sequence[ShownAnswer]) -> dict[str, ModelVersion]:
    wanted = {answer.version_uid for answer in answers if answer.version_uid}
    found = {one.uid: one for one in ModelVersion.objects.filter(uid__in=wanted)} if wanted else {}
    for place, answer in enumerate(answers):
        if answer.version_uid and answer.version_uid not in found:
            raise ApplicationError(
                gettext("There is no such model version."), {"field": f"answers[{place}].version"}
            )
    return found


def _prompt_ensure(token: ProjectToken, messages: Sequence[dict[str, str]]) -> Prompt:
    mine = Prompt.objects.filter(project=token.project_id)
    prompt = mine.filter(content_hash=content_hash(list(messages))).first()
    if prompt is None:
        line = json.dumps({"messages": list(messages)}, ensure_ascii=False).encode()
        prompts_import(
            project=token.project,
            lines=[line],
            name="the feedback",
            source=f"feedback: {token.name}"[:MAX_SOURCE_CHARS],
        )
        prompt = mine.get(content_hash=content_hash(list(messages)))
    return prompt


def _submitted(
    token: ProjectToken,
    prompt: Prompt,
    kind: str,
    candidates: Sequence[Candidate],
    shown: list[str],
    comment: str,
) -> Submission:
    now = timezone.now()
    task = Task.objects.create(
        project=token.project, kind=kind, prompt=prompt, overlap=1, slots_free=0, closed_at=now
    )
    TaskCandidate.objects.bulk_create(
        TaskCandidate(task=task, candidate=candidate, position=place)
        for place, candidate in enumerate(one for one in candidates if one.uid in shown)
    )
    assignment = Assignment.objects.create(
        task=task,
        annotator=token.membership,
        state=Assignment.State.SUBMITTED,
        lease_until=now,
        ended_at=now,
        shuffle_seed=0,  # nothing was shuffled: the order shown is stored
    )
    return Submission.objects.create(
        assignment=assignment,
        task=task,
        annotator=token.membership,
        status=Submission.Status.ACCEPTED,
        source=token.membership.source,
        shown_order=shown,
        rationale=comment,
    )
