"""What people said of a task as reviewers see it: answers under letters, judgements in words.

Blind like the annotator's page: no model, no sampling. Letters follow the order in which one
annotator saw the answers, so that their words ("is B allowed?") mean the same to who reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext

from annotation.gold import Judgement
from annotation.models import (
    Assignment,
    Candidate,
    Degree,
    Report,
    Submission,
    Task,
    TaskCandidate,
)
from annotation.selectors.judgements import judgement_of
from annotation.selectors.payloads import letter_of, messages_shown
from annotation.shown_order import order_shuffled
from annotation.task_forms import flag_label
from modelhub.rendering import markdown_render, messages_render, words_count


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

    @property
    def is_long(self) -> bool:
        """Whether a list of tasks folds it."""
        return sum(one.words for one in self.answers) > _LONG_WORDS

    def letters_in(self, order: Sequence[str]) -> str:
        """The letters of its answers, "C, A, B", in the order in which somebody else saw them."""
        return ", ".join(self.letters[uid] for uid in order if uid in self.letters)


@dataclass(frozen=True, kw_only=True)
class JudgementShown:
    """What one person said of a task: a line, and what they wrote."""

    line: str
    notes: list[str] = field(default_factory=list)
    written_html: str = ""
    diff: list[tuple[str, str]] = field(default_factory=list)  # ("=" | "-" | "+", text)
    turns: list[dict[str, Any]] = field(default_factory=list)


_LONG_WORDS = 150


def task_shown(*, task: Task, order: Sequence[str] = ()) -> TaskShown:
    """A task for reviewers. One query besides the task with its prompt.

    order: candidate uids as an annotator saw them; those it does not name follow as stored.
    """
    rows = TaskCandidate.objects.filter(task=task).select_related("candidate").order_by("position")
    return _shown(task, [row.candidate for row in rows], order)


def tasks_shown(*, assignments: Sequence[Assignment]) -> dict[int, TaskShown]:
    """Assignment → its task as its annotator sees it. One query besides tasks and prompts."""
    answers = _answers_of([one.task for one in assignments])
    return {
        one.pk: _shown(
            one.task,
            answers[one.task_id],
            order_shuffled([row.uid for row in answers[one.task_id]], seed=one.shuffle_seed),
        )
        for one in assignments
    }


def reports_shown(*, reports: Sequence[Report]) -> dict[int, TaskShown]:
    """Report → its task as its reporter sees it, as stored where nobody reported. Two queries."""
    seeds: dict[tuple[int, int | None], int] = {
        (task, annotator): seed
        for task, annotator, seed in Assignment.objects.filter(
            task__in=[one.task_id for one in reports],
            annotator__in=[one.reporter_id for one in reports if one.reporter_id],
        ).values_list("task", "annotator", "shuffle_seed")
    }
    answers = _answers_of([one.task for one in reports])
    shown = {}
    for one in reports:
        seed = seeds.get((one.task_id, one.reporter_id))
        uids = [row.uid for row in answers[one.task_id]]
        order = uids if seed is None else order_shuffled(uids, seed=seed)
        shown[one.pk] = _shown(one.task, answers[one.task_id], order)
    return shown


def _answers_of(tasks: Sequence[Task]) -> dict[int, list[Candidate]]:
    answers: dict[int, list[Candidate]] = {task.pk: [] for task in tasks}
    rows = TaskCandidate.objects.filter(task__in=answers).select_related("candidate")
    for row in rows.order_by("task", "position"):
        answers[row.task_id].append(row.candidate)
    return answers


def _shown(task: Task, candidates: Sequence[Candidate], order: Sequence[str]) -> TaskShown:
    places = {uid: place for place, uid in enumerate(order)}
    in_order = sorted(candidates, key=lambda one: places.get(one.uid, len(places)))
    return TaskShown(
        task=task,
        messages=messages_render(messages_shown(task.prompt)),
        answers=[
            AnswerShown(
                uid=one.uid,
                letter=letter_of(place),
                html=markdown_render(one.text),
                words=words_count(one.text),
            )
            for place, one in enumerate(in_order)
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
