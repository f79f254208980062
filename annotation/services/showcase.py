"""A project with some weeks of work in it, to look at every page as it is in use. All made up.

People, answers and judgements are invented, and the project says so. Judgements go through the
same services as everybody's; only their times are moved into the past.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from annotation.models import (
    Assignment,
    Candidate,
    DialogueTurn,
    Membership,
    Project,
    Question,
    Review,
    Submission,
    Task,
    TaskCandidate,
)
from annotation.selectors import shown_order
from annotation.services.assignments import assignment_next
from annotation.services.datasets import preference_dataset_freeze
from annotation.services.demonstrations import demonstration_submit
from annotation.services.dialogues import dialogue_submit
from annotation.services.edits import edit_submit
from annotation.services.gold import gold_task_create
from annotation.services.pairs import pair_submit
from annotation.services.project_settings import project_settings_change
from annotation.services.projects import guideline_publish, membership_add, project_create
from annotation.services.prompts import prompts_import
from annotation.services.questions import question_answer, question_ask
from annotation.services.rankings import ranking_submit
from annotation.services.ratings import rating_submit
from annotation.services.reviews import review_submit
from annotation.services.sample import GUIDELINE
from annotation.services.task_forms import task_form_save
from annotation.task_forms import PRESETS
from modelhub.errors import ApplicationError
from modelhub.ml.records import json_canonical
from modelhub.rendering import words_count

SHOWCASE_NAME = "Showcase: weeks of work, all made up"
EXAMPLES = Path(__file__).resolve().parent.parent / "sample" / "showcase.jsonl"
OVERLAP = 3
_LAPS = 3  # tasks of each kind and prompt
DAYS = 40
_SIDES = ("small", "large")
_ANSWERS = {"ranking": 4, "pair": 2, "rating": 3, "edit": 3, "demonstration": 2, "dialogue": 0}


@dataclass(frozen=True, kw_only=True)
class Invented:
    """A made-up annotator: how far their judgement strays, and how they work."""

    name: str
    noise: float  # in steps between neighbouring answers
    words_per_s: float = 5.0
    takes_the_first: float = 0.0  # the share of judgements in which they do


PEOPLE = (
    Invented(name="ada.showcase", noise=0.4),
    Invented(name="bo.showcase", noise=0.7),
    Invented(name="chen.showcase", noise=0.5, words_per_s=4.0),
    Invented(name="dara.showcase", noise=3.0),
    Invented(name="eli.showcase", noise=0.8, words_per_s=30.0, takes_the_first=0.6),
)


@transaction.atomic
def showcase_create(*, owner: User, seed: int = 0) -> Project:
    """Make the project; `owner` manages it. Raises ApplicationError if it is there already."""
    if Project.objects.filter(name=SHOWCASE_NAME).exists():
        raise ApplicationError(f"There is a project “{SHOWCASE_NAME}” already.")
    project = project_create(
        name=SHOWCASE_NAME,
        overlap=OVERLAP,
        created_by=owner,
        description="Invented people and judgements, to show what Rondo looks like in use.",
    )
    guideline_publish(project=project, text=GUIDELINE, author=owner)
    project_settings_change(
        project=project,
        overlap=OVERLAP,
        queue_order=Project.Order.PRIORITY,
        gold_share=0.1,
        qualification_pass=0.0,
        mirrored_share=0.1,
        skips_to_review=3,
    )
    _forms_save(project)
    examples = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    _prompts_make(project, examples)
    reviewer = _member_add(project, "rey.showcase", Membership.Role.REVIEWER)
    people = {one: _member_add(project, one.name) for one in PEOPLE}
    draw = random.Random(seed)  # noqa: S311 (a showcase, not a secret)
    _tasks_make(project, draw)
    _judge_all(project, people, draw)
    _review_some(project, reviewer, draw)
    _dialogues_close(project)
    _ask_some(project, people[PEOPLE[0]], reviewer)
    for kind in ("ranking", "pair", "rating"):
        preference_dataset_freeze(project=project, created_by=owner, kind=kind)
    return project


def _forms_save(project: Project) -> None:
    """The questions of the papers: InstructGPT's flags, Llama 2's pairs."""
    for form in PRESETS.values():
        task_form_save(project=project, kind=form.KIND, settings=form.as_json())


def _prompts_make(project: Project, examples: Sequence[dict[str, Any]]) -> None:
    lines = [json_canonical({**one, "tags": ["showcase"]}) for one in examples]
    prompts_import(
        project=project, lines=[f"{line}\n".encode() for line in lines], name=EXAMPLES.name
    )


def _tasks_make(project: Project, draw: random.Random) -> None:
    """Tasks of each kind for each prompt. Their answers belong to no batch: no model wrote
    them.

    All kinds are mixed, but dialogues come in the first half: there is no model to talk to, so
    those left over are closed at the end.
    """
    wanted = [
        (kind, prompt, lap)
        for kind in Task.Kind
        for prompt in project.prompts.all()
        for lap in range(_LAPS)
    ]
    place = {one: draw.random() * (0.5 if one[0] == Task.Kind.DIALOGUE else 1.0) for one in wanted}
    for kind, prompt, _ in sorted(wanted, key=place.__getitem__):
        task = Task.objects.create(
            project=project, kind=kind, prompt=prompt, overlap=OVERLAP, slots_free=OVERLAP
        )
        answers = prompt.candidates.order_by("index")[: _ANSWERS[kind]]
        TaskCandidate.objects.bulk_create(
            TaskCandidate(task=task, candidate=one, position=position)
            for position, one in enumerate(answers)
        )


def _member_add(project: Project, name: str, role: str = Membership.Role.ANNOTATOR) -> Membership:
    """Nobody can sign in as them: they have no password, and get no link."""
    user, made = User.objects.get_or_create(username=name)
    if made:
        user.set_unusable_password()
        user.is_active = False
        user.save(update_fields=["password", "is_active"])
    return membership_add(project=project, user=user, role=role)


def _judge_all(project: Project, people: dict[Invented, Membership], draw: random.Random) -> None:
    """Everybody takes what the queue gives them, and about one in six tasks is left open.

    Never a dialogue. What is known and what is mirrored comes by chance and takes its share, so
    they go on for as long as one is open.
    """
    now = timezone.now()
    waiting = list(people.items())
    total = OVERLAP * project.tasks.count()
    judged = total * 5 // 6
    talks = project.tasks.filter(kind=Task.Kind.DIALOGUE, slots_free__gt=0)
    for number in range(2 * total):
        if number >= judged and not talks.exists():
            break
        who, member = waiting[number % len(waiting)]
        assignment = assignment_next(membership=member)
        if assignment is None:
            continue
        submission = _JUDGE[assignment.task.kind](assignment, who, draw)
        share = min(1, number / judged)
        at = now - timedelta(
            days=DAYS * (1 - share) ** 1.3, minutes=draw.uniform(0, 600) * (1 - share)
        )
        _moved(submission, min(at, now))
        if number == total // 3:
            _known_answers_make(project)


def _dialogues_close(project: Project) -> None:
    """There is no model to talk to: whoever were given a dialogue could only skip it."""
    project.tasks.filter(kind=Task.Kind.DIALOGUE, closed_at=None).update(closed_at=timezone.now())


def _known_answers_make(project: Project) -> None:
    """What the most careful annotator said of a few tasks, mixed in from now on."""
    boss = project.memberships.get(role=Membership.Role.MANAGER)
    careful = Submission.objects.filter(
        annotator__user__username=PEOPLE[0].name, task__gold__isnull=True
    )
    for kind in ("pair", "ranking", "rating"):
        for known in careful.filter(task__kind=kind).order_by("pk")[:2]:
            gold_task_create(
                submission=known,
                reviewer=boss,
                explanation="Correct, whole and short.",
            )


def _moved(submission: Submission, at: Any) -> None:
    Submission.objects.filter(pk=submission.pk).update(created_at=at)
    Assignment.objects.filter(pk=submission.assignment_id).update(ended_at=at)


def _seen(assignment: Assignment, who: Invented, draw: random.Random) -> list[str]:
    """The answers' uids as this person would order them, the best first."""
    shown = shown_order(assignment=assignment)
    worth = dict(Candidate.objects.filter(uid__in=shown).values_list("uid", "index"))
    order = sorted(shown, key=lambda uid: worth[uid] + draw.gauss(0, who.noise))
    if shown and draw.random() < who.takes_the_first:
        order = [shown[0], *(uid for uid in order if uid != shown[0])]
    return order


