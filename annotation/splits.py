"""Which side of the train, validation and held-out split a prompt is on. Plain Python.

The side is a function of the prompt's words alone, so that no import, round or model of a project
can put the same question on both sides.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence

from modelhub.ml.records import json_canonical

SHARES = (0.75, 0.05, 0.20)  # train, validation, held-out
SIDES = ("train", "validation", "held_out")

# Drawn as nothing although Unicode does not call them format characters: the grapheme joiner, the
# Hangul and Khmer fillers, the Mongolian and the general variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)


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
    text = unicodedata.normalize("NFKC", "".join(map(_visible, _INVISIBLE.sub("", text))))
    return " ".join(text.split())


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf" or (category == "Cc" and not character.isspace()):
        return ""
    return character


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
