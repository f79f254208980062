"""Everything the rules ask of texts, measured in one pass: one number a signal, kept beside each.

The words of a text are split once and numbered once a chunk of texts; what repeats among them is
counted for the whole chunk together (grams.py). Stored, a threshold is a query: what it would drop
is seen before it is decided. The numbers are datatrove's (Gopher, C4, FineWeb filters of 0.10) but
for the splitter.

Shapes: D texts of a chunk, W words of all of them, U different ones.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from modelhub.ml.corpora import pii, words
from modelhub.ml.corpora.chunk_words import ChunkWords, chunk_split
from modelhub.ml.corpora.documents import Document
from modelhub.ml.corpora.grams import repetition_measure
from modelhub.ml.corpora.languages import language_identify
from modelhub.ml.corpora.rules import CHINESE

if typing.TYPE_CHECKING:
    import pyarrow as pa

VERSION = f"signals-2 {words.VERSION} {pii.VERSION}"
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

_ENGLISH_STOPS = ("the", "be", "to", "of", "and", "that", "have", "with")
# The eight commonest particles of modern Chinese, and of classical, which has few of the former.
_CHINESE_STOPS = tuple("的是在了不有和这之其而以于为也曰")
_LINES = re.compile("\n+")
_PARAGRAPHS = re.compile("\n{2,}")
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)|[。！？!?…]+[”’」』）]*")
_LINE_ENDS = (".", "?", "!", '"', "'", "。", "！", "？", "”", "’", "」", "』", "；", "…")
_ENDS = (".", "!", "?", ";", "…", "。", "！", "？", "；", "．", "｡", "؟", "।", "։")
_BOILERPLATE = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_LONG_WORD = re.compile(r"\S{1001}")
_SHORT_LINE, _SHORT_LINE_CHINESE = 30, 12  # characters: FineWeb's, and as much said in Chinese
_HAN_CHINESE = 0.6  # a text of so many Chinese characters and no kana is Chinese


def signals_measure(text: str) -> dict[str, Any]:
    """Every signal of a text: NUMBERS, `language` and the `pii` spans. Of an empty text, zeros.

    Shares are from 0 to 1 of what their name says; `word_length` is in characters.
    """
    return texts_measure([text])[0]


def texts_measure(texts: Sequence[str]) -> list[dict[str, Any]]:
    """`signals_measure` of each text, for less than one by one."""
    found = [_nothing() for _ in texts]
    solid = [(text, one) for text, one in zip(texts, found, strict=True) if text.strip()]
    measured_D = _word_signals([text for text, _ in solid])
    for (text, one), measured in zip(solid, measured_D, strict=True):
        one |= _language_signals(text)
        is_chinese = one["language"] == CHINESE
        chinese_stops = measured.pop("chinese_stop_words")
        if is_chinese:
            measured["stop_words"] = chinese_stops
        one |= _line_signals(text, measured.pop("all_words"), is_chinese)
        one |= measured
        one |= _c4_signals(text)
        spans = pii.pii_find(text)
        one["pii"] = [asdict(span) for span in spans]
        for span in spans:
            one[f"pii_{span.kind}"] += 1
        one["characters"], one["bytes"] = len(text), len(text.encode())
    return found


def _nothing() -> dict[str, Any]:
    return {
        **dict.fromkeys(NUMBERS, 0.0),
        **dict.fromkeys(COUNTS, 0),
        "language": "",
        "pii": [],
    }


def _language_signals(text: str) -> dict[str, Any]:
    code, score = language_identify(text)
    han = words.han_share(text)
    if han > _HAN_CHINESE and not words.has_kana(text):
        # Verse is taken for Japanese, and classical prose is half Wu to fastText.
        code, score = CHINESE, max(han, score if code == CHINESE else 0.0)
    return {"language": code, "language_score": score, "han": han}


def _word_signals(texts: Sequence[str]) -> list[dict[str, Any]]:
    """What words say, each text's. No text is without a word."""
    found: list[dict[str, Any]] = [{} for _ in texts]
    # Apart, for characters of a byte each are looked at faster.
    for is_ascii in (True, False):
        places = [place for place, text in enumerate(texts) if text.isascii() is is_ascii]
        if places:
            rows = _chunk_word_signals([texts[place] for place in places])
            for place, row in zip(places, rows, strict=True):
                found[place] = row
    return found


