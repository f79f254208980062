"""Statements whose SQL is written down once a process: for the few that run at every request.

The ORM takes several times as long to write such a statement down as a database takes to answer it.
On PostgreSQL the server, too, keeps it parsed and planned: each connection prepares it once.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import AutoField, Field, Model, QuerySet
from django.db.models.query import get_related_populators
from django.db.models.sql import Query, UpdateQuery

ModelT = TypeVar("ModelT", bound=Model)


@dataclass(frozen=True)
class _Compiled:
    """SQL, and for each of its parameters the name of a value, or what it always is."""

    sql: str
    places: list[tuple[str | None, Any]]
    compiler: Any  # Django's, which knows what the columns mean
    converters: dict[int, Any]  # from the database's values, by column


class _Statement:
    """What the kinds of prepared statements share: a query with places for values.

    `build(name=value, …)` makes the query. Values are numbers, texts or times, given by name.
    """

    def __init__(
        self,
        build: Callable[..., Any],
        *,
        numbers: tuple[str, ...] = (),
        texts: tuple[str, ...] = (),
        times: tuple[str, ...] = (),
    ) -> None:
        self._build, self._numbers, self._texts, self._times = build, numbers, texts, times
        self._compiled: dict[str, _Compiled] = {}

    @contextmanager
    def _executed(self, values: dict[str, Any]) -> Iterator[tuple[_Compiled, Any]]:
        """What was compiled for this database, and a cursor that has run it."""
        connection = connections[DEFAULT_DB_ALIAS]
        if connection.vendor not in self._compiled:
            self._compiled[connection.vendor] = self._compile(connection)
        compiled = self._compiled[connection.vendor]
        given = {name: _adapted(value, connection) for name, value in values.items()}
        with _cursor(connection) as cursor:
            cursor.execute(
                compiled.sql,
                [fixed if name is None else given[name] for name, fixed in compiled.places],
            )
            yield compiled, cursor

    def _query(self, values: dict[str, Any]) -> Query:
        query: Query = self._build(**values).query
        return query

    def _compile(self, connection: Any) -> _Compiled:
        """Compiled with two sets of values: a parameter that differs is the place of one."""
        first, second = self._samples(0), self._samples(500)
        compiler = self._query(first).get_compiler(using=DEFAULT_DB_ALIAS)
        sql, params = compiler.as_sql()
        _, others = self._query(second).get_compiler(using=DEFAULT_DB_ALIAS).as_sql()
        names = {
            (_adapted(value, connection), _adapted(second[name], connection)): name
            for name, value in first.items()
        }
        places: list[tuple[str | None, Any]] = [
            (None, one) if one == other else (names[one, other], None)
            for one, other in zip(params, others, strict=True)
        ]
        missing = set(first) - {name for name, _ in places}
        if missing:
            raise ValueError(f"{sorted(missing)} do not appear in the query as they were given")
        columns = [one[0] for one in getattr(compiler, "select", None) or ()]
        sql, places = _written_out(sql, places)
        return _Compiled(sql, places, compiler, compiler.get_converters(columns))

    def _samples(self, offset: int) -> dict[str, Any]:
        """A value for each name, that fits the smallest column."""
        numbers = {name: 31_001 + offset + place for place, name in enumerate(self._numbers)}
        texts = {name: f"text {offset + place}" for place, name in enumerate(self._texts)}
        epoch = datetime(2001, 1, 1, tzinfo=UTC) + timedelta(days=offset)
        times = {name: epoch + timedelta(days=place) for place, name in enumerate(self._times)}
        return {**numbers, **texts, **times}


class Prepared(_Statement):
    """A `values_list` queryset. What comes back are the database's own rows: JSON is text."""

    def rows(self, **values: Any) -> list[tuple[Any, ...]]:
        """One query. Inside a transaction, if the queryset locks."""
        with self._executed(values) as (_, cursor):
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


