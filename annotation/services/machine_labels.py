"""Labels of a model that judges, in the tables of people's and always marked as a model's."""

from collections.abc import Mapping, Sequence

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from annotation.models import Assignment, Degree, Membership, Project, Submission, Task
from annotation.services.edits import edit_submit
from annotation.services.pairs import pair_submit
from annotation.services.projects import membership_add
from annotation.services.rankings import ranking_submit
from annotation.services.ratings import rating_submit
from annotation.task_forms import PairForm, form_of


@transaction.atomic
def machine_annotator_ensure(*, project: Project, name: str) -> Membership:
    """The annotator that stands for a model: an account that nobody can sign in to, marked."""
    user, created = User.objects.get_or_create(username=name, defaults={"is_active": False})
    if created:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return membership_add(
        project=project,
        user=user,
        role=Membership.Role.ANNOTATOR,
        source=Membership.Source.MODEL,
    )


@transaction.atomic
def machine_label_submit(
    *, membership: Membership, task: Task, tiers: Sequence[Sequence[str]], rationale: str
) -> Submission | None:
    """Keep a model's tiers of a task's answers, best first, as its ranking or its pair.

    It takes a slot if one is free; a task that people have judged to the full keeps it beside
    theirs as surplus, to be compared and not to be learnt. Of a pair a model tells which, not how
    much: the degree is the smallest. None where it has judged the task before, and for a tie where
    the project asks for a choice. Raises ApplicationError for tiers that are not the task's.
    """
    form = form_of(task.project, task.kind)
    is_tie = len(tiers) == 1
    if isinstance(form, PairForm) and is_tie and not form.ties:
        return None
    assignment = _assignment_make(membership, task)
    if assignment is None:
        return None
    if task.kind == Task.Kind.PAIR:
        return pair_submit(
            assignment=assignment,
            better=None if is_tie else tiers[0][0],
            degree=Degree.TIE if is_tie else Degree.NEGLIGIBLY,
            rationale=rationale,
        )
    return ranking_submit(assignment=assignment, tiers=tiers, rationale=rationale)


@transaction.atomic
def machine_rating_submit(
    *, membership: Membership, task: Task, ratings: Mapping[str, int], rationale: str
) -> Submission | None:
    """Keep a model's ratings of a task's answers, uid → 1 to 7, beside people's or in a free slot.

    A model is not asked for flags, and raises none. None where it has rated the task before. Raises
    ApplicationError for ratings that are not the task's.
    """
    assignment = _assignment_make(membership, task)
    if assignment is None:
        return None
    return rating_submit(
        assignment=assignment,
        ratings={uid: {"overall": overall, "flags": []} for uid, overall in ratings.items()},
        rationale=rationale,
    )


@transaction.atomic
def machine_edit_submit(
    *, membership: Membership, task: Task, original: str, text: str, rationale: str
) -> Submission | None:
    """Keep a model's revision of one of a task's answers as its edit: better than that answer.

    None where it has revised one of the task's before. Raises ApplicationError for a text that is
    no edit of that answer.
    """
    assignment = _assignment_make(membership, task)
    if assignment is None:
        return None
    return edit_submit(assignment=assignment, original=original, text=text, rationale=rationale)


def _assignment_make(membership: Membership, task: Task) -> Assignment | None:
    """What a model submits by; None where it has labelled the task before."""
    if Assignment.objects.filter(task=task, annotator=membership).exists():
        return None
    now = timezone.now()
    return Assignment.objects.create(
        task=task,
        annotator=membership,
        state=Assignment.State.EXPIRED,  # it holds no slot; submitting takes one if there is one
        lease_until=now,
        ended_at=now,
        shuffle_seed=0,  # a model sees both orders, or one answer at a time
    )
