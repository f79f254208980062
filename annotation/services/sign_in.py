"""One-time links, for people without a password."""

import hashlib
import secrets
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from annotation.models import SignInLink


@transaction.atomic
def sign_in_link_create(*, user: User) -> str:
    """Make a link's token: shown once, stored as a digest. Unused earlier ones stop working."""
    token = secrets.token_urlsafe(32)
    now = timezone.now()
    sign_in_links_end(user=user)
    SignInLink.objects.create(
        user=user,
        token_sha256=_digest(token),
        expires_at=now + timedelta(seconds=settings.SIGN_IN_LINK_LIFETIME_S),
    )
    return token


@transaction.atomic
def sign_in_link_use(*, token: str) -> User | None:
    """The person the token signs in, once; None if it is unknown, used, old, or they are gone."""
    digest, now = _digest(token), timezone.now()
    used = SignInLink.objects.filter(
        token_sha256=digest, used_at=None, expires_at__gt=now, user__is_active=True
    ).update(used_at=now)
    if not used:
        return None
    return SignInLink.objects.select_related("user").get(token_sha256=digest).user


def sign_in_links_end(*, user: User) -> None:
    """Unused links stop working: there is a newer one, or a password that only the person knows."""
    now = timezone.now()
    SignInLink.objects.filter(user=user, used_at=None, expires_at__gt=now).update(expires_at=now)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
