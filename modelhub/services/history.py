"""Who did what: one line in the admin's history for each act of a person."""

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import models


def act_record(*, actor: User | None, subject: models.Model, text: str) -> None:
    """Keep an act in the subject's history. An act of the machine itself (no actor) is not kept."""
    if actor is None:
        return
    LogEntry.objects.create(
        user=actor,
        content_type=ContentType.objects.get_for_model(subject),
        object_id=str(subject.pk),
        object_repr=str(subject)[:200],
        action_flag=CHANGE,
        change_message=text,
    )
