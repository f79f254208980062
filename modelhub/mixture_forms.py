"""The planner of mixtures as a query string: one page, told anew with every change.

set=UID …  cap-UID  kind-UID    the token sets, by the run that made them
step-0  by-0  temperature-0  weight-0-UID    a blend; step-1 … those that follow
tokens  block_tokens  blocks_per_step  rate
add=1, drop=1    another blend behind the last, or one fewer
"""

import math
import re
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
_MOST_IN_COLUMN = 2**31 - 1  # of a PositiveIntegerField
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?")  # 1,500,000; a decimal comma is no number

_LABELS = {
    "tokens": _("Tokens"),
    "block_tokens": _("Tokens of a block"),
    "blocks_per_step": _("Blocks of a step"),
    "step": _("From step"),
    "cap": _("Most epochs"),
    "temperature": _("temperature"),
    "weight": _("Weight"),
}

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
    ask, refusals = ask_read_some(given)
    if refusals:
        raise ApplicationError(refusals[0])
    return ask


def ask_read_some(given: QueryDict) -> tuple[MixtureAsk, list[str]]:
    """What can be read of a query, with the defaults for fields that are no numbers, and what is
    said of those."""
    default = MixtureAsk()
    refusals: list[str] = []

    def number(name: str, default: float) -> float:
        try:
            return _number(given, name, default)
        except ApplicationError as error:
            refusals.append(error.message)
            return default

    def whole(name: str, default: int, most: int = _MOST) -> int:
        try:
            return _whole(given, name, default, most)
        except ApplicationError as error:
            refusals.append(error.message)
            return default

    sets = tuple(dict.fromkeys(given.getlist("set")))
    blends = []
    for at in range(MOST_BLENDS):
        if at and f"step-{at}" not in given:
            break
        by = given.get(f"by-{at}", "size")
        blends.append(
            BlendAsk(
                first_step=whole(f"step-{at}", 0) if at else 0,
                by=by if by in BY else "size",
                temperature=number(f"temperature-{at}", 2.0),
                weights={uid: number(f"weight-{at}-{uid}", 1.0) for uid in sets},
            )
        )
    ask = MixtureAsk(
        sets=sets,
        caps={uid: number(f"cap-{uid}", 0.0) for uid in sets},
        kinds={uid: given.get(f"kind-{uid}", "")[:40] for uid in sets},
        blends=tuple(sorted(blends, key=lambda one: one.first_step)),
        tokens=whole("tokens", default.tokens),
        block_tokens=whole("block_tokens", default.block_tokens, _MOST_IN_COLUMN),
        blocks_per_step=whole("blocks_per_step", default.blocks_per_step, _MOST_IN_COLUMN),
        rate_of=given.get("rate", "")[:32],
    )
    return (ask if refusals else _changed(ask, given)), refusals


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
    parts += [(f"cap-{uid}", _exact(cap)) for uid, cap in ask.caps.items() if cap]
    parts += [(f"kind-{uid}", kind) for uid, kind in ask.kinds.items() if kind]
    for at, blend in enumerate(ask.blends):
        parts += [(f"step-{at}", blend.first_step), (f"by-{at}", blend.by)]
        if blend.by == "temperature":
            parts.append((f"temperature-{at}", _exact(blend.temperature)))
        if blend.by == "hand":
            parts += [(f"weight-{at}-{uid}", _exact(one)) for uid, one in blend.weights.items()]
    parts += [
        ("tokens", ask.tokens),
        ("block_tokens", ask.block_tokens),
        ("blocks_per_step", ask.blocks_per_step),
    ]
    parts += [("rate", ask.rate_of)] if ask.rate_of else []
    return urlencode(parts)


def _exact(number: float) -> str:
    """The shortest text that is read as the same number."""
    return repr(number).removesuffix(".0")


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
            % {"field": _label(name), "text": text[:40]}
        )
    return number


def _whole(given: Mapping[str, Any], name: str, default: int, most: int) -> int:
    """A whole number, also as people write large ones: 10M, 1.5B, 1,500,000."""
    text = str(given.get(name, "")).strip().replace(" ", "")
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    scale = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}.get(text[-1:].lower(), 1)
    bare = text[:-1] if scale > 1 else text
    number = round(_number({name: bare}, name, default if not bare else 0.0) * scale)
    least = 0 if name.startswith("step") else 1
    if not least <= number <= most:
        raise ApplicationError(
            gettext("%(field)s: wanted %(least)s to %(most)s.")
            % {"field": _label(name), "least": least, "most": most}
        )
    return number


def _label(name: str) -> str:
    """What the page calls a field."""
    return str(_LABELS[name.partition("-")[0]])
