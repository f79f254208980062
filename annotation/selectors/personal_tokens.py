"""The tokens that a person's scripts use the API by."""

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils import timezone

from annotation.models import PersonalToken


def personal_tokens_of(*, user: User) -> QuerySet[PersonalToken]:
    """Those that work, the newest first. One query."""
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    found: QuerySet[PersonalToken] = PersonalToken.objects.filter(
        user=user, expiry__gt=timezone.now(), revoked_at=None, session_hash__in=hashes
    )
    return found


def personal_token_stands(token: PersonalToken) -> bool:
    """Whether it works still. No query, if its person is there."""
    hashes = [token.user.get_session_auth_hash(), *token.user.get_session_auth_fallback_hash()]
    has_time = token.expiry > timezone.now()
    return token.revoked_at is None and has_time and token.session_hash in hashes


def personal_token_get(*, user: User, uid: str) -> PersonalToken | None:
    """A person's token, also one that has ended; None if it is another's. One query."""
    found: PersonalToken | None = (
        PersonalToken.objects.select_related("user").filter(user=user, uid=uid).first()
    )
    return found
