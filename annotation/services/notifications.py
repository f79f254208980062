"""Telling people that something waits for them."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from annotation.models import Membership, Notification, Project

MAX_TEXT_CHARS = 200


def notification_send(
    *,
    recipients: Iterable[Membership],
    text: str,
    path: str,
    values: Mapping[str, Any] | None = None,
) -> int:
    """Leave a line for each of these people; returns how many. One query.

    text: what it is about, in English; each reads it in their own language. With `values` it is a
    format for them, "%(person)s asks: %(question)s", and marked with gettext_noop.
    What is longer than MAX_TEXT_CHARS is cut, and comes to one line.
    path: the page that it is about, from "/".
    """
    kept = {name: _line(value) for name, value in (values or {}).items()}
    line = text if values else _line(text)
    sent = Notification.objects.bulk_create(
        Notification(recipient=recipient, text=line, values=kept, path=path)
        for recipient in recipients
    )
    return len(sent)


def reviewers_notify(
    *,
    project: Project,
    text: str,
    path: str,
    besides: Membership,
    values: Mapping[str, Any] | None = None,
) -> int:
    """Leave a line for every reviewer and manager of the project but one; returns how many."""
    reviewers = Membership.objects.filter(
        project=project,
        removed_at=None,
        role__in=[Membership.Role.REVIEWER, Membership.Role.MANAGER],
    ).exclude(pk=besides.pk)
    return notification_send(recipients=reviewers, text=text, path=path, values=values)


def _line(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    line = " ".join(value.split())
    return line if len(line) <= MAX_TEXT_CHARS else line[: MAX_TEXT_CHARS - 1] + "…"


@transaction.atomic
def notifications_read(*, recipient: Membership, uids: Iterable[str] | None = None) -> int:
    """Mark a person's notifications as read, all of them if none is named; returns how many were
    not read before. Another person's are left alone."""
    unread = Notification.objects.filter(recipient=recipient, read_at=None)
    if uids is not None:
        unread = unread.filter(uid__in=list(uids))
    return unread.update(read_at=timezone.now())
