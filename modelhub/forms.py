"""Forms of the hub's pages."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from django import forms
from django.utils.text import slugify
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from modelhub.ml.configs import ConfigError, ImportModelConfig
from modelhub.ml.pretraining.planner import Ask, Plan, PlanError, plan
from modelhub.ml.pretraining.presets import SIZES
from modelhub.models import ModelVersion, uid_new
from modelhub.packaged import packaged_models

PACKAGED = "packaged"
CONTEXT_TOKENS = 4096  # that a server is asked for unless somebody says otherwise


class LocationField(forms.CharField):
    """A text that most choices beside it ask for: the form's `clean` says when it is missing."""

    is_conditional = True  # not to be called optional on the page


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
    location = LocationField(
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
        required=False,
        help_text=_(
            "Letters, digits, - and _. An existing name gets a new version; none given takes that "
            "of the folder, file or package."
        ),
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
            titles = {name: _packaged_title(name, path.stem) for name, path in packaged.items()}
            which.choices = list(titles.items())  # type: ignore[attr-defined]
        else:
            del self.fields["packaged"]

    @staticmethod
    def asked(config: Mapping[str, Any]) -> dict[str, Any]:
        """What the fields held when a run of this configuration was asked for."""
        for name, path in packaged_models().items():
            if config["source"] == "gguf" and config["location"] == str(path):
                return {**config, "source": PACKAGED, "packaged": name, "location": ""}
        return dict(config)

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
        is_packaged = given.get("source") == PACKAGED
        name = given.get("model") or _name_of(given["packaged"] if is_packaged else location)
        if location and not name and "model" not in self.errors:
            self.add_error("model", gettext("Give it a name."))
        if self.errors:
            return given
        try:
            self.config = ImportModelConfig(
                source=str(source),
                location=location,
                revision=given["revision"],
                model=name,
                role=given["role"],
                card=given["card"],
            )
        except ConfigError as error:
            raise forms.ValidationError(str(error)) from error
        return given


def _packaged_title(name: str, stem: str) -> str:
    """A packaged model with what its file's name says of its weights: "…-Instruct (Q4_1)"."""
    stored = stem.removeprefix(name).strip(".-_")
    return f"{name} ({stored})" if stored else name


def _name_of(what: str) -> str:
    """A name for what is imported from a path, a hub id or a package, as the hub takes it."""
    return slugify(PurePath(what).name.removesuffix(".gguf"))[:80]


class CardForm(forms.Form):
    """The part of a card that people write."""

    license = forms.CharField(
        label=_("Licence"),
        max_length=100,
        required=False,
        help_text=_("As model hubs name it, for example apache-2.0."),
    )
    text = forms.CharField(
        label=_("Words"),
        required=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 8}),
        help_text=_("Markdown. What a reader should know before using it: origin, use, limits."),
    )


