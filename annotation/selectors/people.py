"""The people of a project: who belongs to it, and what each has done."""

from dataclasses import dataclass
from datetime import UTC

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils import timezone

from annotation.models import QUALIFICATION, WORK, Membership, Project, Submission
from annotation.selectors.queue import qualification_is_wanted, tasks_open_in_turn

OPEN_AT_MOST = 200


@dataclass(frozen=True, kw_only=True)
class AnnotatorProgress:
    """What an annotator has done in a project, and what waits for them."""

    submitted: int
    submitted_today: int  # since midnight, UTC
    open: int  # tasks this person could be given now; counted up to OPEN_AT_MOST


def annotator_progress(*, membership: Membership) -> AnnotatorProgress:
    """Three queries, of which only the count of all submissions grows with what was done."""
    return AnnotatorProgress(
        submitted=Submission.objects.filter(annotator=membership).count(),
        submitted_today=submitted_today(membership=membership),
        open=open_count(membership=membership),
    )


def submitted_today(*, membership: Membership) -> int:
    """The person's submissions since midnight, UTC. One query, over those alone."""
    midnight = timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Submission.objects.filter(annotator=membership, created_at__gte=midnight).count()


def open_count(*, membership: Membership) -> int:
    """How many tasks the person could be given now, counted up to OPEN_AT_MOST.

    One query, over the first of the queue; more where the person had all of those.
    """
    queue = QUALIFICATION if qualification_is_wanted(membership=membership) else WORK
    for tasks in tasks_open_in_turn(membership=membership, queue=queue, window=OPEN_AT_MOST):
        if count := tasks[:OPEN_AT_MOST].count():
            return count
    return 0


def memberships_of(*, user: User) -> QuerySet[Membership]:
    """The person's standing memberships with their projects, by the project's name. One query."""
    return (
        Membership.objects.filter(user=user, removed_at=None)
        .select_related("project")
        .order_by("project__name", "pk")
    )


def members(*, project: Project) -> QuerySet[Membership]:
    """The standing members of a project with their users, by name. One query."""
    return (
        Membership.objects.filter(project=project, removed_at=None)
        .select_related("user")
        .order_by("user__username")
    )
