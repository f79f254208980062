"""Forms in which a manager says how each kind of task is asked for. They shape input; the settings
they give are judged by annotation.task_forms."""

import re
from typing import Any, cast

from django import forms
from django.http import QueryDict
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _

from annotation.models import Task
from annotation.task_forms import MAX_FLAGS, STARTS, Form, RatingForm
from modelhub.models import Endpoint

BLANK_FLAGS = 3


class KindForm(forms.Form):
    """What every kind may ask."""

    rationale = forms.ChoiceField(
        label=_("A reason in words"),
        choices=[
            ("none", _("not asked")),
            ("optional", _("optional")),
            ("required", _("required")),
        ],
        widget=forms.RadioSelect,
    )

    def settings(self) -> dict[str, Any]:
        """What was filled in, as the kind's settings."""
        return dict(self.cleaned_data)

    @classmethod
    def initial_of(cls, form: Form) -> dict[str, Any]:
        return form.as_json()


class RankingKindForm(KindForm):
    unacceptable = forms.BooleanField(
        required=False, label=_("Answers may be marked as not acceptable")
    )
    rewrite = forms.BooleanField(
        required=False,
        label=_("Where none is good, an answer may be written anew"),
        help_text=_(
            "It is kept as an edit: a demonstration, and better than what it was made from."
        ),
    )


class PairKindForm(KindForm):
    ties = forms.BooleanField(
        required=False,
        label=_("A tie may be chosen"),
        help_text=_("Without it, who is unsure says “negligibly better or unsure”."),
    )
    safety_labels = forms.BooleanField(
        required=False, label=_("Each answer may be marked as not safe")
    )


class RatingKindForm(KindForm):
    """The flags come as rows of `flag_label` and `flag_key`; `flag_name` stays as it was."""

    def settings(self) -> dict[str, Any]:
        return {**self.cleaned_data, "flags": flags_read(self.data)}


START_WORDS = {
    "nothing": _("an empty page"),
    "draft": _("a model’s draft"),
    "either": _("either of them"),
}


class DemonstrationKindForm(KindForm):
    start = forms.ChoiceField(
        label=_("Writing begins with"),
        choices=[(start, START_WORDS[start]) for start in STARTS],
        widget=forms.RadioSelect,
    )
    turns = forms.IntegerField(
        label=_("Answers at most"),
        min_value=1,
        max_value=20,
        help_text=_("More than one makes a talk: the annotator writes both sides of what follows."),
    )


class EditKindForm(KindForm):
    """Nothing of its own."""


class DialogueKindForm(KindForm):
    """Two sides, each an endpoint of the hub and a temperature."""

    endpoint_a = forms.ChoiceField(label=_("One answer from"), required=False)
    temperature_a = forms.FloatField(
        label=_("at temperature"), min_value=0, max_value=2, required=False
    )
    endpoint_b = forms.ChoiceField(label=_("The other from"), required=False)
    temperature_b = forms.FloatField(
        label=_("at temperature"), min_value=0, max_value=2, required=False
    )
    version_a = forms.CharField(required=False, widget=forms.HiddenInput)
    version_b = forms.CharField(required=False, widget=forms.HiddenInput)
    max_turns = forms.IntegerField(label=_("Turns at most"), min_value=1, max_value=50)
    max_tokens = forms.IntegerField(
        label=_("Tokens of an answer at most"), min_value=1, max_value=32_768
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = Endpoint.objects.order_by("name").values_list("name", flat=True)
        choices = [("", _("not chosen yet")), *((name, name) for name in names)]
        for side in "ab":
            cast(forms.ChoiceField, self.fields[f"endpoint_{side}"]).choices = choices

    def settings(self) -> dict[str, Any]:
        given = self.cleaned_data
        sides = [
            {
                "endpoint": given[f"endpoint_{side}"],
                "temperature": 1.0 if heat is None else heat,
                "version": given[f"version_{side}"],
            }
            for side in "ab"
            for heat in [given[f"temperature_{side}"]]
            if given[f"endpoint_{side}"]
        ]
        shared = {name: given[name] for name in ("rationale", "max_turns", "max_tokens")}
        return {**shared, "sides": sides}

    @classmethod
    def initial_of(cls, form: Form) -> dict[str, Any]:
        values = form.as_json()
        for letter, side in zip("ab", values.pop("sides"), strict=False):
            values |= {f"{name}_{letter}": value for name, value in side.items()}
        return {"temperature_a": 1.0, "temperature_b": 1.0, **values}


KIND_FORMS: dict[str, type[KindForm]] = {
    Task.Kind.RANKING: RankingKindForm,
    Task.Kind.PAIR: PairKindForm,
    Task.Kind.RATING: RatingKindForm,
    Task.Kind.DEMONSTRATION: DemonstrationKindForm,
    Task.Kind.EDIT: EditKindForm,
    Task.Kind.DIALOGUE: DialogueKindForm,
}


def flags_read(data: Any) -> list[dict[str, str]]:
    """The rows of flags that have a label. A new flag is named after its label, once for ever."""
    if not isinstance(data, QueryDict):
        return []
    labels = data.getlist("flag_label")[: MAX_FLAGS + BLANK_FLAGS]
    rows = zip(
        labels,
        _as_long(data.getlist("flag_key"), len(labels)),
        _as_long(data.getlist("flag_name"), len(labels)),
        strict=True,
    )
    flags: list[dict[str, str]] = []
    for label, key, name in rows:
        if not label.strip():
            continue
        taken = {flag["name"] for flag in flags}
        flags.append(
            {
                "name": name or _name_of(label, taken),
                "label": label.strip(),
                "key": key.strip().lower(),
            }
        )
    return flags


def flag_rows(form: Form, data: QueryDict | None) -> list[dict[str, str]]:
    """The rows that the page shows: what was sent, or else the form's, and some to fill in."""
    if not isinstance(form, RatingForm):
        return []
    had = [{"name": one.name, "label": one.label, "key": one.key} for one in form.flags]
    rows = flags_read(data) if data is not None else had
    return rows + [{"name": "", "label": "", "key": ""}] * BLANK_FLAGS


def _name_of(label: str, taken: set[str]) -> str:
    plain = re.sub(r"[^a-z0-9]+", "_", slugify(label)).strip("_")[:32]
    name = plain if plain[:1].isalpha() else f"flag_{plain}".rstrip("_")
    number = 2
    while name in taken:
        name, number = f"{plain or 'flag'}_{number}", number + 1
    return name


def _as_long(values: list[str], length: int) -> list[str]:
    return (values + [""] * length)[:length]
