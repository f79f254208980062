"""Reads a token set: files of tokens one behind the other, mapped into memory, and where documents
end.

The layout is datatrove's: NAME.ds holds the tokens as uint16 or uint32, NAME.ds.index the end of
each document as uint64, counted in tokens of its file. Where the hub wrote the set
(modelhub/ml/tokenising/writer.py), NAME.ds.documents has the id and source of each. Several files
are read as one, in the order of their names. Nothing is read but what is asked for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelhub.ml.configs import RefusedError
from modelhub.ml.pretraining.objectives import Ints


class ShardsError(RefusedError):
    """A token set cannot be read; the message names the file."""


@dataclass(frozen=True)
class Document:
    """A document of a token set: a name people can find it by, and where it is from."""

    id: str
    source: str = ""


@dataclass(frozen=True)
class Block:
    """A stretch of tokens; positions restart at 0 with each document, and at the block."""

    tokens: Ints
    positions: Ints


class MappedShards:
    """The token set of a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises ShardsError naming the file that is missing, cut off or unlike its index."""
        names = sorted(folder.glob("*.ds"))
        if not names:
            raise ShardsError(f"{folder.name} holds no tokens (*.ds)")
        self._paths = names
        self._files = [_mapped(path) for path in names]
        self._ends = [
            _ends_read(path, len(file)) for path, file in zip(names, self._files, strict=True)
        ]
        self._starts = np.cumsum([0, *(len(file) for file in self._files)])
        self._first_documents = np.cumsum([0, *(len(ends) for ends in self._ends)])
        self.tokens = int(self._starts[-1])
        self.documents = int(self._first_documents[-1])
        self._all_ends = np.concatenate(
            [ends + start for ends, start in zip(self._ends, self._starts, strict=False)]
        )

    def block(self, number: int, block_tokens: int) -> Block:
        """Tokens number · block_tokens … of the set; the last block goes on with its beginning.

        Raises IndexError beyond the last one.
        """
        first = number * block_tokens
        if not 0 <= first < self.tokens or block_tokens > self.tokens:
            raise IndexError(f"block {number} of {-(-self.tokens // block_tokens)}")
        last = first + block_tokens
        parts = [*self._stretch(first, last), *self._stretch(0, last - self.tokens)]
        place_T = np.arange(block_tokens)
        ends = self._all_ends
        low, high = np.searchsorted(ends, [first + 1, last])
        wrapped = ends[: np.searchsorted(ends, last - self.tokens)] + self.tokens
        inner = np.concatenate([ends[low:high], wrapped]) - first
        inner = inner[(inner > 0) & (inner < block_tokens)]
        begun_T = np.zeros(block_tokens, dtype=np.int64)
        begun_T[inner] = inner
        return Block(np.concatenate(parts), place_T - np.maximum.accumulate(begun_T))

    def _stretch(self, first: int, last: int) -> list[Ints]:
        """Tokens first … last − 1 of the set, as far as there are such, in the files' parts."""
        parts = []
        for file, start in zip(self._files, self._starts, strict=False):
            own = slice(max(0, first - start), max(0, min(len(file), last - start)))
            if own.stop > own.start:
                parts.append(np.asarray(file[own], dtype=np.int64))
        return parts

    def block_documents(self, number: int, block_tokens: int) -> list[Document]:
        """The documents of which a part stands in a block."""
        first = number * block_tokens
        last = first + block_tokens
        found = self._documents_between(first, min(last, self.tokens))
        more = self._documents_between(0, last - self.tokens) if last > self.tokens else []
        return found + [one for one in more if one not in found]

    def _documents_between(self, first: int, last: int) -> list[Document]:
        low = int(np.searchsorted(self._all_ends, first, side="right"))
        high = int(np.searchsorted(self._all_ends, last, side="left"))
        return self._documents_at(low, min(high, self.documents - 1) + 1)

    def _documents_at(self, first: int, last: int) -> list[Document]:
        found: list[Document] = []
        for path, start, end in zip(
            self._paths, self._first_documents, self._first_documents[1:], strict=False
        ):
            here = range(max(first, int(start)), min(last, int(end)))
            names = path.with_name(f"{path.name}.documents")
            if not here:
                continue
            if names.is_file():
                found += _names_read(names, here.start - int(start), here.stop - int(start))
            else:
                found += [Document(f"document {at}") for at in here]
        return found


def vocabulary_check(folder: Path, vocabulary: int, added: int = 0) -> None:
    """Refuse a set that the hub has made with a tokenizer of another number of tokens.

    vocabulary: of the run's tokenizer; added: how many of these, the last ones, it has for its
    objective alone, for a set may have been made before it had them. A larger vocabulary would have
    every token of the set, and other words for each. What other programs made does not say. Raises
    ShardsError with both numbers.
    """
    for path in sorted(folder.glob("*.ds.metadata")):
        name = path.read_text(encoding="utf-8").partition("|")[0]
        own = name.removesuffix("-tokens")
        fitting = (vocabulary, vocabulary - added)
        if name.endswith("-tokens") and own.isdecimal() and int(own) not in fitting:
            raise ShardsError(
                f"{folder.name} was made with a tokenizer of {own} tokens, and the run's has "
                f"{vocabulary}: give the run the tokenizer that made the set"
            )


def _names_read(path: Path, first: int, last: int) -> list[Document]:
    """Rows first … last − 1; only the row groups that hold them are read."""
    import pyarrow.parquet as pq

    found: list[Document] = []
    start = 0
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            end = start + file.metadata.row_group(number).num_rows
            if start < last and first < end:
                rows = file.read_row_group(number).slice(
                    max(0, first - start), min(last, end) - max(first, start)
                )
                found += [Document(**row) for row in rows.to_pylist()]
            start = end
    return found


def _mapped(path: Path) -> np.ndarray:
    ends = _index(path)
    tokens = int(ends[-1]) if len(ends) else 0
    size = path.stat().st_size
    if not tokens or size not in (2 * tokens, 4 * tokens):
        raise ShardsError(
            f"{path.name} is {size:,} bytes, and its index says {tokens:,} tokens of 2 or 4 bytes"
        )
    return np.memmap(path, dtype=np.uint16 if size == 2 * tokens else np.uint32, mode="r")


def _index(path: Path) -> Ints:
    index = path.with_name(f"{path.name}.index")
    if not index.is_file():
        raise ShardsError(f"{index.name} is missing")
    if index.stat().st_size % 8:
        raise ShardsError(f"{index.name} is cut off at byte {index.stat().st_size}")
    return np.fromfile(index, dtype=np.uint64).astype(np.int64)


def _ends_read(path: Path, tokens: int) -> Ints:
    ends = _index(path)
    falls = np.flatnonzero(np.diff(ends, prepend=0) < 0)
    if len(falls):
        raise ShardsError(f"{path.name}.index: document {falls[0]} ends before it begins")
    return ends
