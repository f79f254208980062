"""Rows that are numbered under a name: a change is the next number, never an edit."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import IntegrityError, transaction
from django.db.models import Model, QuerySet

RowT = TypeVar("RowT", bound=Model)
_TRIES = 20


def numbered_create(
    *,
    rows: QuerySet[RowT],
    is_same: Callable[[RowT], bool],
    create: Callable[[int], RowT],
) -> RowT:
    """The newest of `rows` if it is the same, else a new row with the next number.

    `rows` are those of one name, whose numbers are unique. Whoever saves at the same moment has
    taken the number; the next one is tried then.
    """
    for left in reversed(range(_TRIES)):
        newest: Any = rows.order_by("-number").first()
        if newest is not None and is_same(newest):
            return newest  # type: ignore[no-any-return]
        try:
            with transaction.atomic():
                return create(newest.number + 1 if newest else 1)
        except IntegrityError:
            if not left:
                raise
    raise AssertionError("unreachable")