def _seconds(assignment: Assignment, who: Invented, draw: random.Random) -> float:
    texts = Candidate.objects.filter(in_tasks__task=assignment.task).values_list("text", flat=True)
    words = sum(words_count(text) for text in texts) + 20
    return round(words / who.words_per_s * draw.uniform(0.8, 1.6), 1)


def _rank(assignment: Assignment, who: Invented, draw: random.Random) -> Submission:
    order = _seen(assignment, who, draw)
    tiers = [[order[0]]]
    for uid in order[1:]:
        if draw.random() < 0.15:
            tiers[-1].append(uid)
        else:
            tiers.append([uid])
    return ranking_submit(
        assignment=assignment,
        tiers=tiers,
        unacceptable=order[-1:] if draw.random() < 0.2 else [],
        active_s=_seconds(assignment, who, draw),
    )


def _pair(assignment: Assignment, who: Invented, draw: random.Random) -> Submission:
    better, worse = _seen(assignment, who, draw)
    return pair_submit(
        assignment=assignment,
        better=better,
        degree=draw.choice((1, 2, 2, 3, 3, 3, 4)),
        unsafe=[worse] if draw.random() < 0.08 else [],
        active_s=_seconds(assignment, who, draw),
    )


def _rate(assignment: Assignment, who: Invented, draw: random.Random) -> Submission:
    flags = ("fails_instruction", "hallucination", "harmful_advice")
    worth = dict(
        Candidate.objects.filter(in_tasks__task=assignment.task).values_list("uid", "index")
    )
    ratings = {}
    for uid, place in worth.items():
        overall = round(6.4 - 1.5 * place + draw.gauss(0, who.noise))
        raised = [flags[place % 3]] if place > 1 and draw.random() < 0.7 - 0.2 * who.noise else []
        ratings[uid] = {"overall": min(7, max(1, overall)), "flags": raised}
    return rating_submit(
        assignment=assignment, ratings=ratings, active_s=_seconds(assignment, who, draw)
    )


