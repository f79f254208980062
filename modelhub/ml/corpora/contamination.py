"""Evaluation items in a corpus: which item, which document, which words; set phrases left out.

A document that shares `gram_words` words in a row with an item is contaminated (Brown et al. 2020,
arXiv:2005.14165, appendix C, with 13), unless so many documents share them that they are a set
phrase. An item of Chinese is looked for by half as many more, as its words are characters; one
that is shorter than the words asked, by all it has, if that is at least half of them.
"""

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelhub.ml.corpora import words
from modelhub.ml.corpora.documents import documents_read
from modelhub.ml.corpora.duplicates import content_hashes
from modelhub.ml.corpora.grams import grams_hash
from modelhub.ml.records import lines_read

_CHINESE_SHARE = 0.5
_SHOWN_CHARACTERS = 300
_NO_TEXT = ("id", "prompt_id", "role")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One text of an evaluation set."""

    set: str  # the input's role
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """Words of a document that stand in an item: their hash, and the characters they take."""

    gram: int
    start: int
    end: int


def items_read(role: str, folder: Path) -> Iterator[Item]:
    """The texts of an evaluation set: a corpus's documents, or every text in its JSON Lines."""
    if list(folder.glob("documents-*.parquet")):
        for document in documents_read(folder):
            yield Item(set=role, id=document.id, text=document.text)
        return
    for path in sorted(folder.glob("*.jsonl")):
        for number, value in lines_read(path):
            name = _name(value) or f"{path.name}#{number}"
            for text in _texts(value):
                yield Item(set=role, id=name, text=text)


def _name(value: Any) -> str:
    fields = value if isinstance(value, dict) else {}
    return str(fields.get("prompt_id") or fields.get("id") or "")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        fields = value.items() if isinstance(value, dict) else enumerate(value)
        for name, one in fields:
            if name not in _NO_TEXT:
                yield from _texts(one)


class ContaminationIndex:
    """n-grams of evaluation items, sorted: looked for in documents by binary search.

    `too_short` counts the items that have too few words to be looked for.
    """

    def __init__(self, folder: Path) -> None:
        """Open an index that `write` has written."""
        saved = np.load(folder / "index.npz")
        self._grams_by_words: dict[int, np.ndarray] = {
            int(name.removeprefix("grams_")): saved[name]
            for name in saved.files
            if name.startswith("grams_")
        }
        self._items_by_words = {n: saved[f"items_{n}"] for n in self._grams_by_words}
        facts = json.loads((folder / "items.json").read_text())
        self.items = [Item(**one) for one in facts["items"]]
        self.too_short: int = facts["too_short"]

    @classmethod
    def write(cls, items: Iterator[Item], *, gram_words: int, folder: Path) -> None:
        grams: dict[int, list[np.ndarray]] = {}
        owners: dict[int, list[np.ndarray]] = {}
        kept: list[dict[str, str]] = []
        too_short = 0
        for item in items:
            (hashes,) = content_hashes([item.text])
            is_chinese = words.han_share(item.text) > _CHINESE_SHARE
            wanted = gram_words * 3 // 2 if is_chinese else gram_words
            n = min(wanted, len(hashes))
            if n < (wanted + 1) // 2:
                too_short += 1
                continue
            found = np.unique(grams_hash(hashes, n))
            grams.setdefault(n, []).append(found)
            owners.setdefault(n, []).append(np.full(len(found), len(kept), np.int32))
            kept.append({"set": item.set, "id": item.id, "text": item.text[:_SHOWN_CHARACTERS]})
        arrays: dict[str, np.ndarray] = {}
        for n, parts in grams.items():
            flat, items_of = np.concatenate(parts), np.concatenate(owners[n])
            order = np.argsort(flat, kind="stable")
            arrays |= {f"grams_{n}": flat[order], f"items_{n}": items_of[order]}
        np.savez(folder / "index.npz", **arrays)  # type: ignore[arg-type]
        (folder / "items.json").write_text(json.dumps({"items": kept, "too_short": too_short}))

    def hits(self, text: str, hashes_W: np.ndarray) -> list[Hit]:
        """Every place of a document, given with its `content_hashes`, that stands in an item."""
        found: list[tuple[int, int, int]] = []
        for n, known in self._grams_by_words.items():
            grams = grams_hash(hashes_W, n)
            if not len(grams):
                continue
            places = np.minimum(np.searchsorted(known, grams), len(known) - 1)
            at = np.flatnonzero(known[places] == grams)
            found += [(int(grams[one]), int(one), n) for one in at]
        if not found:
            return []
        spans = [span for span in words.word_spans(text) if words.is_word(text[slice(*span)])]
        if len(spans) != len(hashes_W):  # lower case has more letters here and there (İ)
            spans = [(0, len(text))] * len(hashes_W)
        return [Hit(gram, spans[at][0], spans[at + n - 1][1]) for gram, at, n in found]

    def items_of(self, gram: int) -> list[int]:
        """Places, in `items`, of those that have an n-gram."""
        found: list[int] = []
        value = np.uint64(gram)
        for n, known in self._grams_by_words.items():
            start, end = np.searchsorted(known, value), np.searchsorted(known, value, "right")
            found += self._items_by_words[n][start:end].tolist()
        return found


@functools.cache
def index_open(folder: Path) -> ContaminationIndex:
    """The index, loaded once a process."""
    return ContaminationIndex(folder)


def hits_report(index: ContaminationIndex, hits: Sequence[Hit], text: str) -> list[dict[str, Any]]:
    """A document's hits by item: {"set", "item", "item_text", "start", "end", "words"}.

    Start and end are of its longest run of shared words; `words` that run's text.
    """
    runs: dict[int, list[tuple[int, int]]] = {}
    for hit in sorted(hits, key=lambda one: one.start):
        for item in set(index.items_of(hit.gram)):
            of_item = runs.setdefault(item, [])
            if of_item and hit.start <= of_item[-1][1]:
                of_item[-1] = (of_item[-1][0], max(hit.end, of_item[-1][1]))
            else:
                of_item.append((hit.start, hit.end))
    found = []
    for item, of_item in sorted(runs.items()):
        start, end = max(of_item, key=lambda one: one[1] - one[0])
        found.append(
            {
                "set": index.items[item].set,
                "item": index.items[item].id,
                "item_text": index.items[item].text,
                "start": start,
                "end": end,
                "words": text[start:end][:_SHOWN_CHARACTERS],
            }
        )
    return found
