"""The people of a project: who belongs to it, and what each has done."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils import timezone

from annotation.models import (
    QUALIFICATION,
    WORK,
    Membership,
    Notification,
    Project,
    Submission,
)
from annotation.selectors.queue import (
    Counted,
    qualification_is_wanted,
    tasks_in_front,
    tasks_open_count,
)
from modelhub.prepared import Prepared

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
        submitted=_standing().filter(annotator=membership).count(),
        submitted_today=submitted_today(membership=membership),
        open=open_count(membership=membership),
    )


def submitted_today(*, membership: Membership) -> int:
    """What the person sent since midnight, UTC, and did not take back. One query, over a day's."""
    return _standing().filter(annotator=membership, created_at__gte=_midnight()).count()


def open_count(*, membership: Membership) -> int:
    """How many tasks the person could be given now, counted up to OPEN_AT_MOST.

    One query, over the first of the queue; more where the person had all of those.
    """
    queue = QUALIFICATION if qualification_is_wanted(membership=membership) else WORK
    return tasks_open_count(membership=membership, queue=queue, most=OPEN_AT_MOST)


def desk_counts(*, membership: Membership) -> dict[str, int]:
    """What stands at the edge of the annotator's page: `submitted_today`, `open`, `unread`.

    One query; a few more where the person had everything at the front of the queue.
    """
    wanted = qualification_is_wanted(membership=membership)
    order = Project.Order(membership.project.queue_order)
    ((submitted_today, waiting, unread),) = _desk(wanted, order).rows(
        annotator=membership.pk, project=membership.project_id, midnight=_midnight()
    )
    waiting = waiting or open_count(membership=membership)
    return {"submitted_today": submitted_today, "open": waiting, "unread": unread}


@cache
def _desk(qualification: bool, order: Project.Order) -> Prepared:
    def build(annotator: int, project: int, midnight: datetime) -> QuerySet[Any, Any]:
        # As far as the queue is concerned this is the member.
        member = Membership(pk=annotator, project_id=project)
        member.project = Project(pk=project, queue_order=order)
        queue = QUALIFICATION if qualification else WORK
        first = tasks_in_front(membership=member, queue=queue, window=OPEN_AT_MOST)
        today = _standing().filter(annotator=annotator, created_at__gte=midnight)
        unread = Notification.objects.filter(recipient=annotator, read_at=None)
        return Membership.objects.filter(pk=annotator).values_list(
            Counted(today), first, Counted(unread)
        )

    return Prepared(build, numbers=("annotator", "project"), times=("midnight",))


def _standing() -> QuerySet[Submission]:
    """Submissions that were not taken back: the work that was done."""
    return Submission.objects.exclude(status=Submission.Status.WITHDRAWN)


def _midnight() -> datetime:
    return timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


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
