"""The words of a chunk of texts against the patterns of words.py, a text at a time."""

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelhub.ml.corpora import words
from modelhub.ml.corpora.chunk_words import chunk_split
from modelhub.ml.corpora.duplicates import content_hashes
from modelhub.ml.corpora.grams import hashes_of

# What words are made of and parted by, in a few characters that meet one another often.
MEETING = st.text(
    "aAsStTdDmMrReEvVlL1_'’..…--— \n\t\x1c\x85\u2028#!,他们的กာㄅ々。！٣é\u0301İß𝒳𠀀😀", max_size=24
)
TEXTS = st.lists(st.one_of(MEETING, st.text(max_size=12)), max_size=5)


@settings(deadline=None)
@given(texts=TEXTS)
@example(texts=["it's a.b'c don't 'tis it's.a we'llx we'll", "", "'", "."])
@example(texts=["3.14 … ... -- — a-b U.S. 's's'x a..b .a. _ a_b'_", "-", "…"])
@example(texts=["他's 16岁! it's他 I’m’s.x", "’s", "s’"])
def test_words_are_those_of_each_text_alone(texts: list[str]) -> None:
    chunk = chunk_split(texts)
    different = chunk.different()
    assert len(set(different)) == len(different)
    start = 0
    for text, end in zip(texts, chunk.ends_D.tolist(), strict=True):
        own = words.words_split(text)
        assert [different[number] for number in chunk.ids_W[start:end]] == own
        assert chunk.lengths_W[start:end].tolist() == [len(word) for word in own]
        assert chunk.is_word_W[start:end].tolist() == [words.is_word(word) for word in own]
        has_letter = [any(map(str.isalpha, word)) for word in own]
        assert chunk.has_letter_W[start:end].tolist() == has_letter
        start = end
    assert start == len(chunk.ids_W)


def test_words_are_found_by_their_numbers() -> None:
    chunk = chunk_split(["the 书 of the"])
    assert [chunk.different()[number] for number in chunk.numbers_of(["of", "的", "书"])] == [
        "of",
        "书",
    ]
    assert chunk_split(["plain text"]).numbers_of(["的", "text"]) == [1]


@settings(deadline=None)
@given(texts=TEXTS)
@example(texts=["IT'S İ", "", "…", "ẞ"])
def test_hashes_are_of_the_words_in_lower_case_without_marks(texts: list[str]) -> None:
    for text, hashes in zip(texts, content_hashes(texts), strict=True):
        own = [word for word in words.words_split(text.casefold()) if words.is_word(word)]
        assert hashes.tolist() == hashes_of(own).tolist()
