"""Lists of words whose documents go, as C4 dropped every page with a bad word (section 2.2).

No list is shipped: what is bad is a matter of taste, language and law. A list is a corpus of its
own, or a folder of text files: a word or a phrase a line; lines that begin with # are notes. Words
are compared in lower case, without the marks between them, as whole words; of scripts that are
written without spaces, wherever their characters stand in a row.
"""

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from modelhub.ml.corpora.documents import CorpusError, documents_read
from modelhub.ml.corpora.duplicates import content_hashes
from modelhub.ml.corpora.grams import grams_hash

_MAX_WORDS = 16  # of a phrase
_MAX_PHRASES = 1_000_000


def phrases_read(folder: Path) -> Iterator[str]:
    """The words and phrases of a list. Raises CorpusError for one without any."""
    found = False
    for text in _texts(folder):
        for line in text.splitlines():
            phrase = line.strip().lstrip("\ufeff")
            if phrase and not phrase.startswith("#"):
                found = True
                yield phrase
    if not found:
        raise CorpusError(f"{folder.name} is no list of words: it holds none")


def _texts(folder: Path) -> Iterator[str]:
    if list(folder.glob("documents-*.parquet")):
        yield from (document.text for document in documents_read(folder))
        return
    for path in sorted(folder.glob("*.txt")):
        try:
            yield path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(f"{path.name}, byte {error.start}: not UTF-8") from error


class WordList:
    """Phrases by the hash of their words, sorted: looked for in a document by binary search."""

    def __init__(self, folder: Path) -> None:
        """Open a list that `write` has written."""
        saved = np.load(folder / "words.npz")
        self._phrases = (folder / "words.txt").read_text(encoding="utf-8").split("\n")
        self._lengths = [
            int(name.removeprefix("grams_")) for name in saved.files if "grams" in name
        ]
        self._grams = {n: saved[f"grams_{n}"] for n in self._lengths}
        self._places = {n: saved[f"places_{n}"] for n in self._lengths}

    @classmethod
    def write(cls, phrases: Iterable[str], folder: Path) -> None:
        """Raises CorpusError for a phrase without a word, or of too many."""
        kept = list(dict.fromkeys(phrases))
        if len(kept) > _MAX_PHRASES:
            raise CorpusError(f"{len(kept)} words and phrases: {_MAX_PHRASES} at most")
        by_length: dict[int, list[tuple[int, int]]] = {}
        for place, (phrase, hashes) in enumerate(zip(kept, content_hashes(kept), strict=True)):
            if not 1 <= len(hashes) <= _MAX_WORDS:
                raise CorpusError(f"{phrase[:80]!r}: a phrase has 1 to {_MAX_WORDS} words")
            (gram,) = grams_hash(hashes, len(hashes)).tolist()
            by_length.setdefault(len(hashes), []).append((gram, place))
        arrays: dict[str, np.ndarray] = {}
        for n, pairs in by_length.items():
            pairs.sort()
            arrays[f"grams_{n}"] = np.array([gram for gram, _ in pairs], np.uint64)
            arrays[f"places_{n}"] = np.array([place for _, place in pairs], np.int64)
        folder.mkdir()
        np.savez(folder / "words.npz", **arrays)  # type: ignore[arg-type]
        (folder / "words.txt").write_text("\n".join(kept), encoding="utf-8")

    def first_in(self, hashes_W: np.ndarray) -> str:
        """The phrase that stands first in a document, given with its `content_hashes`, or ""."""
        found: list[tuple[int, int]] = []  # (where, which)
        for n, known in self._grams.items():
            grams = grams_hash(hashes_W, n)
            places = np.minimum(np.searchsorted(known, grams), len(known) - 1)
            at = np.flatnonzero(known[places] == grams)
            if len(at):
                found.append((int(at[0]), int(self._places[n][places[at[0]]])))
        return self._phrases[min(found)[1]] if found else ""


@functools.cache
def list_open(folder: Path) -> WordList:
    """The list, loaded once a process."""
    return WordList(folder)
