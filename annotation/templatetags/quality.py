"""How figures of quality are written on the pages."""

from typing import Any

from django import template
from django.utils.translation import gettext

from annotation.agreement import Interval

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
