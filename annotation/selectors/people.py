"""The people of a project: who belongs to it, and what each has done."""

from dataclasses import dataclass
from datetime import UTC

from django.contrib.auth.models import User
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from annotation.models import Membership, Project, Submission
from annotation.selectors.queue import tasks_open

OPEN_AT_MOST = 200


@dataclass(frozen=True, kw_only=True)
class AnnotatorProgress:
    """What an annotator has done in a project, and what waits for them."""

    submitted: int
    submitted_today: int  # since midnight, UTC
    open: int  # tasks this person could be given now; counted up to OPEN_AT_MOST


def annotator_progress(*, membership: Membership) -> AnnotatorProgress:
    """Two queries: over the annotator's submissions, and over at most OPEN_AT_MOST open tasks."""
    midnight = timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    done = Submission.objects.filter(annotator=membership).aggregate(
        submitted=Count("pk"), submitted_today=Count("pk", filter=Q(created_at__gte=midnight))
    )
    waiting = tasks_open(membership=membership)[:OPEN_AT_MOST].count()
    return AnnotatorProgress(**done, open=waiting)


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
