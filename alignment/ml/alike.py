"""How much two answers have in common, in any script. Standard library only."""

import unicodedata

PIECE = 5  # characters: a word of English, or a phrase of Chinese


def text_fold(text: str) -> str:
    """The text without what makes no other answer of it: case, width, and runs of spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def pieces(text: str) -> frozenset[str]:
    """All runs of `PIECE` characters of a folded text; the text itself if it is shorter."""
    return frozenset(text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1)))


def likeness(a: frozenset[str], b: frozenset[str]) -> float:
    """The share of two texts' pieces that both have (Jaccard 1912), 0 to 1."""
    return len(a & b) / len(a | b)
