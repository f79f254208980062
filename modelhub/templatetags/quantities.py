"""How the hub's pages write numbers, times and facts."""

import json
import re
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.translation import gettext

from modelhub.charts import Reliability, reliability_draw
from modelhub.figure_order import headlines
from modelhub.json_text import count_text, json_rows, json_text
from modelhub.models import Run
from modelhub.rule_labels import FAMILIES, step_label

register = template.Library()


@register.filter
def count(value: int | None) -> str:
    """A large count in words: 134515008 → "134.5 M", 950 → "950"."""
    return "–" if value is None else count_text(value)


@register.filter
def stored_type(name: str) -> str:
    """A type of quantised weights with its bits: "Q4_1" → "Q4_1, 4 bits a weight"."""
    bits = re.search(r"\d+", name)
    if bits is None:
        return name
    return gettext("%(type)s, %(bits)s bits a weight") % {"type": name, "bits": bits[0]}


@register.filter
def gibibytes(value: float) -> str:
    """Bytes as GiB: 1610612736 → "1.5"."""
    return f"{value / 2**30:,.1f}"


@register.filter
def long_time(seconds: float) -> str:
    """A long time in one unit: 90 → "1.5 min", 200000 → "2.3 days"."""
    if seconds < 1:
        return gettext("under 1 s")
    if seconds < 60:
        return gettext("%(seconds)s s") % {"seconds": round(seconds)}
    if seconds < 3600:
        return gettext("%(minutes)s min") % {"minutes": f"{seconds / 60:.1f}"}
    if seconds < 48 * 3600:
        return gettext("%(hours)s h") % {"hours": f"{seconds / 3600:.1f}"}
    return gettext("%(days)s days") % {"days": f"{seconds / 86400:,.1f}"}


@register.filter
def since(start: datetime | None, end: datetime | None = None) -> str:
    """The time from one moment to another (or now): "42 s", "3 min 5 s", "2 h 14 min"."""
    if start is None:
        return "–"
    seconds = max(0, round(((end or timezone.now()) - start).total_seconds()))
    if seconds < 60:
        return gettext("%(seconds)s s") % {"seconds": seconds}
    if seconds < 3600:
        return gettext("%(minutes)s min %(seconds)s s") % {
            "minutes": seconds // 60,
            "seconds": seconds % 60,
        }
    return gettext("%(hours)s h %(minutes)s min") % {
        "hours": seconds // 3600,
        "minutes": seconds // 60 % 60,
    }


@register.filter
def facts(value: Any) -> list[tuple[str, str]]:
    """Nested JSON as (dotted name, text) rows, long lists cut: {"a": {"b": 1}} → [("a.b", "1")]."""
    return list(json_rows(value)) if isinstance(value, dict) else []


@register.filter
def measured(value: Any) -> list[tuple[str, str]]:
    """What a program measured, as (words, text) rows.

    A figure whose bounds stand beside it takes them in ("accuracy", "accuracy_low", "accuracy_high"
    → "0.72 [0.64, 0.8]"), and a list of like things becomes a row for each of their names.
    """
    return [(words(name), text) for name, text in _bounded(value).items()]


@register.simple_tag
def headline_figures(run: Run) -> list[tuple[str, str]]:
    """The one to three figures of its result that a run's method is about, as (words, text)."""
    texts = _bounded(run.result)
    return [(words(name), texts[name]) for name in headlines(run.program, texts)]


def _bounded(value: Any) -> dict[str, str]:
    texts = dict(json_rows(_transposed(value))) if isinstance(value, dict) and value else {}
    bounded = [name for name in texts if {f"{name}_low", f"{name}_high"} <= texts.keys()]
    for name in bounded:
        texts[name] += f" [{texts.pop(f'{name}_low')}, {texts.pop(f'{name}_high')}]"
    return texts


@register.filter
def words(name: str) -> str:
    """A dotted name as words: "held_out.by_degree" → "held out · by degree"."""
    return name.replace(".", " · ").replace("_", " ")


@register.filter
def quantity(value: Any) -> str:
    """One value of a result as text: 0.123456 → "0.12346", 12000 → "12,000", None → "–"."""
    return json_text(value)


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


@register.filter(name="json")
def json_attribute(value: Any) -> str:
    """JSON values as text for a data attribute, which the template escapes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@register.filter
def percent(share: float | None) -> str:
    """A share as "43 %"; "–" where there is none."""
    return "–" if share is None else f"{100 * share:.0f} %"


@register.filter(name="step_label")
def step_label_of(name: str) -> str:
    """A step of a cleaning in words: "gopher.words_min" → "Words, at least"."""
    return step_label(name)


@register.filter
def rule_family(name: str) -> str:
    """A family of rules with where it is from."""
    return FAMILIES.get(name, name)


@register.filter
def visible(text: str) -> str:
    """A token's text on one line: line ends and tabs as signs."""
    return text.replace("\n", "⏎").replace("\t", "⇥")
