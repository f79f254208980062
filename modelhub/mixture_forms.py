"""The planner of mixtures as a query string: one page, told anew with every change.

set=UID …  cap-UID  kind-UID    the token sets, by the run that made them
step-0  by-0  temperature-0  weight-0-UID    a blend; step-1 … those that follow
tokens  block_tokens  blocks_per_step  rate
add=1, drop=1    another blend behind the last, or one fewer
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from modelhub.errors import ApplicationError
from modelhub.selectors.mixtures import BY, BlendAsk, MixtureAsk

MOST_BLENDS = 8
_MOST = 10**15

BY_TITLES = {
    "size": _("by size"),
    "temperature": _("by size, evened out"),
    "hand": _("by hand"),
    "llama": _("LLaMA’s table"),
}


class MixtureNameForm(forms.Form):
    """A name to keep a mixture under."""

    name = forms.SlugField(max_length=80)
    note = forms.CharField(max_length=300, required=False)
    plan = forms.CharField(max_length=100_000)


def ask_read(given: QueryDict) -> MixtureAsk:
    """What a query asks for. Raises ApplicationError naming the field that is no number."""
    default = MixtureAsk()
    sets = tuple(dict.fromkeys(given.getlist("set")))
    blends = []
    for at in range(MOST_BLENDS):
        if at and f"step-{at}" not in given:
            break
        by = given.get(f"by-{at}", "size")
        blends.append(
            BlendAsk(
                first_step=_whole(given, f"step-{at}", 0) if at else 0,
                by=by if by in BY else "size",
                temperature=_number(given, f"temperature-{at}", 2.0),
                weights={uid: _number(given, f"weight-{at}-{uid}", 1.0) for uid in sets},
            )
        )
    ask = MixtureAsk(
        sets=sets,
        caps={uid: _number(given, f"cap-{uid}", 0.0) for uid in sets},
        kinds={uid: given.get(f"kind-{uid}", "")[:40] for uid in sets},
        blends=tuple(sorted(blends, key=lambda one: one.first_step)),
        tokens=_whole(given, "tokens", default.tokens),
        block_tokens=_whole(given, "block_tokens", default.block_tokens),
        blocks_per_step=_whole(given, "blocks_per_step", default.blocks_per_step),
        rate_of=given.get("rate", "")[:32],
    )
    return _changed(ask, given)


def _changed(ask: MixtureAsk, given: Mapping[str, Any]) -> MixtureAsk:
    last = ask.blends[-1]
    if given.get("add") and len(ask.blends) < MOST_BLENDS:
        step = (last.first_step + ask.steps) // 2
        return replace(ask, blends=(*ask.blends, replace(last, first_step=step)))
    if given.get("drop") and len(ask.blends) > 1:
        return replace(ask, blends=ask.blends[:-1])
    return ask


def ask_query(ask: MixtureAsk) -> str:
    """The query string that asks for it."""
    parts: list[tuple[str, Any]] = [("set", uid) for uid in ask.sets]
    parts += [(f"cap-{uid}", f"{cap:g}") for uid, cap in ask.caps.items() if cap]
    parts += [(f"kind-{uid}", kind) for uid, kind in ask.kinds.items() if kind]
    for at, blend in enumerate(ask.blends):
        parts += [(f"step-{at}", blend.first_step), (f"by-{at}", blend.by)]
        if blend.by == "temperature":
            parts.append((f"temperature-{at}", f"{blend.temperature:g}"))
        if blend.by == "hand":
            parts += [(f"weight-{at}-{uid}", f"{one:.9g}") for uid, one in blend.weights.items()]
    parts += [
        ("tokens", ask.tokens),
        ("block_tokens", ask.block_tokens),
        ("blocks_per_step", ask.blocks_per_step),
    ]
    parts += [("rate", ask.rate_of)] if ask.rate_of else []
    return urlencode(parts)


def _number(given: Mapping[str, Any], name: str, default: float) -> float:
    text = str(given.get(name, "")).strip()
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _MOST:
        raise ApplicationError(
            gettext("%(field)s: %(text)s is no number of 0 or more.")
            % {"field": name.partition("-")[0], "text": text[:40]}
        )
    return number


def _whole(given: Mapping[str, Any], name: str, default: int) -> int:
    """A whole number, also as people write large ones: 10M, 1.5B."""
    text = str(given.get(name, "")).strip().replace(",", "").replace(" ", "")
    scale = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}.get(text[-1:].lower(), 1)
    bare = text[:-1] if scale > 1 else text
    number = round(_number({name: bare}, name, default if not bare else 0.0) * scale)
    if number < 1 and not name.startswith("step"):
        raise ApplicationError(gettext("%(field)s: wanted 1 or more.") % {"field": name})
    return min(number, _MOST)
