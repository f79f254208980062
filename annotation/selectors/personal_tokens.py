"""The tokens that a person's scripts use the API by."""

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils import timezone

from annotation.models import PersonalToken


def personal_tokens_of(*, user: User) -> QuerySet[PersonalToken]:
    """Those that work, the newest first. One query."""
    found: QuerySet[PersonalToken] = PersonalToken.objects.filter(
        user=user, expiry__gt=timezone.now()
    )
    return found


def personal_token_get(*, user: User, uid: str) -> PersonalToken | None:
    """One of those, by its uid; None if it is another's, has ended or was revoked. One query."""
    return personal_tokens_of(user=user).select_related("user").filter(uid=uid).first()
