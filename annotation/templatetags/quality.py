"""How figures of quality are written on the pages."""

from typing import Any

from django import template
from django.utils.translation import gettext

from annotation.agreement import Interval
from annotation.models import Membership, Split, Submission, Task

register = template.Library()


@register.filter
def share(value: Any) -> str:
    """0.126 → "13 %"; a dash for nothing, as a template has it where a figure is missing."""
    return f"{100 * value:.0f} %" if isinstance(value, float | int) else "–"


@register.filter
def coefficient(value: Any) -> str:
    """A coefficient of agreement or a weight, with two digits; a dash for nothing."""
    if isinstance(value, Interval):
        value = value.value
    return f"{value:.2f}" if isinstance(value, float | int) else "–"


@register.filter
def ends(interval: Any) -> str:
    """ "0.12 to 0.34"; empty for a figure without an interval."""
    if not isinstance(interval, Interval) or interval.low is None or interval.high is None:
        return ""
    return gettext("%(low)s to %(high)s") % {
        "low": f"{interval.low:.2f}",
        "high": f"{interval.high:.2f}",
    }


@register.filter
def seconds(value: Any) -> str:
    """ "42 s", "3 min 5 s"; a dash for nothing."""
    if not isinstance(value, float | int):
        return "–"
    whole = round(value)
    if whole < 60:
        return gettext("%(seconds)s s") % {"seconds": whole}
    return gettext("%(minutes)s min %(seconds)s s") % {
        "minutes": whole // 60,
        "seconds": whole % 60,
    }


@register.filter
def kind_label(kind: str) -> str:
    """The name of a kind of task; the word itself for one that there is no more."""
    return str(Task.Kind(kind).label) if kind in Task.Kind.values else kind


@register.filter
def split_label(split: str) -> str:
    """The name of a side of the split; "all" for all of them."""
    return str(Split(split).label) if split in Split.values else gettext("all")


@register.filter
def role_label(role: str) -> str:
    """Who says a turn of a conversation."""
    known = {
        "user": gettext("user"),
        "assistant": gettext("assistant"),
        "system": gettext("system"),
    }
    return known.get(role, role)


@register.filter
def sources_counted(counts: Any) -> list[tuple[str, int]]:
    """(who judged, rows) of a dataset's counts, where there are any; none for old datasets."""
    by_source = counts.get("used_by_source", {}) if isinstance(counts, dict) else {}
    return [(_judges(name), rows) for name, rows in by_source.items() if rows]


@register.filter
def sources_named(sources: Any) -> str:
    """["person", "product"] → "people, users of products"."""
    return ", ".join(_judges(name) for name in sources)


def _judges(source: str) -> str:
    """Who judges, of a kind of member; the word itself for a kind that there is no more."""
    words: dict[str, str] = {
        Membership.Source.PERSON: gettext("people"),
        Membership.Source.SIMULATED: gettext("simulated annotators"),
        Membership.Source.MODEL: gettext("judge models"),
        Membership.Source.PRODUCT: gettext("users of products"),
    }
    return words.get(source, source)


@register.filter
def left_out(reason: str) -> str:
    """Why judgements are not in a dataset: what became of them, or what was not asked for."""
    words = {
        **{status.value: str(status.label) for status in Submission.Status},
        "after_until": gettext("later than asked for"),
        "other_batch": gettext("of another batch"),
        "other_split": gettext("of another split"),
        "other_origin": gettext("of another origin"),
        "overruled": gettext("overruled by a reviewer"),
        "same_text": gettext("a choice between two answers that read the same"),
    }
    return words.get(reason, reason.replace("_", " "))
