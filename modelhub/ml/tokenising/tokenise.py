"""Turn a corpus into a token set (writer.py), every document ended by the tokenizer's eos.

    python -m modelhub.ml.tokenising.tokenise RUN_DIR

A file is closed after `shard_characters` and kept: a run killed and started again tokenises from
the first document behind the last whole file, and its set is the one of an uninterrupted run.
Memory is that of a few chunks. A special token's name inside a text is text: nobody who writes a
document ends it early.
"""

import collections
import functools
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from modelhub.ml.configs import RefusedError
from modelhub.ml.corpora.documents import Document, documents_count, documents_read
from modelhub.ml.corpora.workers import chunks_map, pandas_leave_out, workers_given
from modelhub.ml.rundir import RunDir, program_run
from modelhub.ml.tokenising.backend import backend_open
from modelhub.ml.tokenising.configs import TokeniseConfig
from modelhub.ml.tokenising.megatron import megatron_write
from modelhub.ml.tokenising.writer import TokenFileWriter, beside, dtype_for


@dataclass(frozen=True)
class Chunk:
    """Documents of one file, encoded together."""

    shard: int
    documents: list[Document]


@dataclass(frozen=True)
class Encoded:
    """A chunk as tokens: of all documents, and how many each has."""

    shard: int
    tokens: NDArray[np.uint32]
    lengths: NDArray[np.int64]
    names: list[tuple[str, str]]
    characters: int


def main(run: RunDir) -> None:
    config = run.config(TokeniseConfig)
    corpus = run.input("corpus")
    tokenizer = backend_open(run.input("tokenizer"))
    if tokenizer.eos is None:
        raise RefusedError("the tokenizer has no eos token: nothing would end a document")
    part = run.path / "checkpoints" / "tokens"
    part.mkdir(exist_ok=True)
    backend = run.path / "checkpoints" / "tokenizer.json"
    tokenizer.tokenizer.save(str(backend))
    dtype, name = dtype_for(tokenizer.size), f"{tokenizer.size}-tokens"
    total = documents_count(corpus)
    whole = _whole_files(part)
    done = sum(beside(path, "index").stat().st_size // 8 for path in whole)
    if whole:
        print(f"{len(whole)} files are whole: on from document {done}", flush=True)
    started, begun_tokens, characters = time.monotonic(), 0, 0
    workers = workers_given(config.workers)
    if workers > 1:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are parallel enough
    encode = functools.partial(_encode, str(backend), tokenizer.eos)
    rest = itertools.islice(documents_read(corpus), done, None)
    chunks = _chunks(rest, config, first_shard=len(whole))
    writer: TokenFileWriter | None = None
    shard = -1
    for encoded in chunks_map(encode, chunks, workers=workers):
        if encoded.shard != shard:
            if writer is not None:
                writer.close()
            shard = encoded.shard
            writer = TokenFileWriter(part / f"{shard:05d}.ds", dtype=dtype, tokenizer=name)
        assert writer is not None  # noqa: S101 - the first chunk opens one
        writer.add(encoded.tokens, encoded.lengths, encoded.names)
        done += len(encoded.lengths)
        begun_tokens += len(encoded.tokens)
        characters += encoded.characters
        rate = begun_tokens / (time.monotonic() - started)
        run.metric(done, {"tokens_per_s": rate, "megacharacters": characters / 1e6})
        run.progress(done, total, "documents")
    if writer is not None:
        writer.close()
    run.succeed(outputs={"tokens": "tokens"}, result=_publish(run, part, corpus, config))


def _whole_files(part: Path) -> list[Path]:
    """The files that are whole; what was begun behind them is deleted."""
    whole = []
    for number in itertools.count():
        path = part / f"{number:05d}.ds"
        if not beside(path, "metadata").exists():
            break
        whole.append(path)
    kept = {path.name for path in whole}
    for path in part.iterdir():
        if path.name[: len("00000.ds")] not in kept:
            path.unlink()
    return whole


def _chunks(
    documents: Iterator[Document], config: TokeniseConfig, *, first_shard: int
) -> Iterator[Chunk]:
    """Chunks of whole documents; a file ends behind the document that fills it."""
    shard, shard_characters = first_shard, 0
    held: list[Document] = []
    held_characters = 0
    for document in documents:
        held.append(document)
        held_characters += len(document.text)
        is_shard_full = shard_characters + held_characters >= config.shard_characters
        if is_shard_full or held_characters >= config.chunk_characters:
            yield Chunk(shard, held)
            shard_characters += held_characters
            held, held_characters = [], 0
        if is_shard_full:
            shard, shard_characters = shard + 1, 0
    if held:
        yield Chunk(shard, held)


def _encode(backend: str, eos: int, chunk: Chunk) -> Encoded:
    texts = [document.text for document in chunk.documents]
    rows = _backend(backend).encode_batch_fast(texts, add_special_tokens=False)
    ids = [row.ids for row in rows]
    lengths = np.array([len(row) + 1 for row in ids], dtype=np.int64)
    ended = itertools.chain.from_iterable((*row, eos) for row in ids)
    return Encoded(
        shard=chunk.shard,
        tokens=np.fromiter(ended, dtype=np.uint32, count=int(lengths.sum())),
        lengths=lengths,
        names=[(document.id, document.source) for document in chunk.documents],
        characters=sum(map(len, texts)),
    )


@functools.lru_cache(maxsize=1)
def _backend(path: str) -> Tokenizer:
    """The tokenizer, once a process. What special tokens are called is text like any other."""
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _publish(run: RunDir, part: Path, corpus: Path, config: TokeniseConfig) -> dict[str, Any]:
    """Link the files into the output, and count."""
    output = run.output("tokens")
    for path in sorted(part.iterdir()):
        os.link(path, output / path.name)
    files = sorted(output.glob("*.ds"))
    if config.megatron:
        for path in files:
            megatron_write(path)
    lengths = [np.diff(np.fromfile(beside(path, "index"), "<u8"), prepend=0) for path in files]
    tokens = collections.Counter[tuple[str, str]]()
    counts: dict[tuple[str, str], collections.Counter[str]] = {}
    flat = itertools.chain.from_iterable(lengths)
    for document, length in zip(documents_read(corpus), flat, strict=True):
        key = (document.source, document.language)
        tokens[key] += int(length)
        counts.setdefault(key, collections.Counter()).update(
            documents=1, characters=len(document.text)
        )
    if not tokens:
        raise RefusedError("the corpus has no document")
    return {
        "files": len(files),
        "documents": sum(len(one) for one in lengths),
        "tokens": sum(tokens.values()),
        "token_bytes": files[0].stat().st_size
        // int(np.fromfile(beside(files[0], "index"), "<u8")[-1]),
        "sources": [
            {
                "source": source,
                "language": language or "not known",
                "documents": counts[source, language]["documents"],
                "tokens": count,
                "tokens_per_character": count / max(1, counts[source, language]["characters"]),
            }
            for (source, language), count in tokens.most_common()
        ],
    }


if __name__ == "__main__":
    pandas_leave_out()
    program_run(main)