def _chunk_word_signals(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    chunk = chunk_split(texts)
    counts_D = np.diff(chunk.ends_D, prepend=0)
    starts_D = chunk.ends_D - counts_D
    is_word_W = chunk.is_word_W
    number_D = np.add.reduceat(is_word_W, starts_D, dtype=np.int64)
    characters_D = np.add.reduceat(chunk.lengths_W * is_word_W, starts_D)
    lengths_D = np.fromiter(map(len, texts), np.int64, len(texts))
    columns = {
        "words": number_D,
        "word_length": characters_D / np.maximum(1, number_D),
        "hashes": np.array([text.count("#") for text in texts]) / counts_D,
        "ellipses": np.array([text.count("...") + text.count("…") for text in texts]) / counts_D,
        "alphabetic_words": np.add.reduceat(chunk.has_letter_W, starts_D, dtype=np.int64)
        / counts_D,
        "all_words": counts_D,
        "stop_words": _stops(chunk, _ENGLISH_STOPS),
        "chinese_stop_words": _stops(chunk, _CHINESE_STOPS),
        **{name: found_D / lengths_D for name, found_D in repetition_measure(chunk).items()},
    }
    rows = zip(*(column_D.tolist() for column_D in columns.values()), strict=True)
    return (dict(zip(columns, row, strict=True)) for row in rows)


def _stops(chunk: ChunkWords, stops: Sequence[str]) -> np.ndarray:
    """How many different of these words each text has."""
    texts, different = len(chunk.ends_D), int(chunk.ids_W.max(initial=0)) + 1
    is_stop_U = np.zeros(different, bool)
    is_stop_U[chunk.numbers_of(stops)] = True
    places = np.flatnonzero(is_stop_U[chunk.ids_W])
    text_P = np.searchsorted(chunk.ends_D, places, side="right")
    pairs = np.unique(text_P * different + chunk.ids_W[places])
    return np.bincount(pairs // different, minlength=texts)


def _line_signals(text: str, count: int, is_chinese: bool) -> dict[str, float]:
    lines = text.splitlines()
    runs, paragraphs = _LINES.split(text), _PARAGRAPHS.split(text.strip())
    solid = [line for line in text.split("\n") if line.strip()]
    short = _SHORT_LINE_CHINESE if is_chinese else _SHORT_LINE
    repeated_lines, line_characters = _repeated(runs)
    repeated_paragraphs, paragraph_characters = _repeated(paragraphs)
    without_breaks = len(text) - text.count("\n")
    # Most texts have none of these marks, and asking a text is quicker than asking its lines.
    bullets = ellipses = 0
    if "-" in text or "•" in text:
        bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
    if "..." in text or "…" in text:
        ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    return {
        "bullet_lines": bullets / len(lines),
        "ellipsis_lines": ellipses / len(lines),
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
    # A phrase that no line has by itself may come of taking out what stands in brackets.
    may_drop = "[" in text or _has_boilerplate(text)
    for line in lines:
        line = line.strip()
        if "[" in line:
            line = _CITATION.sub("", line)
        if not line.endswith(_LINE_ENDS) or line.endswith("..."):
            continue
        if len(line.split(None, 3)) < 3 and (line.isascii() or _few_characters(line)):
            continue
        if len(line) > 1000 and _LONG_WORD.search(line) and line.isascii():
            continue
        if may_drop and _has_boilerplate(line):
            continue
        kept.append(line)
    return kept, len(lines)


def _has_boilerplate(text: str) -> bool:
    lowered = text.lower()
    return any(phrase in lowered for phrase in _BOILERPLATE)


def _few_characters(line: str) -> bool:
    return sum(map(words.is_word, words.words_split(line))) < 3


def documents_measure(documents: Sequence[Document]) -> list[tuple[Document, dict[str, Any]]]:
    """Each document with its signals; one whose language nobody has said has the one identified."""
    found = []
    signals = texts_measure([document.text for document in documents])
    for document, measured in zip(documents, signals, strict=True):
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
