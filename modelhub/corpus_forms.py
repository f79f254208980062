"""Forms of the corpus pages."""

import math
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from modelhub.ml.configs import ConfigError
from modelhub.ml.corpora.configs import ImportCorpusConfig
from modelhub.ml.corpora.rules import CHINESE, FAMILIES, RULES, thresholds_of
from modelhub.models import uid_new
from modelhub.rule_labels import step_label
from modelhub.selectors.corpora import DocumentFilter

THRESHOLD = "threshold-"
AGAINST = "against-"  # what a cleaning is held against


class ImportCorpusForm(forms.Form):
    """Texts to bring in. `config` is set once the form is valid."""

    key = forms.CharField(widget=forms.HiddenInput, max_length=64, initial=uid_new)
    locations = forms.CharField(
        label=_("Where they are"),
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        max_length=20_000,
        help_text=_(
            "One a line: a file or folder below an import folder, a web address, or s3://bucket/key."
        ),
    )
    source = forms.CharField(
        label=_("Name of the source"),
        max_length=80,
        help_text=_("What mixtures and reports call it: letters, digits, - . and _."),
    )
    format = forms.ChoiceField(
        label=_("Format"),
        choices=[
            ("auto", _("By the name: .txt, .md, .jsonl, .parquet; .gz and .zst are unpacked")),
            ("text", _("Plain text")),
            ("jsonl", _("JSON Lines")),
            ("parquet", _("Parquet")),
        ],
    )
    split = forms.ChoiceField(
        label=_("A document of a text file is"),
        choices=[
            ("file", _("the whole file")),
            ("blank_lines", _("what stands between blank lines")),
            ("pattern", _("what begins with a line of a pattern: a chapter")),
        ],
    )
    pattern = forms.CharField(
        label=_("Pattern of a document’s first line"),
        max_length=200,
        required=False,
        help_text=_("A regular expression, such as ^第.{1,6}回 or ^CHAPTER. For chapters alone."),
    )
    text_field = forms.CharField(
        label=_("Field that holds the text"),
        max_length=80,
        initial="text",
        help_text=_("Of JSON Lines and Parquet."),
    )
    id_field = forms.CharField(
        label=_("Field that names the document"),
        max_length=80,
        initial="id",
        required=False,
        help_text=_("Of the same. Documents without it are numbered."),
    )
    licence = forms.CharField(
        label=_("Licence"),
        max_length=80,
        required=False,
        help_text=_("An SPDX name where there is one: CC0-1.0, MIT. A record’s own goes before."),
    )
    language = forms.RegexField(
        regex=r"^[a-z]{0,8}$",
        label=_("Language"),
        required=False,
        help_text=_("A code such as en or zh. Empty: each document’s, as identified."),
    )
    is_word_list = forms.BooleanField(
        label=_("A list of bad words, a word or phrase a line"),
        required=False,
        help_text=_("Cleanings are offered it as bad words, and as nothing else."),
    )

    config: ImportCorpusConfig

    @staticmethod
    def asked(config: Mapping[str, Any]) -> dict[str, Any]:
        """What the fields held when a run of this configuration was asked for."""
        return {**config, "locations": "\n".join(config["locations"])}

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if self.errors:
            return given
        locations = [line.strip() for line in given["locations"].splitlines() if line.strip()]
        try:
            self.config = ImportCorpusConfig(
                locations=tuple(locations),
                **{
                    name: given[name]
                    for name in (
                        "format",
                        "split",
                        "pattern",
                        "text_field",
                        "id_field",
                        "source",
                        "licence",
                        "language",
                        "is_word_list",
                    )
                },
            )
        except ConfigError as error:
            field, _colon, reason = str(error).partition(": ")
            name = field.rpartition(".")[2]
            self.add_error(name if name in self.fields else None, reason)
        return given


