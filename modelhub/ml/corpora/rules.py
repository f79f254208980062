"""The rules of Gopher, C4 and FineWeb: a signal, a side and a threshold each. Standard library.

A rule is a comparison of one stored number, so what it would drop is a query. Chinese has
thresholds of its own where a word is a character and a line is shorter; a rule that means nothing
in Chinese has none there.

Gopher: Rae et al. 2021 (arXiv:2112.11446), appendix A.1.1 and table A1. C4: Raffel et al. 2020
(JMLR 21:140), section 2.2. FineWeb: Penedo et al. 2024 (arXiv:2406.17557), section 3.6.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelhub.ml.configs import ConfigError

CHINESE = "zh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Keeps a document whose `signal` is at least (`is_minimum`) or at most the threshold."""

    name: str  # "gopher.words_min"
    signal: str
    is_minimum: bool
    threshold: float
    chinese: float | None  # threshold for Chinese; None: the rule does not look at it
    about: str

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]

    def drops(self, value: float, threshold: float) -> bool:
        return value < threshold if self.is_minimum else value > threshold


def _least(name: str, signal: str, value: float, chinese: float | None, about: str) -> Rule:
    return Rule(
        name=name, signal=signal, is_minimum=True, threshold=value, chinese=chinese, about=about
    )


def _most(name: str, signal: str, value: float, chinese: float | None, about: str) -> Rule:
    return Rule(
        name=name, signal=signal, is_minimum=False, threshold=value, chinese=chinese, about=about
    )


_REPEATED = (
    ("lines", 0.30, "lines that stood there before"),
    ("paragraphs", 0.30, "paragraphs that stood there before"),
    ("lines_characters", 0.20, "characters in lines that stood there before"),
    ("paragraphs_characters", 0.20, "characters in paragraphs that stood there before"),
)
_TOP = ((2, 0.20), (3, 0.18), (4, 0.16))
_REPEATS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))

_RULES = (
    _least("gopher.words_min", "words", 50, 80, "words"),
    _most("gopher.words_max", "words", 100_000, 200_000, "words"),
    _least("gopher.word_length_min", "word_length", 3, None, "characters of a word, on average"),
    _most("gopher.word_length_max", "word_length", 10, None, "characters of a word, on average"),
    _most("gopher.hashes", "hashes", 0.1, 0.1, "# a word"),
    _most("gopher.ellipses", "ellipses", 0.1, 0.1, "… a word"),
    _most("gopher.bullet_lines", "bullet_lines", 0.9, 0.9, "lines that begin with a bullet"),
    _most("gopher.ellipsis_lines", "ellipsis_lines", 0.3, 0.3, "lines that end with …"),
    _least("gopher.alphabetic_words", "alphabetic_words", 0.8, 0.7, "words with a letter"),
    _least("gopher.stop_words", "stop_words", 2, 2, "different stop words"),
    *(
        _most(f"gopher.repeated_{name}", f"repeated_{name}", value, value, about)
        for name, value, about in _REPEATED
    ),
    *(
        _most(f"gopher.top_{n}_gram", f"top_{n}_gram", value, value, f"in the commonest {n} words")
        for n, value in _TOP
    ),
    *(
        _most(
            f"gopher.repeated_{n}_grams",
            f"repeated_{n}_grams",
            value,
            value,
            f"characters in {n} words that stood there before",
        )
        for n, value in _REPEATS
    ),
    _least("c4.sentences", "sentences", 5, 5, "sentences in lines that C4 keeps"),
    _most("c4.lorem_ipsum", "lorem_ipsum", 0, 0, "“lorem ipsum”"),
    _most("c4.curly_brackets", "curly_brackets", 0, 0, "{"),
    _least("fineweb.ended_lines", "ended_lines", 0.12, 0.12, "lines that end in punctuation"),
    _most("fineweb.short_lines", "short_lines", 0.67, 0.67, "short lines"),
    _most(
        "fineweb.repeated_line_characters",
        "repeated_line_characters",
        0.01,
        0.01,
        "characters in lines that stood there before",
    ),
    _most("fineweb.line_breaks", "line_breaks", 0.3, 0.15, "line breaks a word"),
)
RULES: dict[str, Rule] = {rule.name: rule for rule in _RULES}
FAMILIES = ("gopher", "c4", "fineweb")


def thresholds_of(
    families: tuple[str, ...], changed: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Every threshold that holds: "gopher.words_min" → 50, "gopher.words_min@zh" → 80.

    `changed` moves or adds some, or takes them out with null. Raises ConfigError naming a rule that
    is not, or a value that is no finite number.
    """
    found: dict[str, float] = {}
    for rule in RULES.values():
        if rule.family in families:
            found[rule.name] = rule.threshold
            if rule.chinese is not None:
                found[f"{rule.name}@{CHINESE}"] = rule.chinese
    for name, value in (changed or {}).items():
        base, _, language = name.partition("@")
        if base not in RULES or language not in ("", CHINESE):
            raise ConfigError(f"clean_corpus.thresholds: there is no rule {name!r}")
        if value is None:
            found.pop(name, None)
        elif isinstance(value, bool) or not (
            isinstance(value, int | float) and math.isfinite(value)
        ):
            raise ConfigError(f"clean_corpus.thresholds: {name} is {value!r}, no finite number")
        else:
            found[name] = float(value)
    return found


def threshold_for(thresholds: Mapping[str, float], rule: str, *, is_chinese: bool) -> float | None:
    """What holds for a document, or None if the rule does not look at it."""
    return thresholds.get(f"{rule}@{CHINESE}" if is_chinese else rule)
