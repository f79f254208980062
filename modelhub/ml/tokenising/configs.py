"""Settings of tokenizers and of the token sets made with them. Standard library only."""

import math
from dataclasses import dataclass
from typing import ClassVar

from modelhub.ml.configs import choices_check, one_of, require

ALGORITHMS = ("bpe", "wordpiece", "unigram")
BYTES = 256  # the alphabet of a byte-level BPE
END, PAD, UNKNOWN, MASK = "<|endoftext|>", "<|pad|>", "<|unk|>", "<|mask|>"
TURN_BEGIN, TURN_END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerConfig:
    """Train a tokenizer on a mixture of corpora. Reads `corpus_1`, `corpus_2`, … and, to be
    compared with, `reference`; writes output `tokenizer`."""

    PROGRAM: ClassVar[str] = "train_tokenizer"
    algorithm: str = one_of(ALGORITHMS, "bpe")  # bpe is byte-level
    vocabulary: int = 32_000  # tokens, special ones among them
    # Of the corpora, in the order of their roles; none given: by characters, evened out by the
    # temperature.
    shares: tuple[float, ...] = ()
    temperature: float = 1.0
    max_characters: int = 200_000_000  # read for training in all: what memory is bounded by
    special_tokens: tuple[str, ...] = ()  # beside those the tokenizer has for its ends and turns
    chat: bool = True  # turns laid as <|im_start|>role … <|im_end|>
    mask: bool = False  # a mask token, for masked objectives
    fertility_documents: int = 200  # of each corpus and language, for the report

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, wanted: str) -> None:
            require(ok, self.PROGRAM, name, getattr(self, name), wanted)

        choices_check(self)
        given = self.special_tokens
        check(all(one and one == one.strip() for one in given), "special_tokens", "words")
        own = self.own_tokens
        check(len({*own, *given}) == len(own) + len(given), "special_tokens", "each of them once")
        check(all(len(one) > 1 for one in given), "special_tokens", "more than one character each")
        least = len(own) + len(given) + (BYTES if self.algorithm == "bpe" else 1)
        check(least < self.vocabulary <= 1 << 20, "vocabulary", f"{least + 1} to {1 << 20}")
        finite = all(math.isfinite(one) and one >= 0 for one in self.shares)
        check(
            finite and (not self.shares or sum(self.shares) > 0), "shares", "0 or more, not all 0"
        )
        check(self.temperature >= 1, "temperature", "1 or more")
        check(self.max_characters >= 1000, "max_characters", "1000 or more")
        check(self.fertility_documents >= 1, "fertility_documents", "1 or more")

    @property
    def own_tokens(self) -> tuple[str, ...]:
        """The special tokens every tokenizer of this configuration has, in the order of ids."""
        return (
            END,
            PAD,
            *(() if self.algorithm == "bpe" else (UNKNOWN,)),
            *((TURN_BEGIN, TURN_END) if self.chat else ()),
            *((MASK,) if self.mask else ()),
        )


@dataclass(frozen=True, kw_only=True)
class TokeniseConfig:
    """Turn a corpus into a token set. Reads `corpus` and `tokenizer`; writes output `tokens`."""

    PROGRAM: ClassVar[str] = "tokenise"
    shard_characters: int = 50_000_000  # of a file; a killed run loses the work on one at most
    chunk_characters: int = 500_000  # given to a process at once
    workers: int = 0  # processes; 0: one a core
    megatron: bool = False  # write Megatron's .bin and .idx beside

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, wanted: str) -> None:
            require(ok, self.PROGRAM, name, getattr(self, name), wanted)

        check(self.shard_characters >= 1, "shard_characters", "1 or more")
        check(self.chunk_characters >= 1, "chunk_characters", "1 or more")
        check(0 <= self.workers <= 256, "workers", "0 to 256")
