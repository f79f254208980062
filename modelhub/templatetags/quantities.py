"""How the hub's pages write numbers, times and facts."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone

from modelhub.charts import Reliability, reliability_draw

register = template.Library()
_SHOWN_NUMBERS = 6


@register.filter
def count(value: int | None) -> str:
    """A large count in words: 134515008 → "134.5 M", 950 → "950"."""
    if value is None:
        return "–"
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f} {letter}"
    return str(value)


@register.filter
def since(start: datetime | None, end: datetime | None = None) -> str:
    """The time from one moment to another (or now): "42 s", "3 min 5 s", "2 h 14 min"."""
    if start is None:
        return "–"
    seconds = max(0, round(((end or timezone.now()) - start).total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds // 60 % 60} min"


@register.filter
def facts(value: Any) -> list[tuple[str, str]]:
    """Nested JSON as (dotted name, text) rows, long lists cut: {"a": {"b": 1}} → [("a.b", "1")]."""
    return list(_rows(value, "")) if isinstance(value, dict) else []


@register.filter
def measured(value: Any) -> list[tuple[str, str]]:
    """What a program measured, as (words, text) rows.

    A figure whose bounds stand beside it takes them in ("accuracy", "accuracy_low", "accuracy_high"
    → "0.72 [0.64, 0.8]"), and a list of like things becomes a row for each of their names.
    """
    texts = dict(_rows(_transposed(value), "")) if isinstance(value, dict) and value else {}
    bounded = [name for name in texts if {f"{name}_low", f"{name}_high"} <= texts.keys()]
    for name in bounded:
        texts[name] += f" [{texts.pop(f'{name}_low')}, {texts.pop(f'{name}_high')}]"
    return [(words(name), text) for name, text in texts.items()]


@register.filter
def words(name: str) -> str:
    """A dotted name as words: "held_out.by_degree" → "held out · by degree"."""
    return name.replace(".", " · ").replace("_", " ")


@register.filter
def quantity(value: Any) -> str:
    """One value of a result as text: 0.123456 → "0.12346", 12000 → "12,000", None → "–"."""
    return _text(value)


@register.filter
def reliability(value: Any) -> Reliability | None:
    """The reliability curve of a result that has one."""
    tables = value.get("held_out_tables") if isinstance(value, dict) else None
    rows = tables.get("reliability") if isinstance(tables, dict) else None
    return reliability_draw([(row["belief"], row["accuracy"]) for row in rows]) if rows else None


def _transposed(value: Any) -> Any:
    """Nested JSON with every list of objects, each with the same names, as an object of lists."""
    if isinstance(value, dict):
        return {name: _transposed(item) for name, item in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        names = value[0].keys()
        if all(item.keys() == names for item in value):
            return {name: [item[name] for item in value] for name in names}
    return value


def _rows(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _rows(item, f"{name}.{key}" if name else str(key))
        return
    yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        shown = ", ".join(_text(item) for item in value[:_SHOWN_NUMBERS])
        return shown if len(value) <= _SHOWN_NUMBERS else f"{shown}, … ({len(value)} in all)"
    if isinstance(value, str):
        return value if len(value) <= 400 else f"{value[:400]}…"
    return json.dumps(value)