def _edit(assignment: Assignment, who: Invented, draw: random.Random) -> Submission:
    best = _seen(assignment, who, draw)[0]
    text = Candidate.objects.get(uid=best).text
    ending = draw.choice(("Tell me if you want more of it.", "That is the whole of it."))
    return edit_submit(
        assignment=assignment,
        original=best,
        text=f"In short: {text} {ending}",
        active_s=3 * _seconds(assignment, who, draw),
    )


def _write(assignment: Assignment, who: Invented, draw: random.Random) -> Submission:
    shown = _seen(assignment, who, draw)
    best = assignment.task.prompt.candidates.order_by("pk")[0].text
    text = draw.choice((best, f"Here is how I would put it. {best}", f"{best} Ask me for more."))
    return demonstration_submit(
        assignment=assignment,
        text=text,
        started_from=shown[0] if shown and draw.random() < 0.5 else None,
        active_s=4 * _seconds(assignment, who, draw),
    )


def _talk(assignment: Assignment, who: Invented, draw: random.Random) -> Submission:
    """One turn, answered by nobody: the two answers are those of the examples."""
    prompt = assignment.task.prompt
    examples = prompt.candidates.order_by("pk")[:2]
    answers = [
        Candidate.objects.create(
            prompt=prompt,
            index=place,
            text=one.text,
            decoding={"engine": "endpoint", "endpoint": side, "temperature": 1.0},
        )
        for place, (one, side) in enumerate(zip(examples, reversed(_SIDES), strict=True))
    ]
    first, second = draw.sample(answers, 2)
    DialogueTurn.objects.create(assignment=assignment, prompt=prompt, first=first, second=second)
    chosen = min(answers, key=lambda one: one.index + draw.gauss(0, who.noise))
    turn = {
        "user": prompt.messages[-1]["content"],
        "candidates": [first.uid, second.uid],
        "chosen": chosen.uid,
        "degree": draw.choice((1, 2, 3, 4)),
    }
    return dialogue_submit(
        assignment=assignment, turns=[turn], active_s=2 * _seconds(assignment, who, draw) + 30
    )


_JUDGE: dict[str, Callable[[Assignment, Invented, random.Random], Submission]] = {
    Task.Kind.RANKING: _rank,
    Task.Kind.PAIR: _pair,
    Task.Kind.RATING: _rate,
    Task.Kind.EDIT: _edit,
    Task.Kind.DEMONSTRATION: _write,
    Task.Kind.DIALOGUE: _talk,
}


def _review_some(project: Project, reviewer: Membership, draw: random.Random) -> None:
    for submission in list(Submission.objects.filter(task__project=project).order_by("pk")):
        if draw.random() > 0.3:
            continue
        careless = submission.annotator.user.get_username() == PEOPLE[3].name
        if careless and draw.random() < 0.5:
            review_submit(
                submission=submission,
                reviewer=reviewer,
                verdict=Review.Verdict.REJECT,
                reason="The second answer is wrong on the facts; please read both to the end.",
            )
        else:
            praise = draw.random() < 0.3
            review_submit(
                submission=submission,
                reviewer=reviewer,
                verdict=Review.Verdict.ACCEPT,
                reason="Well judged: the shorter answer says all that was asked." if praise else "",
            )


def _ask_some(project: Project, asker: Membership, reviewer: Membership) -> list[Question]:
    """One question that was answered, and one that waits."""
    asked = []
    for text in ("Is an answer in another language acceptable?", "Does length matter for a tie?"):
        assignment = assignment_next(membership=asker)
        if assignment is not None:
            asked.append(question_ask(assignment=assignment, text=text))
    for question in asked[:1]:
        question_answer(question=question, reviewer=reviewer, text="Only if it was asked for.")
    return asked
