"""Forms of the project pages. They shape input; services judge it."""

from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from annotation.models import Membership, Task
from annotation.services.datasets import MAX_IMPORT_BYTES
from annotation.services.projects import (
    MAX_DESCRIPTION_CHARS,
    MAX_GUIDELINE_CHARS,
    MAX_NAME_CHARS,
)
from modelhub.errors import ApplicationError


def error_add(form: forms.BaseForm, error: ApplicationError) -> None:
    """Put a service's refusal where it belongs: at the field it names, else above the form."""
    field = error.extra.get("field")
    form.add_error(field if field in form.fields else None, error.message)


class DescriptionForm(forms.Form):
    """What a project is called, and is for."""

    name = forms.CharField(label=_("Name"), max_length=MAX_NAME_CHARS)
    description = forms.CharField(
        label=_("Description"),
        required=False,
        max_length=MAX_DESCRIPTION_CHARS,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("What the answers are judged for, in a sentence or two."),
    )


class ProjectForm(DescriptionForm):
    overlap = forms.IntegerField(
        label=_("People for each task"),
        min_value=1,
        max_value=50,
        initial=1,
        help_text=_(
            "How many people judge the same answers. Two or more let you measure agreement."
        ),
    )


class PersonForm(forms.Form):
    username = forms.CharField(
        label=_("User name"),
        max_length=150,
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none"}),
        help_text=_("Somebody new gets a link that signs them in once."),
    )
    role = forms.ChoiceField(label=_("Role"), choices=Membership.Role.choices)


class RoleForm(forms.Form):
    role = forms.ChoiceField(label=_("Role"), choices=Membership.Role.choices)


class PromptsForm(forms.Form):
    file = forms.FileField(
        label=_("JSON Lines file"),
        help_text=_(
            "Each line: a “prompt” text, or “messages” with roles and contents; with “answers” "
            "to judge, if there are any."
        ),
        widget=forms.FileInput(attrs={"accept": ".jsonl,.ndjson,.json,application/jsonl"}),
    )


KINDS_FIRST_RANKING = sorted(Task.Kind, key=lambda kind: kind != Task.Kind.RANKING)


class FreezeForm(forms.Form):
    """Which judgements a dataset takes."""

    ORIGINS = [
        ("", _("everyone’s")),
        (Membership.Source.PERSON, _("people’s alone")),
        (Membership.Source.PRODUCT, _("products’ feedback alone")),
        (Membership.Source.MODEL, _("judge models’ alone")),
        (Membership.Source.SIMULATED, _("simulated alone")),
    ]

    kind = forms.ChoiceField(
        choices=[(one.value, one.label) for one in KINDS_FIRST_RANKING],
        required=False,
        label=_("What was judged"),
    )
    origin = forms.ChoiceField(choices=ORIGINS, required=False, label=_("Judgements"))
    weighted = forms.BooleanField(
        required=False,
        label=_("Weigh each row by how far its annotator agrees with the others"),
    )

    def query(self) -> dict[str, Any]:
        origin = self.cleaned_data["origin"]
        return {"sources": [origin]} if origin else {}


class RankingsForm(forms.Form):
    file = forms.FileField(
        label=_("File of rankings"),
        help_text=_("JSON Lines or Parquet, in the layout “rankings” of an export."),
        widget=forms.FileInput(attrs={"accept": ".jsonl,.ndjson,.parquet"}),
    )

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > MAX_IMPORT_BYTES:
            raise forms.ValidationError(
                gettext("A file is at most %(mebibytes)s MiB.")
                % {"mebibytes": MAX_IMPORT_BYTES >> 20}
            )
        return file


class GuidelineForm(forms.Form):
    text = forms.CharField(
        label=_("Guidelines"),
        max_length=MAX_GUIDELINE_CHARS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 18}),
        help_text=_(
            "Markdown. Publishing makes a new version; annotators are told that it changed."
        ),
    )
