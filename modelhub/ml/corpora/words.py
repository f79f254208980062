"""Words: what every rule counts. Versioned, for a threshold means nothing without its splitter.

The published thresholds were found with spaCy's splitter, and with this one 99 verdicts of 100
are the same (docs/experiments.md). As there, a run of letters and digits with inner dots ("3.14",
"U.S.") is a word, what English hangs on by an apostrophe is one more ("it" and "'s"), and each mark
is one, a hyphen too, but that a run of dots or dashes is one together. Of scripts that are written
without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) every character is a word.
"""

import re

VERSION = "words-2"

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+")
_KANA = re.compile("[\u3040-\u30ff]")
_ANY_UNSPACED = re.compile(f"[{_UNSPACED}]")
_LETTER = rf"(?:(?![{_UNSPACED}])\w)"
_CLITIC = r"['’](?:s|t|re|ve|ll|d|m)\b"
_MARK = r"[.…]{2,}|[-—]{2,}|[^\w\s]"
_SPACED_WORD = re.compile(rf"\w+(?:(?!{_CLITIC})['’.]\w+)*|{_CLITIC}|{_MARK}")
_MIXED_WORD = re.compile(
    rf"[{_UNSPACED}]|{_LETTER}+(?:(?!{_CLITIC})['’.]{_LETTER}+)*|{_CLITIC}|{_MARK}"
)


def words_split(text: str) -> list[str]:
    """The words and runs of marks of a text, in order: "I’m 16岁!" → I, ’m, 16, 岁, !"""
    return _pattern(text).findall(text)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each of `words_split` lies: (first character, one past the last)."""
    return [match.span() for match in _pattern(text).finditer(text)]


def han_share(text: str) -> float:
    """Chinese characters among all that are no space, 0 to 1."""
    if text.isascii():
        return 0.0
    solid = len(text) - sum(map(len, re.findall(r"\s+", text)))
    return sum(map(len, _HAN.findall(text))) / solid if solid else 0.0


def has_kana(text: str) -> bool:
    """Whether there is any Japanese syllable: what tells its Han characters from Chinese."""
    return _KANA.search(text) is not None


def is_unspaced(char: str) -> bool:
    """Whether a character is a word by itself, of a script that is written without spaces."""
    return _ANY_UNSPACED.match(char) is not None


def is_word(word: str) -> bool:
    """Whether it is letters or digits, not a run of marks."""
    return word[0].isalnum() or any(map(str.isalnum, word))


def _pattern(text: str) -> re.Pattern[str]:
    # The pattern that knows unspaced scripts looks at every letter twice.
    if text.isascii() or not _ANY_UNSPACED.search(text):
        return _SPACED_WORD
    return _MIXED_WORD
