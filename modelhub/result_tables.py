"""The tables inside a run's result, to be drawn: a list of like objects is a table.

    "best_of_n": [{"n": 1, "mean_score": 0.2}, {"n": 2, "mean_score": 0.5}]

Programs write their results as JSON and know no page. Here the column of such a list that counts
or names its rows comes first, then what matters most (modelhub/figure_order.py). Where the first is
a rising number, every other column of numbers is a curve over it. Columns `NAME_low` and
`NAME_high` are the interval of `NAME`. Plain Python.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelhub.charts import Curve, curve_draw
from modelhub.figure_order import column_order

MAX_ROWS = 200  # of a table; curves are drawn of all


@dataclass(frozen=True, kw_only=True)
class ResultCurve:
    """One column over the first one."""

    name: str
    over: str
    drawn: Curve
    start: float  # on the axis below
    end: float


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """A list of like objects, its values as they are."""

    name: str  # dotted, as the result has it: "held_out.by_degree"
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]  # at most MAX_ROWS
    row_count: int
    curves: tuple[ResultCurve, ...]


def result_split(result: Mapping[str, Any]) -> tuple[dict[str, Any], list[ResultTable]]:
    """(the result without its tables, the tables in their order)."""
    tables: list[ResultTable] = []
    return _without(result, "", tables), tables


def _without(value: Mapping[str, Any], name: str, tables: list[ResultTable]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, item in value.items():
        dotted = f"{name}.{key}" if name else str(key)
        if isinstance(item, Mapping):
            inner = _without(item, dotted, tables)
            if inner or not item:
                kept[key] = inner
        elif _is_table(item):
            tables.append(_table(dotted, item))
        else:
            kept[key] = item
    return kept


def _is_table(value: Any) -> bool:
    """A list of two or more objects with the same two or more names and plain values."""
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(one, Mapping) for one in value)
        and len(value[0]) > 1
        and all(one.keys() == value[0].keys() for one in value)
        and not any(isinstance(cell, Mapping | list) for one in value for cell in one.values())
    )


def _table(name: str, value: Sequence[Mapping[str, Any]]) -> ResultTable:
    columns = columns_ordered(value)
    rows = [tuple(one[column] for column in columns) for one in value]
    return ResultTable(
        name=name,
        columns=columns,
        rows=tuple(rows[:MAX_ROWS]),
        row_count=len(rows),
        curves=tuple(_curves(columns, rows)),
    )


def columns_ordered(value: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of like objects in the order of reading; results keep them sorted."""
    texts = {name for name in value[0] if any(isinstance(one[name], str) for one in value)}
    return tuple(sorted(value[0], key=lambda name: column_order(name, is_text=name in texts)))


def _curves(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[ResultCurve]:
    xs = [row[0] for row in rows]
    is_axis = all(map(_is_number, xs)) and all(a < b for a, b in itertools.pairwise(xs))
    for place, column in enumerate(columns[1:], start=1):
        if not is_axis or column.endswith(("_low", "_high")):
            continue
        points = [(row[0], row[place]) for row in rows if _is_number(row[place])]
        drawn = curve_draw(points) if len(points) == len(rows) else None
        if drawn is not None:
            yield ResultCurve(name=column, over=columns[0], drawn=drawn, start=xs[0], end=xs[-1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
