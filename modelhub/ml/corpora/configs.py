"""Configurations of the programs that bring corpora in and clean them. Standard library only."""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from modelhub.ml.configs import ConfigError, choices_check, one_of, require
from modelhub.ml.corpora.rules import FAMILIES, thresholds_of

FORMATS = ("auto", "text", "jsonl", "parquet")
SPLITS = ("file", "blank_lines", "pattern")


@dataclass(frozen=True, kw_only=True)
class ImportCorpusConfig:
    """Bring texts in. Reads no input; writes output `corpus`."""

    PROGRAM: ClassVar[str] = "import_corpus"
    # Files, folders (all that lies below), http(s) addresses, or fsspec's, such as s3://bucket/key
    locations: tuple[str, ...]
    format: str = one_of(FORMATS, "auto")  # auto goes by the name, .gz and .zst seen through
    # Of text: a document is a file, what blank_lines part, or a pattern begins.
    split: str = one_of(SPLITS, "file")
    pattern: str = ""  # regular expression that a document's first line matches, such as ^第.+回
    text_field: str = "text"  # of JSONL and Parquet
    id_field: str = "id"  # where a record has it; else documents are numbered
    source: str  # what the texts are called in mixtures and reports, such as sanguo
    licence: str = ""  # SPDX where there is one: CC0-1.0, MIT
    language: str = ""  # ISO 639, such as en or zh; empty: each document's as identified
    is_word_list: bool = False  # words or phrases, one a line: offered as bad words alone
    workers: int = 0  # processes that measure signals; 0: one a core
    max_document_characters: int = 10_000_000  # a longer one is refused, with its place

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, wanted: str) -> None:
            require(ok, self.PROGRAM, name, getattr(self, name), wanted)

        check(bool(self.locations) and all(self.locations), "locations", "one or more places")
        choices_check(self)
        check(bool(self.pattern) == (self.split == "pattern"), "pattern", "one for split pattern")
        try:
            re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"{self.PROGRAM}.pattern: {error}") from error
        check(bool(self.text_field), "text_field", "a name")
        check(
            re.fullmatch(r"[\w.-]{1,80}", self.source) is not None,
            "source",
            "a name of letters, digits, - . _",
        )
        check(
            re.fullmatch(r"[a-z]{0,8}", self.language) is not None, "language", "a code such as en"
        )
        check(0 <= self.workers <= 256, "workers", "0 to 256")
        check(self.max_document_characters >= 1, "max_document_characters", "1 or more")


@dataclass(frozen=True, kw_only=True)
class CleanCorpusConfig:
    """Clean a corpus. Reads input `corpus`, corpora already had (`known_1`, …), evaluation sets
    (`evaluation_1`, …, `held_out_1`, …) and lists of bad words (`bad_words_1`, …); writes outputs
    `corpus` and `report`."""

    PROGRAM: ClassVar[str] = "clean_corpus"
    families: tuple[str, ...] = one_of(FAMILIES, FAMILIES)  # whose rules hold
    # Thresholds moved: {"gopher.words_min": 20, "gopher.words_min@zh": null}; null takes one out
    thresholds: dict[str, Any] = field(default_factory=dict)
    rule_set: str = ""  # name and number of the saved thresholds these are, for people
    languages: tuple[str, ...] = ()  # kept, such as en, zh; empty: all
    language_score_min: float = 0.65  # of documents in a language that is asked for
    drop_c4_lines: bool = False  # lines without an end mark or three words go, as C4 does
    scrub_pii: bool = True  # addresses and numbers become <email>, <ip>, <phone>, <id>
    exact_duplicates: bool = True  # the first of texts equal but for case and spaces stays
    near_duplicates: bool = True  # MinHash; the first of those alike stays
    near_gram_words: int = 5  # words of a shingle
    near_bands: int = 14  # hashes are near_bands × near_rows
    near_rows: int = 8
    near_similarity_min: float = 0.7  # share of hashes that agree, of a pair that a band has found
    contamination_gram_words: int = 13  # words in a row that an evaluation item shares
    contamination_documents_max: int = 20  # words that more documents hold are a set phrase
    contamination_drop: bool = True  # else contaminated documents are reported alone
    workers: int = 0  # processes; 0: one a core
    seed: int = 0  # of the MinHash permutations

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, wanted: str) -> None:
            require(ok, self.PROGRAM, name, getattr(self, name), wanted)

        choices_check(self)
        thresholds_of(self.families, self.thresholds)
        check(0 <= self.language_score_min <= 1, "language_score_min", "0 to 1")
        check(1 <= self.near_gram_words <= 32, "near_gram_words", "1 to 32")
        check(1 <= self.near_bands <= 256, "near_bands", "1 to 256")
        check(1 <= self.near_rows <= 64, "near_rows", "1 to 64")
        check(0 <= self.near_similarity_min <= 1, "near_similarity_min", "0 to 1")
        check(4 <= self.contamination_gram_words <= 64, "contamination_gram_words", "4 to 64 words")
        check(self.contamination_documents_max >= 1, "contamination_documents_max", "1 or more")
        check(0 <= self.workers <= 256, "workers", "0 to 256")
