"""Tokens by which a script uses the API as the person who made it."""

from dataclasses import dataclass, field
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext

from annotation.models import PersonalToken
from annotation.selectors.personal_tokens import personal_tokens_of
from annotation.services.tokens import token_name
from modelhub.errors import ApplicationError, ConflictError

MAX_TOKENS = 20  # of one person
LIFETIMES_DAYS = (30, 90, 365)
OVERLAP = timedelta(hours=24)  # that a renewed token goes on working beside the new one
_USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class MadeToken:
    """A token and its secret, which is shown once and stored as a digest."""

    token: PersonalToken
    secret: str = field(repr=False)


@transaction.atomic
def personal_token_create(*, user: User, name: str, may_write: bool, days: int) -> MadeToken:
    """Make a token that ends after so many days, or with the person's password.

    Raises ApplicationError for a name that is empty or too long, another lifetime than those
    offered, and more tokens than a person may have.
    """
    name = token_name(name)
    if days not in LIFETIMES_DAYS:
        raise ApplicationError(
            gettext("A token is good for %(days)s days.")
            % {"days": ", ".join(str(one) for one in LIFETIMES_DAYS)},
            {"field": "days"},
        )
    user = _alone(user)
    if personal_tokens_of(user=user).filter(replaced_at=None).count() >= MAX_TOKENS:
        raise ApplicationError(
            gettext("You have %(max_tokens)s tokens. Revoke one that nothing uses any more.")
            % {"max_tokens": MAX_TOKENS}
        )
    return _make(user=user, name=name, may_write=may_write, days=days)


@transaction.atomic
def personal_token_renew(*, token: PersonalToken) -> MadeToken:
    """Another token for this one, for as many days; this one goes on working for a day.

    So a script's secret is exchanged without a moment at which neither works. Raises ConflictError
    where the token was renewed before, has ended or was revoked.
    """
    user = _alone(token.user)
    now = timezone.now()
    replaced = personal_tokens_of(user=user).filter(pk=token.pk, replaced_at=None)
    ends = min(token.expiry, now + OVERLAP)
    if not replaced.update(replaced_at=now, expiry=ends):
        raise ConflictError(
            gettext("“%(name)s” was renewed already, or has ended: its new secret was shown then.")
            % {"name": token.name}
        )
    return _make(user=user, name=token.name, may_write=token.may_write, days=token.days)


def personal_token_revoke(*, token: PersonalToken) -> None:
    """End a token at once and for good. Asked twice, it changes nothing."""
    PersonalToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())


def personal_token_use(*, token: PersonalToken) -> None:
    """Note that it was used, once a minute at most: reads are to stay reads."""
    now = timezone.now()
    if token.used_at is None or now - token.used_at > _USE_NOTED_EVERY:
        stale = Q(used_at=None) | Q(used_at__lt=now - _USE_NOTED_EVERY)
        PersonalToken.objects.filter(stale, pk=token.pk).update(used_at=now)


def _alone(user: User) -> User:
    """The person, with no other request of theirs beside this one until the transaction ends."""
    return User.objects.select_for_update(no_key=True).get(pk=user.pk)


def _make(*, user: User, name: str, may_write: bool, days: int) -> MadeToken:
    token, secret = PersonalToken.objects.create(
        user,
        expiry=timedelta(days=days),
        name=name,
        may_write=may_write,
        days=days,
        session_hash=user.get_session_auth_hash(),
    )
    return MadeToken(token=token, secret=secret)
