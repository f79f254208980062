"""Queries whose SQL is compiled once a process: for the few that run at every request.

The ORM takes several times as long to write such a query down as a database takes to answer it.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import QuerySet


class Prepared:
    """A `values_list` queryset with places for values, as `build(name=value, …)` makes it.

    Values are numbers or times, given as `numbers` and `times` by name. What comes back are the
    database's own rows: JSON columns are text, for example.
    """

    def __init__(
        self,
        build: Callable[..., QuerySet[Any, Any]],
        *,
        numbers: tuple[str, ...] = (),
        times: tuple[str, ...] = (),
    ) -> None:
        self._build, self._numbers, self._times = build, numbers, times
        self._compiled: dict[str, tuple[str, list[tuple[str | None, Any]]]] = {}

    def rows(self, **values: Any) -> list[tuple[Any, ...]]:
        """One query. Inside a transaction, if the queryset locks."""
        vendor = connection.vendor
        if vendor not in self._compiled:
            self._compiled[vendor] = self._compile()
        sql, places = self._compiled[vendor]
        given = {name: _adapted(value) for name, value in values.items()}
        params = [fixed if name is None else given[name] for name, fixed in places]
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def _compile(self) -> tuple[str, list[tuple[str | None, Any]]]:
        """The SQL, and for each of its parameters the name of a value, or what it always is.

        Compiled with two sets of values: a parameter that differs is the place of one.
        """
        first, second = self._samples(0), self._samples(500)
        sql, params = self._build(**first).query.sql_with_params()
        _, others = self._build(**second).query.sql_with_params()
        names = {(_adapted(value), _adapted(second[name])): name for name, value in first.items()}
        places: list[tuple[str | None, Any]] = [
            (None, one) if one == other else (names[one, other], None)
            for one, other in zip(params, others, strict=True)
        ]
        missing = {*self._numbers, *self._times} - {name for name, _ in places}
        if missing:
            raise ValueError(f"{sorted(missing)} do not appear in the query as they were given")
        return sql, places

    def _samples(self, offset: int) -> dict[str, Any]:
        """A value for each name, that fits the smallest column."""
        numbers = {name: 31_001 + offset + place for place, name in enumerate(self._numbers)}
        epoch = datetime(2001, 1, 1, tzinfo=UTC) + timedelta(days=offset)
        times = {name: epoch + timedelta(days=place) for place, name in enumerate(self._times)}
        return {**numbers, **times}


def _adapted(value: Any) -> Any:
    """A value as the ORM passes it to the database's driver."""
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value
