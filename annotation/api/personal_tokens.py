"""Who a request of the API comes from, by a token that a person made for their scripts."""

import re
from typing import Any

from django.contrib.auth.models import User
from django.utils.translation import gettext
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.auth import TokenAuthentication
from knox.settings import knox_settings
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from annotation.models import PersonalToken
from annotation.selectors.personal_tokens import personal_token_stands
from annotation.services.personal_tokens import personal_token_use


class PersonalTokenAuthentication(TokenAuthentication):  # type: ignore[misc]  # as its model
    """`Authorization: Bearer <token>`: as the person whose it is, and no more than they may.

    A request without the header is looked for a session. What a token may not do is refused here,
    where every request by one comes through, and not by each view.
    """

    def authenticate(self, request: Request) -> tuple[User, PersonalToken] | None:
        found = super().authenticate(request)
        if found is None:
            return None
        user, token = found
        if not token.may_write and request.method not in SAFE_METHODS:
            raise PermissionDenied(
                gettext("The token “%(name)s” may only read. Make one that may write too.")
                % {"name": token.name}
            )
        personal_token_use(token=token)
        return user, token

    def authenticate_credentials(self, token: bytes) -> tuple[User, PersonalToken]:
        try:
            if not _SECRET.fullmatch(token):  # no database is asked for what no token is
                raise AuthenticationFailed
            found: tuple[User, PersonalToken] = super().authenticate_credentials(token)
        except AuthenticationFailed as error:
            raise AuthenticationFailed(
                gettext("There is no such token, or it has ended or was revoked.")
            ) from error
        return found

    def _cleanup_token(self, auth_token: PersonalToken) -> bool:
        """Whether it counts for nothing. What has ended is kept: it tells who was let in till when.

        knox would delete it here, before it has compared any digest.
        """
        return not personal_token_stands(auth_token)


_SECRET = re.compile(rb"%s[0-9a-f]{64}" % knox_settings.TOKEN_PREFIX.encode())


class PersonalTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """What the API's schema says of it."""

    target_class = PersonalTokenAuthentication
    name = "personalToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
