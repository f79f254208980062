"""Labels of a model that judges, in the tables of people's and always marked as a model's."""

from collections.abc import Sequence

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from annotation.models import Assignment, Degree, Membership, Project, Submission, Task
from annotation.services.pairs import pair_submit
from annotation.services.projects import membership_add
from annotation.services.rankings import ranking_submit
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
    if Assignment.objects.filter(task=task, annotator=membership).exists():
        return None
    form = form_of(task.project, task.kind)
    is_tie = len(tiers) == 1
    if isinstance(form, PairForm) and is_tie and not form.ties:
        return None
    now = timezone.now()
    assignment = Assignment.objects.create(
        task=task,
        annotator=membership,
        state=Assignment.State.EXPIRED,  # it holds no slot; submitting takes one if there is one
        lease_until=now,
        ended_at=now,
        shuffle_seed=0,  # both orders were shown
    )
    if task.kind == Task.Kind.PAIR:
        return pair_submit(
            assignment=assignment,
            better=None if is_tie else tiers[0][0],
            degree=Degree.TIE if is_tie else Degree.NEGLIGIBLY,
            rationale=rationale,
        )
    return ranking_submit(assignment=assignment, tiers=tiers, rationale=rationale)
