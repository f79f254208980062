"""ROUGE-L of two texts, in any script. Standard library only."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

# A run of letters and digits is a word; each character of a script without spaces is one too.
_WORDS = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]|"
    r"[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+"
)


def words_of(text: str) -> list[str]:
    """The words of a text, folded in case and width."""
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())


def subsequence_length(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, a bit for each word of `a` (Hyyrö 2004)."""
    masks: dict[str, int] = {}
    for place, word in enumerate(a):
        masks[word] = masks.get(word, 0) | 1 << place
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        hit = row & masks.get(word, 0)
        row = ((row + hit) | (row - hit)) & full
    return len(a) - row.bit_count()


def rouge_l(a: list[str], b: list[str]) -> float:
    """ROUGE-L, F1 of the longest common subsequence (Lin 2004): 0 to 1; 0 if either is empty."""
    return 2 * subsequence_length(a, b) / (len(a) + len(b)) if a and b else 0.0


class Pool:
    """Texts that others are held against."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts: list[tuple[list[str], Counter[str]]] = []
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        words = words_of(text)
        self._texts.append((words, Counter(words)))

    def holds_like(self, text: str, alike: float) -> bool:
        """Whether ROUGE-L with any text of the pool is `alike` or more.

        Words in common bound it from above, lengths do before: most texts cost no more than that.
        """
        words = words_of(text)
        bag = Counter(words)
        for other, other_bag in self._texts:
            total = len(words) + len(other)
            if not total or 2 * min(len(words), len(other)) < alike * total:
                continue
            if 2 * (bag & other_bag).total() < alike * total:
                continue
            if rouge_l(words, other) >= alike:
                return True
        return False
