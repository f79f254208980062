"""Telling people that something waits for them."""

from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from annotation.models import Membership, Notification, Project

MAX_TEXT_CHARS = 200


def notification_send(*, recipients: Iterable[Membership], text: str, path: str) -> int:
    """Leave a line for each of these people; returns how many. One query.

    text: what it is about, on one line; what is longer than MAX_TEXT_CHARS is cut.
    path: the page that it is about, from "/".
    """
    line = " ".join(text.split())
    if len(line) > MAX_TEXT_CHARS:
        line = line[: MAX_TEXT_CHARS - 1] + "…"
    sent = Notification.objects.bulk_create(
        Notification(recipient=recipient, text=line, path=path) for recipient in recipients
    )
    return len(sent)


def reviewers_notify(*, project: Project, text: str, path: str, besides: Membership) -> int:
    """Leave a line for every reviewer and manager of the project but one; returns how many."""
    reviewers = Membership.objects.filter(
        project=project,
        removed_at=None,
        role__in=[Membership.Role.REVIEWER, Membership.Role.MANAGER],
    ).exclude(pk=besides.pk)
    return notification_send(recipients=reviewers, text=text, path=path)


@transaction.atomic
def notifications_read(*, recipient: Membership, uids: Iterable[str] | None = None) -> int:
    """Mark a person's notifications as read, all of them if none is named; returns how many were
    not read before. Another person's are left alone."""
    unread = Notification.objects.filter(recipient=recipient, read_at=None)
    if uids is not None:
        unread = unread.filter(uid__in=list(uids))
    return unread.update(read_at=timezone.now())
