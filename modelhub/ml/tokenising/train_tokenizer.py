"""Train a tokenizer on a mixture of corpora, and tell how many tokens it makes of each language.

    python -m modelhub.ml.tokenising.train_tokenizer RUN_DIR

Of each corpus its share of `max_characters` is read, spread evenly over all of it; a corpus that is
smaller is read whole, and the others have more. The report (`fertility`) counts documents that may
have been trained on; `reference`, another tokenizer, is counted on the same.
"""

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import regex  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerFast

from modelhub.ml.configs import RefusedError
from modelhub.ml.corpora.documents import Document, documents_read
from modelhub.ml.mixture import shares_fill, shares_temper
from modelhub.ml.rundir import RunDir, program_run
from modelhub.ml.tokenising.configs import TrainTokenizerConfig
from modelhub.ml.tokenising.tokenizers import tokenizer_open, tokenizer_train

PIECE_CHARACTERS = 10_000
_WORD = regex.compile(r"\p{Han}|[\p{L}\p{N}]+(?:['’-][\p{L}\p{N}]+)*")  # a Han character is a word


def main(run: RunDir) -> None:
    config = run.config(TrainTokenizerConfig)
    roles = sorted(
        (role for role in run.input_roles() if role.startswith("corpus")),
        key=lambda role: (len(role), role),
    )
    corpora = [run.input(role) for role in roles]
    sizes = [sum(len(one.text) for one in documents_read(corpus)) for corpus in corpora]
    quotas = quotas_plan(sizes, config)
    for role, size, quota in zip(roles, sizes, quotas, strict=True):
        print(f"{role}: {quota:,} of {size:,} characters", flush=True)
    run.progress(0, sum(quotas), "characters")
    tokenizer = tokenizer_train(_texts(run, corpora, sizes, quotas), config)
    folder = run.output("tokenizer")
    tokenizer.save_pretrained(folder)
    loaded = tokenizer_open(folder)  # as everybody will read it
    reference = tokenizer_open(run.input("reference")) if run.has_input("reference") else None
    run.progress(sum(quotas), sum(quotas), "characters")
    run.succeed(
        outputs={"tokenizer": "tokenizer"},
        result={
            "algorithm": config.algorithm,
            "vocabulary": len(loaded),
            "eos_token": loaded.eos_token,
            "pad_token": loaded.pad_token,
            "has_chat_template": bool(loaded.chat_template),
            "sampled": [
                {"corpus": role, "characters": quota, "of": size}
                for role, size, quota in zip(roles, sizes, quotas, strict=True)
            ],
            "fertility": fertility(corpora, loaded, reference, config.fertility_documents),
        },
    )


def quotas_plan(sizes: Sequence[int], config: TrainTokenizerConfig) -> list[int]:
    """Characters to read of each corpus. None is read twice: its quota is its size at most.

    Raises RefusedError for shares that are not the corpora's, or corpora without text.
    """
    if not sizes or not any(sizes):
        raise RefusedError("a tokenizer needs a corpus with text")
    if config.shares and len(config.shares) != len(sizes):
        raise RefusedError(f"{len(sizes)} corpora and {len(config.shares)} shares")
    shares = config.shares or shares_temper([float(one) for one in sizes], config.temperature)
    limits = [float(size) if share else 0.0 for size, share in zip(sizes, shares, strict=True)]
    total = min(float(config.max_characters), sum(limits))
    if not total:
        raise RefusedError("the corpora with a share above 0 have no text")
    return [round(share * total) for share in shares_fill(shares, limits, total)]


def _texts(
    run: RunDir, corpora: Sequence[Path], sizes: Sequence[int], quotas: Sequence[int]
) -> Iterator[str]:
    done, total = 0, sum(quotas)
    for corpus, size, quota in zip(corpora, sizes, quotas, strict=True):
        for number, piece in enumerate(pieces_spread(documents_read(corpus), size, quota)):
            yield piece
            done += len(piece)
            if number % 100 == 0:
                run.progress(done, total, "characters")


def pieces_spread(documents: Iterator[Document], size: int, quota: int) -> Iterator[str]:
    """Pieces of documents that are `quota` of `size` characters together, evenly spread.

    To within half a piece; the same ones every time.
    """
    seen = kept = 0
    for document in documents:
        for start in range(0, len(document.text), PIECE_CHARACTERS):
            piece = document.text[start : start + PIECE_CHARACTERS]
            seen += len(piece)
            # Kept if that brings what was kept nearer to its part of what was seen.
            if (kept + len(piece) / 2) * size <= seen * quota:
                kept += len(piece)
                yield piece


def fertility(
    corpora: Sequence[Path],
    tokenizer: PreTrainedTokenizerFast,
    reference: PreTrainedTokenizerFast | None,
    documents_max: int,
) -> list[dict[str, Any]]:
    """Tokens a word, a character and a byte, by source and language, of the first documents."""
    found: dict[tuple[str, str], collections.Counter[str]] = {}
    for corpus in corpora:
        for document in documents_read(corpus):
            counts = found.setdefault((document.source, document.language), collections.Counter())
            if counts["documents"] >= documents_max:
                continue
            text = document.text[:PIECE_CHARACTERS]
            counts.update(
                documents=1,
                words=sum(1 for _ in _WORD.finditer(text)),
                characters=len(text),
                bytes=len(text.encode()),
                tokens=_count(tokenizer, text),
                reference=_count(reference, text) if reference is not None else 0,
            )
    return [
        {
            "source": source,
            "language": language or "not known",
            "documents": counts["documents"],
            "tokens_per_word": counts["tokens"] / max(1, counts["words"]),
            "tokens_per_character": counts["tokens"] / max(1, counts["characters"]),
            "tokens_per_byte": counts["tokens"] / max(1, counts["bytes"]),
            **(
                {"reference_tokens_per_word": counts["reference"] / max(1, counts["words"])}
                if reference is not None
                else {}
            ),
        }
        for (source, language), counts in found.items()
    ]


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)


if __name__ == "__main__":
    program_run(main)
