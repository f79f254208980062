"""Tokens by which a product sends its users' feedback to one project."""

import hashlib
import secrets
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext

from annotation.models import Membership, Project, ProjectToken
from annotation.services.projects import membership_add
from modelhub.errors import ApplicationError

MAX_NAME_CHARS = 120
PREFIX = "rondo_"  # so that scanners for leaked secrets know one
_USE_NOTED_EVERY = timedelta(minutes=1)


@transaction.atomic
def project_token_create(*, project: Project, name: str) -> tuple[ProjectToken, str]:
    """Make a token and return it with its secret, which is shown once and stored as a digest.

    What it sends is submitted by a member of its own, an account that nobody can sign in to and
    that bears the token's name.
    """
    name = token_name(name)
    secret = PREFIX + secrets.token_urlsafe(32)
    token = ProjectToken(project=project, name=name, token_sha256=_digest(secret))
    user = User(username=f"product-{token.uid}", first_name=name, is_active=False)
    user.set_unusable_password()
    user.save()
    token.membership = membership_add(
        project=project,
        user=user,
        role=Membership.Role.ANNOTATOR,
        source=Membership.Source.PRODUCT,
    )
    token.save()
    return token, secret


def project_token_revoke(*, token: ProjectToken) -> None:
    """End a token, at once and for good; what it sent stays. Asked twice, it changes nothing."""
    ProjectToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())


def project_token_use(*, secret: str) -> ProjectToken | None:
    """The standing token with this secret, noting that it was used; None if there is none."""
    if not secret.startswith(PREFIX):
        return None
    token = (
        ProjectToken.objects.filter(
            token_sha256=_digest(secret), revoked_at=None, membership__removed_at=None
        )
        .select_related("project", "membership__user")
        .first()
    )
    if token is None:
        return None
    now = timezone.now()
    if token.used_at is None or now - token.used_at > _USE_NOTED_EVERY:
        stale = Q(used_at=None) | Q(used_at__lt=now - _USE_NOTED_EVERY)
        ProjectToken.objects.filter(stale, pk=token.pk).update(used_at=now)
    return token


def token_name(name: str) -> str:
    """A token's name as it is kept. Raises ApplicationError for one that is empty or too long."""
    name = name.strip()
    if not name or len(name) > MAX_NAME_CHARS:
        raise ApplicationError(
            gettext("A token needs a name of at most %(max_name_chars)s characters.")
            % {"max_name_chars": MAX_NAME_CHARS},
            {"field": "name"},
        )
    return name


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
