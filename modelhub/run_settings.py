"""A run's settings as its page shows them: in the order and under the headings of its class.

A database gives the names of a JSON value in any order it likes; the class knows which belong
together, as the form that launches the program lays them.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.utils.module_loading import import_string

from modelhub.config_fields import ConfigField, all_fields
from modelhub.json_text import json_rows
from modelhub.ml.configs import ProgramConfig
from modelhub.models import Run
from modelhub.setting_words import section_title, setting_about, setting_title


@dataclass(frozen=True, kw_only=True)
class SettingShown:
    """One setting of a run; `name` is as its program has it."""

    name: str
    label: str
    text: str
    about: str = ""
    is_default: bool = False


@dataclass(frozen=True, kw_only=True)
class SettingsGroup:
    """Settings under one heading, "" where the class gives none."""

    heading: str
    rows: Sequence[SettingShown]


@functools.cache
def config_class(program: str) -> type[ProgramConfig] | None:
    """The configuration class of a program, or None for one that is not known any more."""
    path = settings.RUN_CONFIGS.get(program)
    return import_string(path) if path else None


def setting_order(program: str) -> dict[str, int]:
    """A program's settings by their place in its class."""
    cls = config_class(program)
    return {one.name: place for place, one in enumerate(all_fields(cls))} if cls else {}


def settings_grouped(run: Run) -> list[SettingsGroup]:
    """The run's settings. What its class has no more, or its program no class, comes last."""
    cls = config_class(run.program)
    fields = [one for one in all_fields(cls) if one.name in run.config] if cls else []
    known = {one.name for one in fields}
    found = [
        SettingsGroup(
            heading=section_title(heading), rows=[row for one in own for row in _rows(run, one)]
        )
        for heading, own in itertools.groupby(fields, key=lambda one: one.section)
    ]
    rest = {name: value for name, value in run.config.items() if name not in known}
    if rest:
        rows = [SettingShown(name=name, label=name, text=text) for name, text in json_rows(rest)]
        found.append(SettingsGroup(heading="", rows=rows))
    return found


def _rows(run: Run, field: ConfigField) -> list[SettingShown]:
    value, default = run.config[field.name], field.default
    if isinstance(default, tuple):
        default = list(default)
    label = setting_title(field.name)
    return [
        SettingShown(
            name=name,
            label=label + name.removeprefix(field.name).replace(".", " · "),
            text=text,
            about=setting_about(field.about),
            is_default=value == default,
        )
        for name, text in json_rows({field.name: value})
    ]
