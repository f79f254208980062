"""Forms of the hub's pages."""

from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from modelhub.ml.configs import ConfigError, ImportModelConfig
from modelhub.models import ModelVersion, uid_new
from modelhub.packaged import packaged_models

PACKAGED = "packaged"


class ImportModelForm(forms.Form):
    """One model to bring in. `config` is set once the form is valid."""

    key = forms.CharField(widget=forms.HiddenInput, max_length=64, initial=uid_new)
    source = forms.ChoiceField(
        label=_("Where it is"),
        choices=[
            ("directory", _("A folder in Hugging Face's layout, on this server")),
            ("gguf", _("A GGUF file, on this server")),
            ("hub", _("The Hugging Face hub")),
        ],
        widget=forms.RadioSelect,
        initial="directory",
    )
    packaged = forms.ChoiceField(
        label=_("Which package"), required=False, help_text=_("Only for a model that is a package.")
    )
    location = forms.CharField(
        label=_("Folder, file or hub id"),
        max_length=400,
        required=False,
        help_text=(
            _(
                "A path below an import folder, or an id such as "
                "HuggingFaceTB/SmolLM2-135M-Instruct."
            )
        ),
    )
    revision = forms.CharField(
        label=_("Revision"),
        max_length=100,
        required=False,
        help_text=_("Of a hub id: a branch, tag or commit. Empty takes the default branch."),
    )
    model = forms.SlugField(
        label=_("Name in the hub"),
        max_length=80,
        help_text=_("Letters, digits, - and _. An existing name gets a new version."),
    )
    role = forms.ChoiceField(
        label=_("Role"),
        choices=[(role, role) for role in ("base", "policy", "reward")],
        initial=ModelVersion.Role.BASE,
    )
    card = forms.CharField(
        label=_("Card"),
        widget=forms.Textarea(attrs={"rows": 4}),
        required=False,
        max_length=20_000,
        help_text=_("What a reader should know before using it: origin, licence, limits."),
    )

    config: ImportModelConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        packaged = packaged_models()
        if packaged:
            source, which = self.fields["source"], self.fields["packaged"]
            source.choices = [  # type: ignore[attr-defined]
                (PACKAGED, gettext("A model installed as a Python package")),
                *source.choices,  # type: ignore[attr-defined]
            ]
            source.initial = PACKAGED
            which.choices = [(name, name) for name in packaged]  # type: ignore[attr-defined]
        else:
            del self.fields["packaged"]

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        source, location = given.get("source"), given.get("location", "")
        if source == PACKAGED:
            source, location = "gguf", str(packaged_models().get(given.get("packaged", ""), ""))
        if source and not location:
            self.add_error(
                "packaged" if given.get("source") == PACKAGED else "location",
                gettext("Say where it is."),
            )
        if self.errors:
            return given
        try:
            self.config = ImportModelConfig(
                source=str(source),
                location=location,
                revision=given["revision"],
                model=given["model"],
                role=given["role"],
                card=given["card"],
            )
        except ConfigError as error:
            raise forms.ValidationError(str(error)) from error
        return given


class AliasForm(forms.Form):
    """Point an alias at a version."""

    name = forms.SlugField(
        label=_("Name"),
        max_length=40,
        help_text=_("For example champion."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    reason = forms.CharField(label=_("Reason"), max_length=300, required=False)
