"""A request sent twice is done once, and answered twice."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext

from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.records import json_canonical
from modelhub.models import IdempotentRequest
from modelhub.prepared import PreparedObjects, row_insert

KEPT = timedelta(hours=24)


def idempotent(*, user: User, key: str, body: Any, act: Callable[[], Any]) -> Any:
    """The reply of `act` (JSON values), given once under the user's key and repeated afterwards.

    `act` runs in the transaction that keeps its reply: either both happened or neither. Of any
    number of simultaneous calls with one key, what one did is kept; the others are undone, or never
    begun, and get its reply. A reply is kept for 24 hours. Raises ConflictError if the key came
    with another body, and whatever `act` raises (nothing is kept then).
    """
    if not 1 <= len(key) <= 200 or not key.isprintable():
        raise ApplicationError(gettext("An Idempotency-Key has 1 to 200 printable characters."))
    digest = hashlib.sha256(json_canonical(body).encode()).hexdigest()
    try:
        with transaction.atomic():
            given = _given(user, key)
            if given is None:
                response = act()
                row_insert(
                    IdempotentRequest(user=user, key=key, request_sha256=digest, response=response)
                )
                return response
    except (IntegrityError, ApplicationError):
        # Was another request with this key first? Then its reply is there now.
        given = _given(user, key)
        if given is None:
            raise
    if given.request_sha256 != digest:
        raise ConflictError(
            gettext("This Idempotency-Key was used for another request."), {"key": key}
        )
    return given.response


def idempotent_requests_expire() -> int:
    """Forget replies older than a day. Returns how many."""
    count, _ = IdempotentRequest.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
    return count


def _given(user: User, key: str) -> IdempotentRequest | None:
    """The request that had this key, unless that was too long ago. One query, or two."""
    given = _GIVEN.first(user=user.pk, key=key)
    if given is not None and given.created_at < timezone.now() - KEPT:
        given.delete()
        return None
    return given


_GIVEN = PreparedObjects(
    lambda user, key: IdempotentRequest.objects.filter(user=user, key=key).order_by(),
    numbers=("user",),
    texts=("key",),
)