class DocumentForm(forms.Form):
    """What documents are looked for. An invalid field is as an empty one."""

    text = forms.CharField(required=False, max_length=200)
    language = forms.CharField(required=False, max_length=8)
    signal = forms.CharField(required=False, max_length=60)
    least = forms.FloatField(required=False)
    most = forms.FloatField(required=False)

    def wanted(self) -> DocumentFilter:
        self.is_valid()
        given = self.cleaned_data
        return DocumentFilter(
            text=given.get("text", ""),
            language=given.get("language", ""),
            signal=given.get("signal", ""),
            least=given.get("least"),
            most=given.get("most"),
        )


class RuleSetForm(forms.Form):
    """A name to keep thresholds under."""

    name = forms.SlugField(max_length=80)
    note = forms.CharField(max_length=300, required=False)


class JudgementForm(forms.Form):
    """What the reader says of a document: "12:good", "12:bad", or "12:" to take it back."""

    judgement = forms.RegexField(regex=r"^\d{1,11}:(good|bad|)$")

    def clean(self) -> dict[str, Any]:
        place, _colon, word = self.cleaned_data.get("judgement", "").partition(":")
        if not place:
            return {}
        return {"place": int(place), "is_good": {"good": True, "bad": False}.get(word)}


def rules_query(given: QueryDict) -> str:
    """The part of a form's fields that says what the page of rules shows, as a query string."""
    shown = [
        (name, value)
        for name, value in given.items()
        if name in ("rule", "language", "rule_set") or name.startswith(THRESHOLD)
    ]
    boxes = [
        (name, value) for name in given if name.startswith(AGAINST) for value in given.getlist(name)
    ]
    return urlencode([*shown, *boxes])


def thresholds_query(
    thresholds: Mapping[str, float], *, rule: str, is_chinese: bool, threshold: float
) -> str:
    """The query string of the page of rules with these thresholds, one of them changed."""
    changed = {**thresholds, f"{rule}@{CHINESE}" if is_chinese else rule: threshold}
    fields = {THRESHOLD + name: number_plain(changed.get(name)) for name in _threshold_names()}
    return urlencode({**fields, "rule": rule, "language": CHINESE if is_chinese else ""})


def thresholds_given(values: Mapping[str, str]) -> dict[str, float]:
    """Thresholds from a form's fields; a field that is not there is as published, an empty one off.

    Raises ConfigError naming the rule whose value is no number.
    """
    thresholds, refusal = thresholds_read(values)
    if refusal:
        raise ConfigError(refusal)
    return thresholds


def thresholds_read(values: Mapping[str, str]) -> tuple[dict[str, float], str]:
    """As thresholds_given; what is no number is left as published, and the first is refused."""
    changed: dict[str, float | None] = {}
    refusal = ""
    for key in _threshold_names():
        text = values.get(THRESHOLD + key)
        if text is None:
            continue
        try:
            value = float(text) if text.strip() else None
        except ValueError:
            value = math.nan
        if value is None or math.isfinite(value):
            changed[key] = value
        else:
            refusal = refusal or gettext("%(rule)s: %(text)s is no number.") % {
                "rule": _threshold_label(key),
                "text": text[:40],
            }
    return thresholds_of(FAMILIES, changed), refusal


def threshold_texts(thresholds: Mapping[str, float], typed: Mapping[str, str]) -> dict[str, str]:
    """What stands in each threshold's field: what was typed, or the number."""
    return {
        name: typed.get(THRESHOLD + name, number_plain(thresholds.get(name)))
        for name in _threshold_names()
    }


def number_plain(value: float | None) -> str:
    """A number as one types it: 50.0 → "50", 0.15 → "0.15", None → ""."""
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _threshold_label(key: str) -> str:
    """A threshold as its page names it; of those for Chinese, with that."""
    name, _at, language = key.partition("@")
    return f"{step_label(name)} ({gettext('Chinese')})" if language else step_label(name)


def _threshold_names() -> Iterator[str]:
    for name, rule in RULES.items():
        yield name
        if rule.chinese is not None:
            yield f"{name}@{CHINESE}"
