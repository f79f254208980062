"""Which side of the train, validation and held-out split a prompt is on. Plain Python.

The side is a function of the prompt's words alone, so that no import, round or model of a project
can put the same question on both sides.
"""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence

from modelhub.ml.records import json_canonical

SHARES = (0.75, 0.05, 0.20)  # train, validation, held-out
SIDES = ("train", "validation", "held_out")

# Drawn as nothing although Unicode does not call them format characters: the grapheme joiner, the
# Hangul and Khmer fillers, the Mongolian and the general variation selectors.
_INVISIBLE = frozenset(
    {
        *(0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    }
)


class _VisibleTable(dict[int, int | None]):
    """For str.translate: None, which removes, for what cannot be seen. Learns as it is asked."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        category = unicodedata.category(character)
        hidden = category == "Cf" or (category == "Cc" and not character.isspace())
        self[code] = None if hidden or code in _INVISIBLE else code
        return self[code]


_VISIBLE = _VisibleTable()


def content_hash(messages: Sequence[Mapping[str, str]]) -> str:
    """sha256 of the conversation, exactly as written (canonical JSON): the identity of a prompt."""
    return hashlib.sha256(json_canonical([dict(one) for one in messages]).encode()).hexdigest()


def group_hash(messages: Sequence[Mapping[str, str]]) -> str:
    """sha256 of the normalised first user turn: what a prompt shares with its rewrites.

    Rewrites in case, white space, compatibility forms and invisible characters share it, and so do
    conversations that go on from each other. Raises ValueError without a user turn.
    """
    for message in messages:
        if message["role"] == "user":
            return hashlib.sha256(text_normalise(message["content"]).encode()).hexdigest()
    raise ValueError("a conversation without a user turn")


def text_normalise(text: str) -> str:
    """NFKC, case folded, invisible characters removed, runs of white space one space.

    Idempotent. Removing a character can bring two others together, so composing comes last as well.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = unicodedata.normalize("NFKC", text.translate(_VISIBLE))
    return " ".join(text.split())


def split_of(group: str, shares: Sequence[float] = SHARES) -> str:
    """The side of a group hash: "train", "validation" or "held_out".

    The first 52 bits of the hash, which a float holds exactly, are a point in [0, 1); `shares`, in
    the order of SIDES, cut that line. Raises ValueError unless there are three shares of at least 0
    that sum to 1.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"wanted three shares that sum to 1, got {tuple(shares)}")
    point = int(group[:13], 16) / 2**52
    if point < shares[0]:
        return "train"
    return "validation" if point < shares[0] + shares[1] else "held_out"
