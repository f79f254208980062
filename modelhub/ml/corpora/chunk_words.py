"""The words of a whole chunk of texts: those of words.py, numbered, without a string for each.

The texts lie one after another as characters in one array, and whether a character begins a word
or goes on with one is asked of all of them together. Words that are equal get one number by Arrow's
table of the characters between two beginnings: they are compared, not only their hashes, so nothing
collides.

Shapes: D texts, C characters of all of them, S those that are no space, W words, U different ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelhub.ml.corpora import words
from modelhub.ml.corpora.grams import TextWords

# A character goes on with the one before it if both are of the same of these kinds.
_LETTER, _DOT, _DASH = 1, 2, 3
_JOINS = 3  # the bits of a kind
_CONNECTOR, _SPACE, _WORD, _ALNUM, _ALPHA = 4, 8, 16, 32, 64
_KNOWN = 128  # somebody has looked at the character
_AROUND = 4  # spaces before, between and behind texts: a neighbour is always there


@dataclass(frozen=True, kw_only=True)
class ChunkWords(TextWords):
    """The words of D texts, one after another; numbers go by first appearance."""

    is_word_W: np.ndarray  # as words.is_word
    has_letter_W: np.ndarray
    characters_U: pa.LargeBinaryArray  # each different word's
    encoding: str  # that they are in

    def different(self) -> list[str]:
        """Each different word, by its number."""
        return [one.decode(self.encoding) for one in self.characters_U.to_pylist()]

    def numbers_of(self, some: Sequence[str]) -> list[int]:
        """The numbers of those of some words that stand in a text."""
        able = [word for word in some if word.isascii() or self.encoding != "ascii"]
        sought = pa.array([word.encode(self.encoding) for word in able], pa.large_binary())
        found = pc.index_in(sought, value_set=self.characters_U)
        return [number for number in found.to_pylist() if number is not None]


def chunk_split(texts: Sequence[str]) -> ChunkWords:
    """The words of all texts, each's as `words.words_split` gives them."""
    around = " " * _AROUND
    codes_C, kinds_C, encoding = _characters(around.join(["", *texts, ""]))
    joins_C = kinds_C & _JOINS
    clitics, connectors = _inside_words(codes_C, kinds_C, joins_C)
    joins_C[connectors] = _LETTER
    goes_on_C = joins_C != 0
    goes_on_C[1:] &= joins_C[1:] == joins_C[:-1]
    goes_on_C[clitics + 1] = True  # the letters behind an apostrophe that begins a word
    is_solid_C = (kinds_C & _SPACE) == 0
    kinds_S = kinds_C[is_solid_C]
    starts_W = np.flatnonzero(~goes_on_C[is_solid_C])
    offsets_W1 = np.append(starts_W, len(kinds_S))
    kinds_W = np.bitwise_or.reduceat(kinds_S, starts_W) if len(starts_W) else kinds_S
    ids_W, characters_U = _numbered(codes_C[is_solid_C], offsets_W1)
    ends_D = np.cumsum([len(text) + _AROUND for text in texts], dtype=np.int64)  # a space's place
    return ChunkWords(
        ids_W=ids_W,
        lengths_W=np.diff(offsets_W1),
        ends_D=np.searchsorted(starts_W, np.cumsum(is_solid_C)[ends_D]),
        is_word_W=(kinds_W & _ALNUM) != 0,
        has_letter_W=(kinds_W & _ALPHA) != 0,
        characters_U=characters_U,
        encoding=encoding,
    )


def _characters(text: str) -> tuple[np.ndarray, np.ndarray, str]:
    """(code of each character, its kind, the encoding that the codes are)."""
    if text.isascii():
        raw = text.encode("ascii")
        return np.frombuffer(raw, np.uint8), np.frombuffer(raw.translate(_ASCII), np.uint8), "ascii"
    codes_C = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    kinds_C = _KINDS[codes_C]
    if not kinds_C.all():
        for code in np.unique(codes_C[kinds_C == 0]).tolist():
            _KINDS[code] = _kind(chr(code))
        kinds_C = _KINDS[codes_C]
    if codes_C.max() < 1 << 16:
        return codes_C.astype(np.uint16), kinds_C, "utf-16-le"
    return codes_C, kinds_C, "utf-32-le"


def _kind(char: str) -> int:
    is_word = char.isalnum() or char == "_"
    kind = _KNOWN
    if is_word and not words.is_unspaced(char):
        kind |= _LETTER
    elif char in ".…":
        kind |= _DOT
    elif char in "-—":
        kind |= _DASH
    flags = {
        _CONNECTOR: char in "'’.",
        _SPACE: char.isspace(),
        _WORD: is_word,
        _ALNUM: char.isalnum(),
        _ALPHA: char.isalpha(),
    }
    return kind + sum(bit for bit, is_so in flags.items() if is_so)


_ASCII = bytes(_kind(chr(code)) if code < 128 else 0 for code in range(256))
_KINDS = np.zeros(0x110000, np.uint8)  # of characters that have been met; 0: not yet


def _inside_words(
    codes_C: np.ndarray, kinds_C: np.ndarray, joins_C: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(apostrophes that begin a word such as ’s, marks that join letters to one word)."""
    marks = np.flatnonzero(kinds_C & _CONNECTOR)
    joins = (joins_C[marks - 1] == _LETTER) & (joins_C[marks + 1] == _LETTER)
    apostrophes = np.flatnonzero(codes_C[marks] != ord("."))
    at = marks[apostrophes]
    first, second = codes_C[at + 1], codes_C[at + 2]
    ends_second, ends_third = (kinds_C[at + 2] & _WORD) == 0, (kinds_C[at + 3] & _WORD) == 0
    letter = _is_any(first, "stdm") & ends_second
    letters = (second == ord("e")) & _is_any(first, "rv") | (second == ord("l")) & (first == second)
    letters &= ends_third
    is_clitic = letter | letters
    # What stands behind its letters joins nothing to them: "it's.a" is it, 's, ., a.
    behind = at[is_clitic] + 2 + letters[is_clitic]
    found = np.minimum(np.searchsorted(marks, behind), max(0, len(marks) - 1))
    joins[found[marks[found] == behind]] = False
    joins[apostrophes[is_clitic]] = False
    return at[is_clitic], marks[joins]


def _is_any(codes: np.ndarray, letters: str) -> np.ndarray:
    found = codes == ord(letters[0])
    for letter in letters[1:]:
        found |= codes == ord(letter)
    return found


def _numbered(
    codes_S: np.ndarray, offsets_W1: np.ndarray
) -> tuple[np.ndarray, pa.LargeBinaryArray]:
    """(each word's number, the characters of each different one)."""
    every = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(),
        len(offsets_W1) - 1,
        [None, pa.py_buffer(offsets_W1 * codes_S.itemsize), pa.py_buffer(codes_S)],
    )
    numbered = every.dictionary_encode()
    return np.asarray(numbered.indices).astype(np.int64), numbered.dictionary
