"""Texts that are the same, and texts that are nearly so: MinHash (Broder 1997) in bands.

Near-duplicates share words in a row. Each text's set of n words in a row is kept as H hashes, whose
share of agreement estimates the sets' Jaccard similarity; two texts are compared if all R hashes of
one of B bands agree (H = B·R), which finds a pair of similarity s with probability
1 − (1 − s^R)^B. Bands are found by sorting, not by a table of buckets: a band of N texts takes
16·N bytes, and one after another is looked at.

Shapes: N texts, H hashes.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import rensa
import xxhash

from modelhub.ml.corpora.chunk_words import chunk_split
from modelhub.ml.corpora.grams import grams_hash, hashes_of

_COMPARED_PAIRS = 1 << 16  # at a time: their signatures are in memory
_NO_WORD = np.uint32(0xFFFFFFFF)  # every hash of a text without a word


class Rows(Protocol):
    """What gives rows of an array by their numbers, wherever they lie."""

    def __getitem__(self, numbers: np.ndarray, /) -> np.ndarray: ...


def exact_hash(text: str) -> bytes:
    """128 bits of a text, the same for texts that differ in case and white space alone."""
    return xxhash.xxh3_128_digest(" ".join(text.casefold().split()).encode())


def content_hashes(texts: Sequence[str]) -> list[np.ndarray]:
    """The hash of each word of each text in lower case, marks left out."""
    found: list[np.ndarray] = [np.empty(0, np.uint64)] * len(texts)
    lowered = [text.casefold() for text in texts]
    # Apart, for characters of a byte each are looked at faster.
    for is_ascii in (True, False):
        places = [place for place, text in enumerate(lowered) if text.isascii() is is_ascii]
        chunk = chunk_split([lowered[place] for place in places])
        hashes_W = hashes_of(chunk.different())[chunk.ids_W]
        kept = hashes_W[chunk.is_word_W]
        ends_D = np.append(0, np.cumsum(chunk.is_word_W))[chunk.ends_D].tolist()
        for place, start, end in zip(places, [0, *ends_D], ends_D, strict=False):
            found[place] = kept[start:end]
    return found


def signatures_make(
    hashes: Sequence[np.ndarray], *, gram_words: int, count: int, seed: int
) -> np.ndarray:
    """MinHash signatures of texts given by `content_hashes`, shape (N, `count`), uint32.

    A text shorter than `gram_words` is one shingle, of all it has; an empty one has no similar.
    """
    shingles = [grams_hash(one, min(gram_words, max(1, len(one)))) for one in hashes]
    offsets = np.cumsum([0, *map(len, shingles)]).astype(np.uint64)
    flat = np.concatenate(shingles) if shingles else np.empty(0, np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, count, seed)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(hashes), count)


def exact_duplicates(hashes_N2: np.ndarray) -> np.ndarray:
    """The first text of those with the same `exact_hash`, shape (N,): of one alone, itself.

    hashes_N2: the hashes as two 64-bit numbers each.
    """
    order_N = np.lexsort((hashes_N2[:, 1], hashes_N2[:, 0]))
    sorted_N2 = hashes_N2[order_N]
    firsts_N = np.empty(len(hashes_N2), np.int64)
    firsts_N[order_N] = order_N[_starts(_is_repeat(sorted_N2))]
    return firsts_N


def near_duplicates(
    signatures_NH: np.ndarray, *, bands: int, rows: int, similarity_min: float
) -> np.ndarray:
    """The first text of each one's group, shape (N,): of what is like nothing before, itself.

    In a band, every text is compared with the first of those it agrees with, and with the one
    before it. Groups are what such pairs, of `similarity_min` or more, connect.
    """
    firsts_N = np.arange(len(signatures_NH))
    for band in range(bands):
        pairs = band_pairs(band_keys(signatures_NH, band, rows))
        roots = _roots(firsts_N, pairs)
        pairs = pairs[roots[:, 0] != roots[:, 1]]  # not those that another band has joined
        groups_join(firsts_N, pairs_alike(signatures_NH, pairs, similarity_min))
    return groups_settle(firsts_N)


def band_keys(signatures_NH: np.ndarray, band: int, rows: int) -> np.ndarray:
    """One 64-bit number a text, shape (N,): the same where all hashes of a band agree."""
    return grams_hash_columns(signatures_NH[:, band * rows : (band + 1) * rows])


def band_pairs(keys_N: np.ndarray) -> np.ndarray:
    """Texts to compare, of those with the same key in a band, the earlier first, shape (P, 2)."""
    order_N = np.argsort(keys_N, kind="stable")
    is_same = _is_repeat(keys_N[order_N])
    members = np.flatnonzero(is_same)
    if not len(members):
        return np.empty((0, 2), np.int64)
    pairs = [
        np.stack([order_N[_starts(is_same)[members]], order_N[members]], 1),
        np.stack([order_N[members - 1], order_N[members]], 1),
    ]
    return np.unique(np.concatenate(pairs), axis=0)


def pairs_alike(signatures_NH: Rows, pairs_P2: np.ndarray, similarity_min: float) -> np.ndarray:
    """The pairs of which so large a share of hashes agrees. An empty text is like none."""
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs_P2), _COMPARED_PAIRS):
        some = pairs_P2[start : start + _COMPARED_PAIRS]
        left, right = signatures_NH[some[:, 0]], signatures_NH[some[:, 1]]
        is_empty = (left == _NO_WORD).all(axis=1) | (right == _NO_WORD).all(axis=1)
        found.append(some[((left == right).mean(axis=1) >= similarity_min) & ~is_empty])
    return np.concatenate(found)


def groups_join(firsts_N: np.ndarray, pairs_P2: np.ndarray) -> None:
    """Connect the groups of each pair; the earlier first is the first of both."""
    for left, right in pairs_P2.tolist():
        first, second = sorted((_root(firsts_N, left), _root(firsts_N, right)))
        firsts_N[second] = first


def groups_settle(firsts_N: np.ndarray) -> np.ndarray:
    """The first of each one's group, after the last joining."""
    while not np.array_equal(above_N := firsts_N[firsts_N], firsts_N):
        firsts_N = above_N
    return firsts_N


def _is_repeat(sorted_N: np.ndarray) -> np.ndarray:
    """Whether each is what stands before it; shape (N,) or (N, columns)."""
    is_same_N = np.zeros(len(sorted_N), bool)
    same = sorted_N[1:] == sorted_N[:-1]
    is_same_N[1:] = same.all(axis=1) if same.ndim > 1 else same
    return is_same_N


def _starts(is_same_N: np.ndarray) -> np.ndarray:
    """Where the run of equal ones that each is in begins."""
    return np.maximum.accumulate(np.where(is_same_N, 0, np.arange(len(is_same_N))))


def grams_hash_columns(columns_NR: np.ndarray) -> np.ndarray:
    """One 64-bit hash a row."""
    keys_N = np.zeros(len(columns_NR), np.uint64)
    for column in range(columns_NR.shape[1]):
        keys_N *= np.uint64(0x9E3779B97F4A7C15)
        keys_N ^= keys_N >> np.uint64(29)
        keys_N += columns_NR[:, column].astype(np.uint64)
    return keys_N


def _roots(firsts_N: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    roots = firsts_N[pairs]
    while not np.array_equal(above := firsts_N[roots], roots):
        roots = above
    return roots


def _root(firsts_N: np.ndarray, place: int) -> int:
    while firsts_N[place] != place:
        firsts_N[place] = place = int(firsts_N[firsts_N[place]])
    return place
