"""What people said of a task as reviewers see it: answers under letters, judgements in words.

Blind like the annotator's page: no model, no sampling. Letters follow the order of the task, so
that one letter is one answer whoever judged it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext

from annotation.gold import Judgement
from annotation.models import Candidate, Degree, Submission, Task, TaskCandidate
from annotation.rendering import markdown_render, messages_render, words_count
from annotation.selectors.judgements import judgement_of
from annotation.selectors.payloads import letter_of
from annotation.task_forms import flag_label


@dataclass(frozen=True, kw_only=True)
class AnswerShown:
    """An answer of a task. `html` is rendered and safe."""

    uid: str
    letter: str
    html: str
    words: int


@dataclass(frozen=True, kw_only=True)
class TaskShown:
    """A task with its conversation and answers."""

    task: Task
    messages: list[dict[str, str]]
    answers: list[AnswerShown]

    @property
    def letters(self) -> dict[str, str]:
        return {one.uid: one.letter for one in self.answers}


@dataclass(frozen=True, kw_only=True)
class JudgementShown:
    """What one person said of a task: a line, and what they wrote."""

    line: str
    notes: list[str] = field(default_factory=list)
    written_html: str = ""
    diff: list[tuple[str, str]] = field(default_factory=list)  # ("=" | "-" | "+", text)
    turns: list[dict[str, Any]] = field(default_factory=list)


def task_shown(*, task: Task) -> TaskShown:
    """A task for reviewers. One query besides the task with its prompt."""
    rows = TaskCandidate.objects.filter(task=task).select_related("candidate").order_by("position")
    return TaskShown(
        task=task,
        messages=messages_render(task.prompt.messages),
        answers=[
            AnswerShown(
                uid=row.candidate.uid,
                letter=letter_of(place),
                html=markdown_render(row.candidate.text),
                words=words_count(row.candidate.text),
            )
            for place, row in enumerate(rows)
        ],
    )


def letters_of(*, tasks: Sequence[Task]) -> dict[int, dict[str, str]]:
    """Task → candidate uid → its letter. One query."""
    letters: dict[int, dict[str, str]] = {task.pk: {} for task in tasks}
    rows = TaskCandidate.objects.filter(task__in=tasks).order_by("task", "position")
    for task, uid in rows.values_list("task", "candidate__uid"):
        letters[task][uid] = letter_of(len(letters[task]))
    return letters


def judgement_shown(*, submission: Submission, letters: Mapping[str, str]) -> JudgementShown:
    """A judgement in words, by the letters of its task. At most three queries."""
    judgement = judgement_of(submission)
    kind = submission.task.kind
    if kind == Task.Kind.DEMONSTRATION:
        return JudgementShown(
            line=gettext("A written answer"),
            notes=[gettext("started from a draft")] if judgement["started_from"] else [],
            written_html=markdown_render(judgement["text"]),
            turns=[
                {"user": turn["user"], "html": markdown_render(turn["text"])}
                for turn in judgement["turns"]
            ],
        )
    if kind == Task.Kind.DIALOGUE:
        return JudgementShown(line=gettext("A dialogue"), turns=_turns(judgement["turns"]))
    if kind == Task.Kind.EDIT:
        edit = submission.edit
        return JudgementShown(
            line=_made_better(letters, judgement),
            notes=[
                gettext("%(percent)s %% of its words changed")
                % {"percent": round(100 * edit.changed_share)}
            ],
            written_html=markdown_render(judgement["text"]),
            diff=[(sign, text) for sign, text in edit.diff],
        )
    line, notes = judgement_words(kind, judgement, letters)
    return JudgementShown(line=line, notes=notes)


def judgement_words(
    kind: str, judgement: Judgement, letters: Mapping[str, str]
) -> tuple[str, list[str]]:
    """(a line, further notes) for the judgement of a ranking, pair, rating or edit."""

    def named(uids: Any) -> str:
        return ", ".join(sorted(letters.get(uid, "?") for uid in uids))

    if kind == Task.Kind.RANKING:
        tiers = [
            " = ".join(sorted(letters.get(uid, "?") for uid in tier)) for tier in judgement["tiers"]
        ]
        bad = judgement.get("unacceptable")
        return " > ".join(tiers), (
            [gettext("not acceptable: %(letters)s") % {"letters": named(bad)}] if bad else []
        )
    if kind == Task.Kind.PAIR:
        unsafe = judgement.get("unsafe")
        notes = [gettext("not safe: %(letters)s") % {"letters": named(unsafe)}] if unsafe else []
        if judgement.get("better") is None:
            return gettext("A tie"), notes
        degree = Degree(judgement.get("degree") or Degree.BETTER).label
        words = {"letter": letters.get(judgement["better"], "?"), "degree": degree}
        return gettext("%(letter)s is %(degree)s") % words, notes
    if kind == Task.Kind.RATING:
        rated = sorted(judgement["ratings"].items(), key=lambda one: letters.get(one[0], "?"))
        line = " · ".join(
            f"{letters.get(uid, '?')} {one['overall']}"
            for uid, one in rated
            if one.get("overall") is not None
        )
        notes = [
            f"{letters.get(uid, '?')}: {', '.join(map(flag_label, one['flags']))}"
            for uid, one in rated
            if one.get("flags")
        ]
        return line, notes
    return _made_better(letters, judgement), []


def _made_better(letters: Mapping[str, str], judgement: Judgement) -> str:
    return gettext("%(letter)s made better") % {
        "letter": letters.get(judgement.get("original", ""), "?")
    }


def _turns(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    uids = [uid for turn in turns for uid in turn["candidates"]]
    texts = dict(Candidate.objects.filter(uid__in=uids).values_list("uid", "text"))
    return [
        {
            "user": turn["user"],
            "degree": Degree(turn["degree"]).label,
            "answers": [
                {"html": markdown_render(texts.get(uid, "")), "is_chosen": uid == turn["chosen"]}
                for uid in turn["candidates"]
            ],
        }
        for turn in turns
    ]
