"""`manage.py method_words`: the words of methods and settings, where translators' tools find them.

Methods are plain tables and settings are dataclasses with comments, which know no Django; gettext
collects what stands in a call. So every text that pages show of them is written into one module of
calls. `make words` runs this first.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string

from alignment.methods import METHODS
from modelhub.config_fields import all_fields, setting_help, setting_label
from modelhub.setting_words import LABEL_CONTEXT, section_english

PATH = Path(__file__).resolve().parents[2] / "method_words.py"
_HEAD = '''"""What pages say of methods and settings, for translators.

`make words` writes it: edit the methods (alignment/methods/) and configuration classes instead.
"""
# ruff: noqa: E501
# fmt: off

from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

'''


def method_texts() -> Iterator[str]:
    """Titles, sentences, inputs and presets of every method."""
    for method in METHODS.values():
        yield from (method.title, method.about)
        yield from (one.title for one in method.inputs)
        yield from (one.title for one in method.presets)


def setting_texts() -> Iterator[str]:
    """Headings and sentences of every program's settings."""
    for path in settings.RUN_CONFIGS.values():
        for field in all_fields(import_string(path)):
            yield from (section_english(field.section), setting_help(field.about))


def setting_labels() -> Iterator[str]:
    """Names of every program's settings as words."""
    for path in settings.RUN_CONFIGS.values():
        yield from (setting_label(field.name) for field in all_fields(import_string(path)))


def catalogue_text() -> str:
    """The module as it should be: each text once, where it is first met."""
    texts = dict.fromkeys(text for text in (*method_texts(), *setting_texts()) if text)
    labels = dict.fromkeys(setting_labels())
    lines = ["WORDS = ["]
    lines += [f"    _({json.dumps(text, ensure_ascii=False)})," for text in texts]
    lines += ["]", "LABELS = ["]
    lines += [
        f'    pgettext_lazy("{LABEL_CONTEXT}", {json.dumps(text, ensure_ascii=False)}),'
        for text in labels
    ]
    lines += ["]"]
    return _HEAD + "\n".join(lines) + "\n"


class Command(BaseCommand):
    help = "Write the texts of methods and settings where makemessages finds them."

    def handle(self, *args: Any, **options: Any) -> None:
        PATH.write_text(catalogue_text(), encoding="utf-8")
