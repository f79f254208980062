"""What the steps of a cleaning are called on pages: the rules, and what goes before and after."""

import re

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _

# Where a family of rules is from.
FAMILIES = {
    "gopher": "Gopher, Rae et al. 2021",
    "c4": "C4, Raffel et al. 2020",
    "fineweb": "FineWeb, Penedo et al. 2024",
}
_LABELS = {
    "gopher.words_min": _("Words, at least"),
    "gopher.words_max": _("Words, at most"),
    "gopher.word_length_min": _("Mean word length, at least"),
    "gopher.word_length_max": _("Mean word length, at most"),
    "gopher.hashes": _("“#” per word"),
    "gopher.ellipses": _("“…” per word"),
    "gopher.bullet_lines": _("Lines that begin with a bullet"),
    "gopher.ellipsis_lines": _("Lines that end with “…”"),
    "gopher.alphabetic_words": _("Words with a letter"),
    "gopher.stop_words": _("Different stop words"),
    "gopher.repeated_lines": _("Repeated lines"),
    "gopher.repeated_paragraphs": _("Repeated paragraphs"),
    "gopher.repeated_lines_characters": _("Characters in repeated lines"),
    "gopher.repeated_paragraphs_characters": _("Characters in repeated paragraphs"),
    "c4.sentences": _("Sentences in lines C4 keeps"),
    "c4.lorem_ipsum": _("“lorem ipsum”"),
    "c4.curly_brackets": _("“{”"),
    "fineweb.ended_lines": _("Lines that end in punctuation"),
    "fineweb.short_lines": _("Short lines"),
    "fineweb.repeated_line_characters": _("Characters in repeated lines"),
    "fineweb.line_breaks": _("Line breaks per word"),
    # Steps of a cleaning that are no rules.
    "language": _("Language"),
    "bad_words": _("Bad words"),
    "exact_duplicate": _("Exact duplicates"),
    "near_duplicate": _("Near-duplicates"),
    "contamination": _("In an evaluation set"),
    "no_line_left": _("No line left"),
}
_TOP = re.compile(r"gopher\.top_(\d+)_gram")
_REPEATED = re.compile(r"gopher\.repeated_(\d+)_grams")


def step_label(name: str) -> str:
    """A step of a cleaning in words: "gopher.words_min" → "Words, at least"; others as named."""
    if label := _LABELS.get(name):
        return gettext(label)
    if top := _TOP.fullmatch(name):
        return gettext("Characters in the commonest run of %(n)s words") % {"n": top[1]}
    if repeated := _REPEATED.fullmatch(name):
        return gettext("Characters in repeated runs of %(n)s words") % {"n": repeated[1]}
    return name.replace(".", " · ").replace("_", " ")
