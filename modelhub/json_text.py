"""Nested JSON values as rows of names and short texts, as pages show them."""

import json
from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext

_SHOWN_NUMBERS = 6


def json_rows(
    value: Any, name: str = "", *, figures_alone: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield (dotted name, text): {"a": {"b": 1}} → ("a.b", "1"). Long lists and texts are cut.

    figures_alone: leave out what is no single number.
    """
    if isinstance(value, dict) and (value or not name):
        for key, item in value.items():
            under = f"{name}.{key}" if name else str(key)
            yield from json_rows(item, under, figures_alone=figures_alone)
    elif not figures_alone or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield name, json_text(value)


def count_text(value: int) -> str:
    """A large count in words: 134515008 → "134.5 M", 950 → "950"."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f} {letter}"
    return str(value)


def json_text(value: Any) -> str:
    """A JSON value in a few words, as pages show it."""
    if isinstance(value, bool) or value is None:
        return {True: gettext("yes"), False: gettext("no"), None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        # Counts and thresholds are written out: nobody reads 1e+05 as a hundred thousand.
        return f"{value:,.0f}" if 10_000 <= abs(value) < 1e15 else f"{value:.5g}"
    if isinstance(value, list):
        shown = ", ".join(json_text(item) for item in value[:_SHOWN_NUMBERS])
        if len(value) <= _SHOWN_NUMBERS:
            return shown
        return gettext("%(shown)s, … (%(number)s in all)") % {"shown": shown, "number": len(value)}
    if isinstance(value, str):
        return value if len(value) <= 400 else f"{value[:400]}…"
    return json.dumps(value)
