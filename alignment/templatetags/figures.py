"""How numbers are written on the pages of rounds."""

from collections.abc import Mapping
from typing import Any

from django import template
from django.utils.translation import gettext

from alignment.selectors.overview import RoundFigures
from modelhub.charts import Chart, Curve, chart_draw, curve_draw

register = template.Library()
_FORMS = {
    "score": "{:.3f}",
    "signed": "{:+.3f}",
    "share": "{:.1%}",
    "tokens": "{:.1f}",
    "signed_tokens": "{:+.1f}",
    "nats": "{:.2f}",
}


@register.filter
def figure(value: Any, form: str = "score") -> str:
    """A number, or the mean of {"mean", "low", "high"}; a dash for nothing."""
    mean = value.get("mean") if isinstance(value, Mapping) else value
    return "–" if mean is None else _written(mean, form)


@register.filter
def interval(value: Any, form: str = "score") -> str:
    """ "0.12 to 0.34" of {"mean", "low", "high"}; empty for a figure without an interval."""
    if not isinstance(value, Mapping) or value.get("low") is None:
        return ""
    low, high = _written(value["low"], form), _written(value["high"], form)
    return gettext("%(low)s to %(high)s") % {"low": low, "high": high}


def _written(value: float, form: str) -> str:
    # Shares differ by points of a hundred; "+8 %" of a share would be something else.
    if form == "signed_share":
        return gettext("%(number)s points") % {"number": f"{100 * value:+.1f}"}
    return _FORMS[form].format(value)


@register.filter
def signed(form: str) -> str:
    """The form that writes differences of figures in this form."""
    return "signed" if form == "score" else f"signed_{form}"


@register.filter
def duration(seconds: float | None) -> str:
    """Seconds in words: "42 s", "3 min 5 s", "2 h 14 min"."""
    if seconds is None:
        return ""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if whole < 60:
        return gettext("%(seconds)s s") % {"seconds": whole}
    if whole < 3600:
        return gettext("%(minutes)s min %(seconds)s s") % {
            "minutes": minutes,
            "seconds": whole % 60,
        }
    if hours < 48:
        return gettext("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes % 60}
    return gettext("%(days)s days") % {"days": hours // 24}


@register.simple_tag
def curve(points: list[tuple[int, float]]) -> Curve | None:
    return curve_draw(points)


@register.simple_tag
def reward_chart(figures: list[RoundFigures]) -> Chart | None:
    """The paired reward difference of each round, with its interval."""
    return chart_draw(
        [
            (_round_name(one), one.reward["mean"], one.reward["low"], one.reward["high"])
            for one in figures
        ]
    )


def _round_name(figures: RoundFigures) -> str:
    return gettext("Round %(number)s") % {"number": figures.round.number}


@register.simple_tag
def kl_chart(figures: list[RoundFigures]) -> Chart | None:
    return chart_draw([(_round_name(one), one.kl, one.kl, one.kl) for one in figures])
