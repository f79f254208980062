"""How the hub's pages write numbers, times and facts."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone

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
