"""The form that launches a method, made from its configuration class and its inputs."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from alignment.forms import OverridesField
from alignment.launch_origins import origins_html
from alignment.methods import Input, Method
from alignment.selectors.launches import input_choices
from alignment.services.launches import Launch, start_check
from modelhub.config_fields import ConfigField, config_fields, config_refusals
from modelhub.errors import ApplicationError
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.presets import SIZES
from modelhub.ml.records import json_canonical, json_strict
from modelhub.models import Endpoint, Run, SavedMixture, uid_new
from modelhub.selectors.mixtures import mixture_settings, mixture_tokenizer
from modelhub.services.runs import LAUNCHERS, MAX_PROCESSES, STRATEGIES, processes_check
from modelhub.setting_words import section_title, setting_about, setting_title

SETTING, INPUT = "setting-", "input-"
_LINE_CHARS = 100  # a text whose default is longer is written on several lines


class ListField(forms.CharField):
    """Values with commas between ↔ a list of them: "0.7, 1.0" ↔ [0.7, 1.0]."""

    def __init__(self, *, item: type, **kwargs: Any) -> None:
        super().__init__(max_length=4000, **kwargs)
        self.item = item

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)
        return value

    def to_python(self, value: Any) -> Any:
        parts = [part.strip() for part in str(super().to_python(value) or "").split(",")]
        try:
            return [self.item(part) for part in parts if part]
        except ValueError as error:
            raise forms.ValidationError(gettext("Values with commas between.")) from error


class TextField(forms.CharField):
    """A text of several lines. Browsers end them in a way of their own, which is undone here."""

    widget = forms.Textarea(attrs={"rows": 5})

    def to_python(self, value: Any) -> str:
        return str(super().to_python(value)).replace("\r\n", "\n")


class LaunchForm(forms.Form):
    """Everything a launch asks for. `launch()` is what a valid form says."""

    key = forms.CharField(widget=forms.HiddenInput, max_length=64, initial=uid_new)
    label = forms.CharField(
        max_length=200,
        required=False,
        label=_("What it is for"),
        help_text=_("In words, for whoever finds the run later."),
    )
    model_name = forms.SlugField(
        max_length=80,
        label=_("Name of its model in the hub"),
        help_text=_("Its success becomes the next version of this model, made if need be."),
    )
    launcher = forms.ChoiceField(
        choices=[
            ("python", _("One process")),
            ("torchrun", _("torchrun, on one machine")),
            ("accelerate", _("accelerate launch, on one machine")),
            ("ray", _("A Ray cluster")),
        ],
        initial=LAUNCHERS[0],
        label=_("Launcher"),
    )
    processes = forms.IntegerField(
        min_value=1,
        max_value=MAX_PROCESSES,
        initial=1,
        label=_("Processes"),
        help_text=_("That train one model together: one a GPU."),
    )
    strategy = forms.ChoiceField(
        choices=[
            ("ddp", _("DDP: the whole model on each")),
            ("fsdp2", _("FSDP2: a share of it on each")),
        ],
        initial=STRATEGIES[0],
        label=_("Strategy"),
    )
    elsewhere = forms.BooleanField(
        required=False,
        label=_("For a machine without a database"),
        help_text=_("No worker takes it: manage.py run_export writes its folder."),
    )

    def __init__(
        self,
        *args: Any,
        method: Method,
        user: User,
        mixture: SavedMixture | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.method = method
        if not method.registers:
            del self.fields["model_name"]
        if not method.takes_processes:
            for name in ("launcher", "processes", "strategy"):
                del self.fields[name]
        for one in method.inputs:
            first = mixture_references(mixture) if mixture and one.role == "tokens" else ()
            self.fields[INPUT + one.role] = _input_field(one, user, first)
        for setting in config_fields(method.config):
            self.fields[SETTING + setting.name] = setting_field(setting, method)

    def inputs(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name.startswith(INPUT)]

    def settings(self) -> list[tuple[str, list[forms.BoundField]]]:
        """(heading, fields) in the class's order; where some have a heading, all have."""
        settings = config_fields(self.method.config)
        own = gettext(self.method.title) if any(one.section for one in settings) else ""
        return [
            (section_title(heading) or own, [self[SETTING + one.name] for one in fields])
            for heading, fields in itertools.groupby(settings, key=lambda one: one.section)
        ]

    def refused(self) -> list[forms.BoundField]:
        """The fields with something refused, for the summary above the form."""
        return [self[name] for name in self.fields if name in self.errors]

    def others(self) -> list[forms.BoundField]:
        """Where it runs, and what for; the hidden key is not among them."""
        own = [name for name in self.fields if not name.startswith((INPUT, SETTING))]
        return [self[name] for name in own if name != "key"]

    def clean(self) -> dict[str, Any]:
        """What the configuration class refuses is told with what the fields refuse, all at once."""
        given = super().clean() or {}
        for setting, reason in config_refusals(self.method.config, self._settings(given)):
            # A setting that its own field refused is missing here, and has been told.
            if setting and SETTING + setting not in self.errors:
                self.add_error(SETTING + setting, reason)
            elif not setting and not self.errors:
                self.add_error(None, reason)
        names = {one.role: INPUT + one.role for one in self.method.inputs}
        chosen = {role for role, name in names.items() if given.get(name)}
        # Whether an input that was refused was meant is not known.
        if not self.errors.keys() & set(names.values()):
            self._check(start_check, method=self.method, roles=chosen)
        if {"launcher", "processes"} <= given.keys():
            asked = {name: given[name] for name in ("launcher", "processes")}
            self._check(processes_check, **asked)
        return given

    def _check(self, check: Callable[..., None], **given: Any) -> None:
        """A check of the service's own, told with the other refusals."""
        try:
            check(**given)
        except ApplicationError as error:
            self.refuse(str(error.extra.get("field", "")), error.message)

    def _settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that were given; an empty field takes the default."""
        return {
            one.name: given[SETTING + one.name]
            for one in config_fields(self.method.config)
            if given.get(SETTING + one.name) is not None
            or (one.may_be_none and SETTING + one.name in given)
        }

    def launch(self) -> Launch:
        given = self.cleaned_data
        return Launch(
            method=self.method.name,
            settings=self._settings(given),
            inputs={
                one.role: given[INPUT + one.role]
                for one in self.method.inputs
                if given[INPUT + one.role]
            },
            model_name=given.get("model_name", ""),
            label=given["label"],
            launcher=given.get("launcher", LAUNCHERS[0]),
            processes=given.get("processes", 1),
            strategy=given.get("strategy", STRATEGIES[0]),
            elsewhere=given["elsewhere"],
        )

    def refuse(self, field: str, message: str) -> None:
        """Show a refusal of the service at its field."""
        for prefix, own in (("settings.", SETTING), ("inputs.", INPUT)):
            if field.startswith(prefix):
                field = own + field.removeprefix(prefix)
        self.add_error(field if field in self.fields else None, message)


def mixture_references(mixture: SavedMixture) -> tuple[str, ...]:
    """The token sets of a mixture as a launch names them, in the order of its shares."""
    sources = mixture.sources.all()
    return tuple(f"run/{one.output.run.uid}/{one.output.role}" for one in sources)


def launch_initial(
    *, method: Method, preset: str, run: Run | None, mixture: SavedMixture | None = None
) -> dict[str, Any]:
    """What the form starts with: the defaults, a preset, or an earlier run's settings.

    A mixture brings its token sets and its shares, whatever else is chosen.
    """
    settings = {
        one.name: one.default for one in config_fields(method.config) if not one.is_required
    }
    for one in method.presets:
        if one.name == preset:
            settings |= one.settings
    initial: dict[str, Any] = {}
    if run is not None:
        settings |= {name: value for name, value in run.config.items() if name in settings}
        initial = {
            "label": run.label,
            "model_name": run.intent.get("model", ""),
            "launcher": run.launcher,
            "processes": run.processes,
            "strategy": run.strategy,
        }
    if mixture is not None:
        settings |= mixture_settings(mixture=mixture)
        initial[f"{INPUT}tokens"] = mixture_references(mixture)
        initial[f"{INPUT}tokenizer"] = mixture_tokenizer(mixture=mixture)
    return initial | {SETTING + name: value for name, value in settings.items()}


def launch_given(
    *, method: Method, given: Mapping[str, str], endpoint: Endpoint | None = None
) -> dict[str, Any]:
    """What a link to the form fills in: fields by their names, and an endpoint of the hub's, where
    the method asks one.
    """
    named = (INPUT, SETTING, "model_name")
    initial: dict[str, Any] = {
        name: value for name, value in given.items() if name.startswith(named)
    }
    settings = {one.name for one in config_fields(method.config)}
    if endpoint is not None and "endpoint_url" in settings:
        initial |= {
            SETTING + "engine": "openai",
            SETTING + "endpoint_url": endpoint.base_url,
            SETTING + "endpoint_model": endpoint.served_model,
            SETTING + "endpoint_key_variable": endpoint.api_key_variable,
        }
    return initial


def _input_field(input: Input, user: User, first: Sequence[str]) -> forms.Field:
    """`first`: what stands first among the choices; a browser sends what is chosen in their order,
    and shares belong to token sets by their order."""
    names = dict(input_choices(input=input, user=user))
    choices = [(reference, names.pop(reference, reference)) for reference in first]
    choices += names.items()
    kwargs: dict[str, Any] = {"label": gettext(input.title), "required": input.is_required}
    if not choices:
        kwargs["help_text"] = origins_html(input)
    if input.is_many:
        boxes = forms.CheckboxSelectMultiple
        return forms.MultipleChoiceField(choices=choices, widget=boxes, **kwargs)
    return forms.ChoiceField(choices=[("", "–"), *choices], **kwargs)


def setting_field(setting: ConfigField, method: Method) -> forms.Field:
    """The form's field for a setting: few values are offered, all else is written."""
    kwargs: dict[str, Any] = {
        "label": setting_title(setting.name),
        "help_text": setting_about(setting.about),
        "required": setting.is_required,
    }
    if setting.choices:
        choices = [(one, _choice_title(method, setting.name, one)) for one in setting.choices]
        if setting.is_list:
            boxes = forms.CheckboxSelectMultiple
            return forms.MultipleChoiceField(choices=choices, widget=boxes, **kwargs)
        # What was not sent takes the default, unless nothing is a choice of its own.
        empty = "" if "" in setting.choices else None
        return forms.TypedChoiceField(
            choices=choices, coerce=lambda value: setting.type(value), empty_value=empty, **kwargs
        )
    if setting.is_list:
        return ListField(item=setting.type, **kwargs)
    if setting.type is bool:
        return forms.BooleanField(**kwargs | {"required": False})
    if setting.type is dict:
        kwargs.pop("required")
        return OverridesField(**kwargs)
    attrs = {} if setting.is_required else {"placeholder": default_text(setting.default)}
    if setting.type is int:
        return forms.IntegerField(widget=forms.NumberInput(attrs=attrs), **kwargs)
    if setting.type is float:
        # Text, for a browser's number field refuses 9e-6 by its step.
        attrs["inputmode"] = "decimal"
        return forms.FloatField(widget=forms.TextInput(attrs=attrs), **kwargs)
    if len(str(setting.default)) > _LINE_CHARS:
        return TextField(max_length=4000, strip=False, **kwargs)
    return forms.CharField(max_length=4000, strip=False, **kwargs)


def default_text(value: Any) -> str:
    """A default as the empty field shows it: 9e-6 → "9e-06", 4096 → "4096"."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _choice_title(method: Method, setting: str, value: Any) -> str:
    """A value as its choice is named; a size says which architectures have it."""
    if method.config is PretrainConfig and setting == "size":
        having = ", ".join(name for name, sizes in SIZES.items() if value in sizes)
        return f"{value} ({having})"
    return str(value) if value != "" else "–"


def launch_body(launch: Launch) -> Any:
    """The launch as JSON values, to tell a repeated request from another one."""
    return json_strict(json_canonical(dataclasses.asdict(launch)))
