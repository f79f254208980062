"""The form of Chinese verse: how many characters its lines have.

A regulated verse (絕句, 律詩) has five characters in every line, or seven; a model that has learnt
poems keeps to one of them. Lines end with a mark or with the line of the text. Rhyme is not looked
at: it is of a pronunciation that the characters do not show. Standard library only.
"""

import re
from collections import Counter
from dataclasses import dataclass

METRES = (5, 7)
_MARK = re.compile("[，。！？；：、,.!?;:\n]+")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+")


@dataclass(frozen=True, kw_only=True)
class VerseForm:
    """What the lines of a text have in common."""

    lines: int
    metre: int  # 5 or 7, whichever more lines have; 0: no line has either
    share: float  # of the lines that have the metre, 0 to 1
    in_either: float  # of the lines that have five characters or seven


def verse_lines(text: str) -> list[str]:
    """The lines of a text without their marks. A last one that no mark ends was cut off: it is left
    out."""
    *whole, _cut = _MARK.split(text)
    return [line for one in whole if (line := one.strip())]


def verse_form(text: str) -> VerseForm:
    """Count the characters of every line; a line that has anything but Han has no metre.

    "春眠不覺曉，處處聞啼鳥。" → 2 lines, metre 5, share 1.
    """
    lines = verse_lines(text)
    lengths = Counter(len(line) for line in lines if _HAN.fullmatch(line))
    metre = max(METRES, key=lambda one: lengths[one])
    either = sum(lengths[one] for one in METRES)
    return VerseForm(
        lines=len(lines),
        metre=metre if lengths[metre] else 0,
        share=lengths[metre] / len(lines) if lines else 0.0,
        in_either=either / len(lines) if lines else 0.0,
    )