class AliasForm(forms.Form):
    """Point an alias at a version."""

    name = forms.SlugField(
        label=_("Name"),
        max_length=40,
        help_text=_("For example champion."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    reason = forms.CharField(label=_("Reason"), max_length=300, required=False)


class PlannerForm(forms.Form):
    """What a pretraining run is planned to be. `plan` is set once the form is valid."""

    model = forms.ChoiceField(
        label=_("Model"),
        choices=[
            (name, [(f"{name}/{size}", f"{name} {size}") for size in sizes])
            for name, sizes in SIZES.items()
        ],
        initial="llama/7b",
    )
    tokens_billions = forms.FloatField(
        label=_("Tokens, in billions"), min_value=0.000001, max_value=1e9, initial=140
    )
    vocabulary = forms.IntegerField(
        label=_("Vocabulary"), min_value=2, max_value=10_000_000, initial=32_000
    )
    block_tokens = forms.IntegerField(
        label=_("Tokens of a block"), min_value=8, max_value=10_000_000, initial=2048
    )
    blocks_per_pass = forms.IntegerField(
        label=_("Blocks of a pass"),
        min_value=1,
        max_value=100_000,
        initial=4,
        help_text=_("On one device at once."),
    )
    dtype = forms.ChoiceField(
        label=_("Products in"),
        choices=[("bfloat16", "bfloat16"), ("float32", "float32")],
        initial="bfloat16",
    )
    optimizer = forms.ChoiceField(
        label=_("Optimizer"), choices=[("adamw", "AdamW"), ("muon", "Muon")], initial="adamw"
    )
    devices = forms.IntegerField(label=_("Devices"), min_value=1, max_value=100_000, initial=64)
    tensor_parallel = forms.IntegerField(
        label=_("Tensor parallel"),
        min_value=1,
        max_value=1024,
        initial=1,
        help_text=_("Devices that share each layer’s matrices."),
    )
    pipeline_parallel = forms.IntegerField(
        label=_("Pipeline stages"),
        min_value=1,
        max_value=1024,
        initial=1,
        help_text=_("Devices with a stretch of the layers each: 1, or all of them."),
    )
    device_memory_gib = forms.FloatField(
        label=_("Memory of a device, GiB"), min_value=0.01, max_value=100_000, initial=80
    )
    device_tflops = forms.FloatField(
        label=_("Its products, TFLOP/s"),
        min_value=0.000001,
        max_value=1e6,
        initial=400,
        help_text=_("A run measures its own: matmul_flops_per_s of its result."),
    )
    mfu_percent = forms.FloatField(
        label=_("Share of it that training reaches, %"), min_value=0.1, max_value=100, initial=40
    )

    plan: Plan

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if self.errors:
            return cleaned
        architecture, _slash, size = cleaned["model"].partition("/")
        try:
            self.plan = plan(
                Ask(
                    architecture=architecture,
                    size=size,
                    tokens=cleaned["tokens_billions"] * 1e9,
                    device_flops_per_s=cleaned["device_tflops"] * 1e12,
                    mfu=cleaned["mfu_percent"] / 100,
                    **{
                        name: cleaned[name]
                        for name in (
                            "vocabulary",
                            "block_tokens",
                            "blocks_per_pass",
                            "dtype",
                            "optimizer",
                            "devices",
                            "tensor_parallel",
                            "pipeline_parallel",
                            "device_memory_gib",
                        )
                    },
                )
            )
        except PlanError as error:
            field, _colon, reason = str(error).partition(": ")
            self.add_error(field if field in self.fields else None, reason)
        return cleaned

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """What the form holds when nothing was asked yet."""
        return {name: field.initial for name, field in cls.base_fields.items()}


class ServerForm(forms.Form):
    """How a version is served."""

    context_tokens = forms.IntegerField(
        label=_("Context"),
        min_value=1,
        help_text=_("Tokens of a prompt and its answer together, at most. Longer takes more."),
    )

    def __init__(self, *args: Any, version: ModelVersion, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["context_tokens"]
        field.initial = min(version.context_tokens, CONTEXT_TOKENS)
        field.widget.attrs["max"] = version.context_tokens


class PushForm(forms.Form):
    """Where a version is pushed to."""

    place = forms.ChoiceField(
        label=_("Push it to"),
        choices=[("folder", _("a folder on this server")), ("hub", _("the model hub"))],
        initial="folder",
        widget=forms.RadioSelect,
    )
    target = forms.CharField(
        label=_("Name there"),
        max_length=200,
        help_text=_("Of the folder, which is new; or organisation/model of the hub."),
    )
    is_public = forms.BooleanField(label=_("For everyone to see, on the hub"), required=False)


class PullForm(forms.Form):
    """A pushed folder to take in."""

    key = forms.CharField(widget=forms.HiddenInput, max_length=64, initial=uid_new)
    location = forms.CharField(
        label=_("Folder"),
        max_length=400,
        help_text=_("A path below an import folder. It has the manifest.json that a push wrote."),
    )
    model = forms.SlugField(
        label=_("Name in the hub"),
        max_length=80,
        help_text=_("Letters, digits, - and _. An existing name gets a new version."),
    )
    role = forms.ChoiceField(
        label=_("Role"),
        required=False,
        choices=[
            ("", _("as its files say")),
            *((role, role) for role in ("base", "policy", "reward", "critic")),
        ],
    )
