"""Tasks of every kind, and judgements of them put straight into the rows."""

from datetime import timedelta
from typing import Any

from django.utils import timezone

from annotation.models import (
    Assignment,
    Candidate,
    Comparison,
    Demonstration,
    Dialogue,
    Edit,
    Membership,
    Project,
    Ranking,
    Rating,
    Submission,
    Task,
    TaskCandidate,
)
from annotation.services.assignments import slot_take
from tests.builders import make_prompt


def make_task(
    project: Project,
    kind: str = "pair",
    *,
    answers: int = 2,
    overlap: int = 3,
    gold: dict[str, Any] | None = None,
    is_qualification: bool = False,
) -> Task:
    prompt = make_prompt(project)
    task = Task.objects.create(
        project=project,
        kind=kind,
        prompt=prompt,
        overlap=overlap,
        slots_free=overlap,
        gold=gold,
        is_qualification=is_qualification,
    )
    for index in range(answers):
        candidate = Candidate.objects.create(
            prompt=prompt, index=index, text=f"Answer {index} to {prompt}. " * 10
        )
        TaskCandidate.objects.create(task=task, candidate=candidate, position=index)
    return task


def uids_of(task: Task) -> list[str]:
    return list(task.task_candidates.values_list("candidate__uid", flat=True))


def make_submission(
    task: Task,
    member: Membership,
    judgement: dict[str, Any],
    *,
    active_s: float = 30.0,
    shown: list[str] | None = None,
) -> Submission:
    """A judgement that holds a slot."""
    assert slot_take(task_id=task.pk)
    now = timezone.now()
    assignment = Assignment.objects.create(
        task=task,
        annotator=member,
        state=Assignment.State.SUBMITTED,
        lease_until=now + timedelta(minutes=10),
        shuffle_seed=1,
        ended_at=now,
        active_s=active_s,
    )
    submission = Submission.objects.create(
        assignment=assignment,
        task=task,
        annotator=member,
        status=Submission.Status.ACCEPTED,
        source=member.source,
        shown_order=shown or uids_of(task),
        active_s=active_s,
    )
    by_uid = {one.uid: one for one in Candidate.objects.filter(in_tasks__task=task)}
    if task.kind == "ranking":
        Ranking.objects.create(
            submission=submission,
            tiers=judgement["tiers"],
            unacceptable=judgement.get("unacceptable", []),
        )
    elif task.kind == "pair":
        better = by_uid[judgement["better"] or uids_of(task)[0]]
        (worse,) = (one for one in by_uid.values() if one != better)
        Comparison.objects.create(
            submission=submission,
            better=better,
            worse=worse,
            degree=judgement["degree"],
            unsafe=judgement.get("unsafe", []),
        )
    elif task.kind == "rating":
        Rating.objects.create(submission=submission, ratings=judgement["ratings"])
    elif task.kind == "demonstration":
        written = Candidate.objects.create(prompt=task.prompt, text=judgement["text"])
        Demonstration.objects.create(
            submission=submission,
            candidate=written,
            started_from=by_uid.get(judgement.get("started_from", "")),
        )
    elif task.kind == "dialogue":
        Dialogue.objects.create(submission=submission, turns=judgement["turns"])
    else:
        original = by_uid[judgement["original"]]
        edited = Candidate.objects.create(prompt=task.prompt, text=judgement["text"])
        Edit.objects.create(
            submission=submission, original=original, candidate=edited, diff=[], changed_share=0.1
        )
    return submission


def rank(task: Task, member: Membership, order: str, **given: Any) -> Submission:
    """A ranking as "1>0=2", by the answers' sampled places."""
    uids = uids_of(task)
    tiers = [[uids[int(place)] for place in tier.split("=")] for tier in order.split(">")]
    return make_submission(task, member, {"tiers": tiers}, **given)


def choose(
    task: Task, member: Membership, place: int | None, degree: int = 3, **given: Any
) -> Submission:
    """A pair's choice by the answer's sampled place; None is a tie."""
    better = None if place is None else uids_of(task)[place]
    judgement = {"better": better, "degree": 0 if place is None else degree}
    return make_submission(task, member, judgement, **given)


def rate(
    task: Task, member: Membership, overall: list[int], flags: list[list[str]] | None = None
) -> Submission:
    flags = flags or [[] for _ in overall]
    ratings = {
        uid: {"overall": one, "flags": raised}
        for uid, one, raised in zip(uids_of(task), overall, flags, strict=True)
    }
    return make_submission(task, member, {"ratings": ratings})


def talk(task: Task, member: Membership, better: str, degrees: list[int]) -> Submission:
    """A dialogue in which one of the models "small" and "large" was always the better one."""
    turns = []
    for degree in degrees:
        answers = {
            side: Candidate.objects.create(
                prompt=task.prompt, text=side, decoding={"endpoint": side, "temperature": 1.0}
            )
            for side in ("small", "large")
        }
        turns.append(
            {
                "user": "And?",
                "candidates": [one.uid for one in answers.values()],
                "chosen": answers[better].uid,
                "degree": degree,
            }
        )
    return make_submission(task, member, {"turns": turns})
