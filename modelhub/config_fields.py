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
import textwrap
import tokenize
import types
import typing
from dataclasses import dataclass
from typing import Any

from modelhub.ml.configs import ConfigError, ProgramConfig

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

    @property
    def is_required(self) -> bool:
        return self.default is dataclasses.MISSING


@functools.cache
def config_fields(cls: type[ProgramConfig]) -> tuple[ConfigField, ...]:
    """The settings of a configuration class: its own in its order, then those that it shares."""
    hints = typing.get_type_hints(cls)
    comments: dict[str, str] = {}
    for one in reversed(cls.__mro__):  # a class that shares its settings has their words
        if dataclasses.is_dataclass(one):
            comments |= _comments(one)
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
                about=comments.get(field.name, ""),
            )
        )
    return tuple(found)


def config_schema(cls: type[ProgramConfig]) -> dict[str, Any]:
    """The settings as JSON Schema (2020-12)."""
    properties = {}
    for field in config_fields(cls):
        one: dict[str, Any] = {"type": _JSON_TYPES[field.type]}
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


def _comments(cls: type) -> dict[str, str]:
    """The comment of each field: behind it on its line, or on the lines above it."""
    source = textwrap.dedent(inspect.getsource(cls))
    by_line: dict[int, tuple[str, bool]] = {}  # line → (text, whether it has the line to itself)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ").strip()
            if not text.startswith("noqa"):
                by_line[token.start[0]] = (text, not token.line[: token.start[1]].strip())
    (body,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    found = {}
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above = []
        line = node.lineno - 1
        while line in by_line and by_line[line][1]:
            above.append(by_line[line][0])
            line -= 1
        behind = [
            by_line[line][0]
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
            if line in by_line
        ]
        if text := " ".join([*above[::-1], *behind]):
            found[node.target.id] = text
    return found
