"""How figures of quality are written on the pages."""

from django import template

from annotation.agreement import Interval

register = template.Library()


@register.filter
def share(value: float | None) -> str:
    """0.126 → "13 %"; a dash for nothing."""
    return "–" if value is None else f"{100 * value:.0f} %"


@register.filter
def coefficient(value: float | Interval | None) -> str:
    """A coefficient of agreement or a weight, with two digits; a dash for nothing."""
    if isinstance(value, Interval):
        value = value.value
    return "–" if value is None else f"{value:.2f}"


@register.filter
def ends(interval: Interval | None) -> str:
    """ "0.12 to 0.34"; empty for a figure without an interval."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"{interval.low:.2f} to {interval.high:.2f}"


@register.filter
def seconds(value: float | None) -> str:
    """ "42 s", "3 min 5 s"; a dash for nothing."""
    if value is None:
        return "–"
    whole = round(value)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
