"""The keys of the annotator's page, and which may be changed to which.

An action has one key on every kind of task that knows it. Digits place, rate and choose by number,
A and B mark an answer, and the keys that move a page are the browser's: those stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from modelhub.errors import ApplicationError


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something that a single key does: its name, the key it has unless changed, and its words."""

    name: str
    key: str
    words: str | Promise


ACTIONS = (
    Action(name="undo", key="u", words=_("undo")),
    Action(name="skip", key="s", words=_("skip")),
    Action(name="question", key="q", words=_("ask a reviewer")),
    Action(name="report", key="!", words=_("report the task")),
    Action(name="guidelines", key="g", words=_("guidelines")),
    Action(name="rationale", key="r", words=_("write the reason")),
    Action(name="keys", key="?", words=_("keys")),
    Action(name="next", key="j", words=_("next answer")),
    Action(name="previous", key="k", words=_("previous answer")),
    Action(name="compare", key="d", words=_("compare")),
    Action(name="fold", key="o", words=_("fold")),
    Action(name="source", key="t", words=_("text as it was written")),
    Action(name="link", key="l", words=_("scroll together")),
    Action(name="better", key="[", words=_("one lane better")),
    Action(name="worse", key="]", words=_("one lane worse")),
    Action(name="tie", key="=", words=_("tie")),
    Action(name="unacceptable", key="x", words=_("not acceptable")),
    Action(name="layout", key="v", words=_("columns or rows")),
    Action(name="write", key="e", words=_("write")),
    Action(name="pane", key="p", words=_("what stands beside the text")),
    Action(name="onward", key="n", words=_("go on")),
)
DEFAULTS = {action.name: action.key for action in ACTIONS}
_WORDS = {action.name: action.words for action in ACTIONS}
_TAKEN = {
    **dict.fromkeys("0123456789", _("digits choose by number")),
    **dict.fromkeys("ab", _("A and B mark an answer")),
}


def keys_read(changed: Mapping[str, str]) -> dict[str, str]:
    """Every action's key, with those that somebody changed.

    changed: {"<action>": "<key>"}; one visible character each, small or capital alike.
    Raises ApplicationError, a sentence that names the action and the key, for what is no action, no
    single key, a key with another meaning, or one key for two actions.
    """
    keys = dict(DEFAULTS)
    for name, key in changed.items():
        if name not in DEFAULTS:
            raise ApplicationError(
                gettext("There is no action %(name)s.") % {"name": f"{name!r}"}, {"field": "keys"}
            )
        key = key.lower()
        if len(key) != 1 or not key.isprintable() or key.isspace():
            raise _refused(_("A key is one character that can be seen."), name)
        if key in _TAKEN:
            raise _refused(
                _("“%(key)s” cannot be “%(action)s”: %(why)s.")
                % {"key": key.upper(), "action": _WORDS[name], "why": _TAKEN[key]},
                name,
            )
        keys[name] = key
    holders: dict[str, str] = {}
    for name, key in keys.items():
        other = holders.setdefault(key, name)
        if other != name:
            first, second = (name, other) if name in changed else (other, name)
            raise _refused(
                _("“%(key)s” is the key of “%(other)s” already. Give that another key first.")
                % {"key": key.upper(), "other": _WORDS[second]},
                first,
            )
    return keys


def keys_changed(keys: Mapping[str, str]) -> dict[str, str]:
    """Those that differ from the ones the page comes with: what is kept of a person's keys."""
    return {name: key for name, key in keys.items() if DEFAULTS[name] != key}


def _refused(words: str | Promise, name: str) -> ApplicationError:
    return ApplicationError(str(words), {"field": "keys", "action": name})