class PreparedObjects(_Statement, Generic[ModelT]):
    """A queryset of whole objects, with what `select_related` names; nothing is prefetched."""

    def __init__(self, build: Callable[..., QuerySet[ModelT]], **names: tuple[str, ...]) -> None:
        super().__init__(build, **names)

    def objects(self, **values: Any) -> list[ModelT]:
        """One query. Inside a transaction, if the queryset locks."""
        with self._executed(values) as (compiled, cursor):
            rows = cursor.fetchall()
        compiler = compiled.compiler
        columns = compiler.klass_info["select_fields"]
        start, end = columns[0], columns[-1] + 1
        names = [one[0].target.attname for one in compiler.select[start:end]]
        related = get_related_populators(  # type: ignore[call-arg]  # stubs of a later Django
            compiler.klass_info, compiler.select, DEFAULT_DB_ALIAS
        )
        found: list[ModelT] = []
        for row in compiler.apply_converters(rows, compiled.converters):
            made = compiler.klass_info["model"].from_db(DEFAULT_DB_ALIAS, names, row[start:end])
            for populator in related:
                populator.populate(row, made)
            found.append(made)
        return found

    def first(self, **values: Any) -> ModelT | None:
        """The first of the objects. One query."""
        found = self.objects(**values)
        return found[0] if found else None


class PreparedUpdate(_Statement):
    """An UPDATE: `build` returns the queryset of the rows, and field → what becomes of it."""

    def run(self, **values: Any) -> int:
        """How many rows there were. One query."""
        with self._executed(values) as (_, cursor):
            count: int = cursor.rowcount
            return count

    def _query(self, values: dict[str, Any]) -> Query:
        rows, changes = self._build(**values)
        query: UpdateQuery = rows.query.chain(UpdateQuery)
        query.add_update_values(changes)
        query.clear_ordering(force=True)
        return query


def row_insert(row: ModelT) -> ModelT:
    """INSERT a new row, as its `save` would, and give it its key. One query."""
    connection = connections[DEFAULT_DB_ALIAS]
    sql, fields, key = _insert(type(row), connection.vendor)
    values = [field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in fields]
    with _cursor(connection) as cursor:
        cursor.execute(sql, values)
        ((made,),) = cursor.fetchall()
    if key is not None:
        setattr(row, key, made)
    row._state.adding, row._state.db = False, DEFAULT_DB_ALIAS
    return row


@cache
def _insert(model: type[Model], vendor: str) -> tuple[str, list["Field[Any, Any]"], str | None]:
    """An INSERT of a model, the fields it gives values for, and the key that the database makes."""
    quote = connections[DEFAULT_DB_ALIAS].ops.quote_name
    meta = model._meta
    pk = meta.pk
    fields = [field for field in meta.local_concrete_fields if not isinstance(field, AutoField)]
    columns = ", ".join(quote(str(field.column)) for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    sql = (
        f"INSERT INTO {quote(meta.db_table)} ({columns}) VALUES ({marks})"  # noqa: S608
        f" RETURNING {quote(str(pk.column))}"
    )
    return sql, fields, pk.attname if isinstance(pk, AutoField) else None


def _cursor(connection: Any) -> Any:
    """A cursor that leaves the parameters to the server, so that it can keep the statement."""
    if connection.vendor != "postgresql":
        return connection.cursor()
    from django.db.backends.postgresql.base import ServerBindingCursor

    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor = ServerBindingCursor(connection.connection)  # type: ignore[call-arg]
        return connection._prepare_cursor(cursor)


def _written_out(
    sql: str, places: list[tuple[str | None, Any]]
) -> tuple[str, list[tuple[str | None, Any]]]:
    """The SQL with what its parameters always are in it, and the places that are left.

    A server that plans for any value cannot know that an index of the rows with free slots serves
    `slots_free > $1`; with `slots_free > 0` it plans once.
    """
    left: list[tuple[str | None, Any]] = []
    given = iter(places)

    def write(mark: re.Match[str]) -> str:
        if mark[0] == "%%":
            return "%%"
        name, fixed = next(given)
        if name is None and isinstance(fixed, int):
            return str(fixed).upper()  # 1, or TRUE
        if name is None and isinstance(fixed, str) and _PLAIN.fullmatch(fixed):
            return f"'{fixed}'"
        left.append((name, fixed))
        return "%s"

    return re.sub("%%|%s", write, sql), left


_PLAIN = re.compile(r"[a-z_]*")


def _adapted(value: Any, connection: Any) -> Any:
    """A value as the ORM passes it to the database's driver."""
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value
