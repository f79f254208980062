"""What people were told."""

from django.contrib.auth.models import User
from django.db.models import QuerySet

from annotation.models import Notification


def notifications_of(*, user: User) -> QuerySet[Notification]:
    """All that a person was told, in the projects they are in; the newest first. One query."""
    return (
        Notification.objects.filter(recipient__user=user, recipient__removed_at=None)
        .select_related("recipient__project")
        .order_by("-id")
    )


def unread_count(*, user: User) -> int:
    """How much of it the person has not read. One query."""
    return notifications_of(user=user).filter(read_at=None).count()
