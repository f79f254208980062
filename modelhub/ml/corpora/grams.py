"""Words in a row: their hashes, and how much of a text they repeat, of many texts at once.

An array's work costs the same few microseconds however short it is, and most texts are short: so
the words of a whole chunk of texts lie in one array, and six lengths of n-gram cost one sort of all
of it. What stands once as n words stands once as n + 1: each length sorts only what the one before
it found twice. An n-gram is known by the number of its first n − 1 words and the number of its
last: numbers, not hashes, so nothing collides.

Shapes: D texts, W words of all of them, C places where an n-gram begins that may stand twice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xxhash

_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it loses nothing of a 64-bit hash
_TOP_WORDS = (2, 3, 4)
_REPEATED_WORDS = (5, 6, 7, 8, 9, 10)


def hashes_of(words_U: Iterable[str]) -> np.ndarray:
    """xxh3 of each word, 64 bits: the same in every process."""
    return np.array([xxhash.xxh3_64_intdigest(word.encode()) for word in words_U], np.uint64)


def grams_hash(hashes_W: np.ndarray, n: int) -> np.ndarray:
    """The hash of each n words that follow one another, shape (W − n + 1,); empty for fewer."""
    size = len(hashes_W) - n + 1
    if size <= 0:
        return np.empty(0, np.uint64)
    grams = hashes_W[:size].copy()
    for shift in range(1, n):
        grams *= _MIX
        grams ^= grams >> np.uint64(29)
        grams += hashes_W[shift : shift + size]
    return grams


@dataclass(frozen=True, kw_only=True)
class TextWords:
    """The words of D texts, one after another."""

    ids_W: np.ndarray  # int64: words that are equal have the same number, of any text
    lengths_W: np.ndarray  # characters
    ends_D: np.ndarray  # one past each text's last word


@dataclass(frozen=True)
class _Repeated:
    """Places of n-grams that stand twice or more in their text, in order."""

    places_C: np.ndarray
    groups_C: np.ndarray  # equal for equal n-grams of one text
    counts_C: np.ndarray  # how often the n-gram stands there


def repetition_measure(words: TextWords) -> dict[str, np.ndarray]:
    """Characters in repeated n-grams of each text, shape (D,): Gopher's table A1.

    `top_N_gram` for 2 to 4 words: in every place of the commonest, the spaces between words with
    them. `repeated_N_grams` for 5 to 10: in those that stood there before, none counted twice.
    """
    texts = len(words.ends_D)
    text_W = np.repeat(np.arange(texts), np.diff(words.ends_D, prepend=0))
    ends_W1 = np.concatenate([[0], np.cumsum(words.lengths_W)])
    found = {}
    for n, repeated in _repeated_grams(words, text_W, max(_REPEATED_WORDS)):
        if n in _TOP_WORDS:
            found[f"top_{n}_gram"] = _top_characters(repeated, words, text_W, ends_W1, n)
        elif n in _REPEATED_WORDS:
            found[f"repeated_{n}_grams"] = _repeated_characters(
                repeated, text_W, ends_W1, n, texts=texts
            )
    return found


def _repeated_grams(
    words: TextWords, text_W: np.ndarray, longest: int
) -> Iterator[tuple[int, _Repeated]]:
    """(n, what stands twice) for n from 2 to `longest`."""
    vocabulary = int(words.ids_W.max(initial=0)) + 1
    places_C = np.arange(len(words.ids_W))
    groups_C = text_W * vocabulary + words.ids_W  # of one word: equal words of one text
    for n in range(2, longest + 1):
        is_inside_C = places_C + n <= words.ends_D[text_W[places_C]]
        places_C, groups_C = places_C[is_inside_C], groups_C[is_inside_C]
        groups_C, sizes = _numbered(groups_C * vocabulary + words.ids_W[places_C + n - 1])
        counts_C = sizes[groups_C]
        is_repeated_C = counts_C > 1
        places_C, groups_C = places_C[is_repeated_C], groups_C[is_repeated_C]
        yield n, _Repeated(places_C, groups_C, counts_C[is_repeated_C])


def _numbered(keys_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(each key's number, from 0 in the order of keys; how many keys have each number)."""
    order_C = np.argsort(keys_C)
    sorted_C = keys_C[order_C]
    is_new_C = np.concatenate([np.ones(min(1, len(keys_C)), bool), sorted_C[1:] != sorted_C[:-1]])
    groups_C = np.empty(len(keys_C), np.int64)
    groups_C[order_C] = np.cumsum(is_new_C) - 1
    starts = np.flatnonzero(is_new_C)
    return groups_C, np.diff(starts, append=len(keys_C))


def _top_characters(
    repeated: _Repeated, words: TextWords, text_W: np.ndarray, ends_W1: np.ndarray, n: int
) -> np.ndarray:
    """Of several n-grams as common, the one that came first counts."""
    starts_D = words.ends_D - np.diff(words.ends_D, prepend=0)
    firsts_D, counts_D = starts_D.copy(), np.ones(len(starts_D), np.int64)
    text_C = text_W[repeated.places_C]
    # The commonest first, of those the earliest place: what each text shows first.
    order_C = np.lexsort((repeated.places_C, -repeated.counts_C, text_C))
    _, first = np.unique(text_C[order_C], return_index=True)
    top = order_C[first]
    firsts_D[text_C[top]] = repeated.places_C[top]
    counts_D[text_C[top]] = repeated.counts_C[top]
    is_long_D = starts_D + n <= words.ends_D
    lasts_D = np.where(is_long_D, firsts_D + n, firsts_D)
    characters_D = (ends_W1[lasts_D] - ends_W1[firsts_D] + n - 1) * counts_D
    return np.where(is_long_D, characters_D, 0)


def _repeated_characters(
    repeated: _Repeated, text_W: np.ndarray, ends_W1: np.ndarray, n: int, *, texts: int
) -> np.ndarray:
    """A repeated n-gram is passed over whole, as in datatrove, so what overlaps it neither counts
    nor is remembered. Only n-grams that stand twice are walked in Python."""
    seen: set[int] = set()
    passed: list[int] = []
    following = 0
    for place, group in zip(repeated.places_C.tolist(), repeated.groups_C.tolist(), strict=True):
        if place < following:
            continue
        if group in seen:
            passed.append(place)
            following = place + n
        else:
            seen.add(group)
    places = np.array(passed, np.int64)
    characters = ends_W1[places + n] - ends_W1[places]
    return np.bincount(text_W[places], characters, texts).astype(np.int64)
