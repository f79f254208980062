"""What a program's settings are, read from its configuration class: names, types, defaults, words.

The class is the only description there is: its comments are the help texts of the form that
launches the program, and of the API's schema. Plain Python, standard library only.
"""

import ast
import dataclasses
import functools
import inspect
import io
import json
import re
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelhub.ml.configs import CHOICES, OPEN, SITE, ConfigError, ProgramConfig, config_load

_SHORT = {  # parts of settings' names that are no words
    **{name: name.upper() for name in ("lr", "kl", "url", "ema", "ptx", "pii", "c4", "dpo")},
    "lora": "LoRA",
}
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}


@dataclass(frozen=True, kw_only=True)
class ConfigField:
    """One setting. `type` is bool, int, float, str or dict; a list of them if `is_list`."""

    name: str
    type: type
    is_list: bool
    may_be_none: bool
    default: Any  # REQUIRED where there is none
    about: str  # its comment
    choices: tuple[Any, ...] = ()  # the values it takes, or of a list its items; empty: any
    is_open: bool = False  # the choices are suggestions: the program may know more
    section: str = ""  # heading of the settings it stands among
    is_of_site: bool = False  # the site fills it in: nobody is asked

    @property
    def is_required(self) -> bool:
        return self.default is dataclasses.MISSING


def config_fields(cls: type[ProgramConfig]) -> tuple[ConfigField, ...]:
    """The settings of a configuration class that one may choose: its own in its order, then those
    that it shares."""
    return tuple(one for one in all_fields(cls) if not one.is_of_site)


@functools.cache
def all_fields(cls: type[ProgramConfig]) -> tuple[ConfigField, ...]:
    """Those of `config_fields`, and those that the site itself fills in."""
    hints = typing.get_type_hints(cls)
    said: dict[str, _Said] = {}
    for one in reversed(cls.__mro__):  # a class that shares its settings has their words
        if dataclasses.is_dataclass(one):
            for name, words in _said(one).items():
                shared = said.get(name, words)
                # Where a setting stands is told by the class that had it first.
                said[name] = _Said(about=words.about or shared.about, section=shared.section)
    # One that a class merely starts from another value is still of the class that it shares.
    owners = [inspect.get_annotations(one) for one in cls.__mro__]
    depths = {name: depth for depth, own in enumerate(owners) for name in own}
    found = []
    for field in sorted(dataclasses.fields(cls), key=lambda field: depths[field.name]):
        kind, is_list, may_be_none = _kind(hints[field.name])
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found.append(
            ConfigField(
                name=field.name,
                type=kind,
                is_list=is_list,
                may_be_none=may_be_none,
                default=default,
                about=said[field.name].about,
                choices=field.metadata.get(CHOICES, ()),
                is_open=field.metadata.get(OPEN, False),
                section=said[field.name].section,
                is_of_site=SITE in field.metadata,
            )
        )
    return tuple(found)


def setting_label(name: str) -> str:
    """A setting's name as words: "lr_final_share" → "LR final share"."""
    written = " ".join(_SHORT.get(word, word) for word in name.split("_"))
    return written[:1].upper() + written[1:]


_AS_WRITTEN = re.compile(r"\w*[_\d]")


def setting_help(about: str) -> str:
    """A comment as the sentence it is: a capital first and an end.

    What is written as it stands in a configuration stays: a symbol, or a value (k1, forward_kl).
    """
    if not about:
        return ""
    first = about[0]
    if first.isascii() and not _AS_WRITTEN.match(about):
        first = first.upper()
    return f"{first}{about[1:]}{'' if about.endswith(('.', '…', '?')) else '.'}"


def config_schema(cls: type[ProgramConfig]) -> dict[str, Any]:
    """The settings as JSON Schema (2020-12)."""
    properties = {}
    for field in config_fields(cls):
        one: dict[str, Any] = {"type": _JSON_TYPES[field.type]}
        if field.choices:
            one["examples" if field.is_open else "enum"] = list(field.choices)
        if field.is_list:
            one = {"type": "array", "items": one}
        if field.may_be_none:
            one["type"] = [one["type"], "null"]
        if field.about:
            one["description"] = field.about
        if not field.is_required:
            one["default"] = json.loads(json.dumps(field.default))
        properties[field.name] = one
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": cls.PROGRAM,
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "type": "object",
        "properties": properties,
        "required": [field.name for field in config_fields(cls) if field.is_required],
        "additionalProperties": False,
    }


def config_refusals(
    cls: type[ProgramConfig], values: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield (setting, reason) of all that the class refuses of these values, not the first alone.

    The class names one at a time, so what it has named is given its default and the rest is tried
    again. A refusal that names no setting is the last.
    """
    tried = dict(values)
    while True:
        try:
            config_load(cls, tried)
        except ConfigError as error:
            setting, reason = refused_setting(error)
            yield setting, reason
            if setting not in tried:
                return
            del tried[setting]
        else:
            return


def refused_setting(error: ConfigError) -> tuple[str, str]:
    """(setting, reason) of a refusal "program.setting: reason"; no setting where it names none."""
    where, colon, reason = str(error).partition(": ")
    setting = where.partition(".")[2]
    return (setting, reason) if colon and setting else ("", str(error))


def _kind(hint: Any) -> tuple[type, bool, bool]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [option for option in arguments if option is not type(None)]
        kind, is_list, _ = _kind(inner)
        return kind, is_list, type(None) in arguments
    if origin is tuple:
        return arguments[0], True, False
    return origin or hint, False, False


@dataclass(frozen=True, kw_only=True)
class _Said:
    about: str
    section: str


def _said(cls: type) -> dict[str, _Said]:
    """What a class's comments say of each of its fields.

    A comment behind a field on its line is the field's, and so are the lines above it; above a
    field that has one behind it, they are the heading of the fields that follow.
    """
    source = textwrap.dedent(inspect.getsource(cls))
    by_line: dict[int, tuple[str, bool]] = {}  # line → (text, whether it has the line to itself)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ").strip()
            if not text.startswith("noqa"):
                by_line[token.start[0]] = (text, not token.line[: token.start[1]].strip())
    (body,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    found, section = {}, ""
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(node.annotation):
            continue
        above = []
        line = node.lineno - 1
        while line in by_line and by_line[line][1]:
            above.append(by_line[line][0])
            line -= 1
        behind = " ".join(
            by_line[line][0]
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
            if line in by_line
        )
        if behind and above:
            section = " ".join(above[::-1])
        found[node.target.id] = _Said(about=behind or " ".join(above[::-1]), section=section)
    return found
