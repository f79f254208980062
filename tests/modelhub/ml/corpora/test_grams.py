"""Repetition of many texts at once against the plain walk over each, as datatrove does it."""

import collections
import random

import numpy as np
import pytest

pytest.importorskip("xxhash", reason="the pretrain extra is not installed")

from modelhub.ml.corpora.grams import TextWords, grams_hash, hashes_of, repetition_measure


def words_of(texts: list[list[str]]) -> TextWords:
    numbers = {word: number for number, word in enumerate({w for text in texts for w in text})}
    every = [word for text in texts for word in text]
    return TextWords(
        ids_W=np.array([numbers[word] for word in every], np.int64),
        lengths_W=np.array([len(word) for word in every], np.int64),
        ends_D=np.cumsum([len(text) for text in texts]),
    )


def repeated_plainly(words: list[str], n: int) -> int:
    """The walk that the thresholds were published for, as its description says."""
    seen: set[tuple[str, ...]] = set()
    characters, place = 0, 0
    while place + n <= len(words):
        gram = tuple(words[place : place + n])
        if gram in seen:
            characters += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return characters


def top_plainly(words: list[str], n: int) -> int:
    counts = collections.Counter(
        tuple(words[place : place + n]) for place in range(len(words) - n + 1)
    )
    if not counts:
        return 0
    ((gram, count),) = counts.most_common(1)  # of several as common, the first that was counted
    return len(" ".join(gram)) * count


@pytest.mark.parametrize("seed", range(20))
def test_repetition_is_that_of_the_plain_walk_over_each_text(seed: int) -> None:
    chance = random.Random(seed)
    texts = [
        [chance.choice(["a", "bb", "ccc"]) for _ in range(chance.randrange(1, 80))]
        for _ in range(chance.randrange(1, 6))
    ]
    found = repetition_measure(words_of(texts))
    for n in (2, 3, 4):
        assert found[f"top_{n}_gram"].tolist() == [top_plainly(text, n) for text in texts]
    for n in range(5, 11):
        expected = [repeated_plainly(text, n) for text in texts]
        assert found[f"repeated_{n}_grams"].tolist() == expected


def test_the_commonest_gram_counts_with_its_spaces() -> None:
    found = repetition_measure(words_of([["a", "rose", "is", "a", "rose", "is", "a", "thorn"]]))
    assert found["top_2_gram"].tolist() == [2 * len("a rose")]


def test_what_two_texts_share_repeats_in_neither() -> None:
    text = ["one", "two", "three", "four", "five", "six"]
    found = repetition_measure(words_of([text, text]))
    assert found["repeated_5_grams"].tolist() == [0, 0]


def test_a_gram_has_the_same_hash_wherever_it_stands() -> None:
    hashes = grams_hash(hashes_of(["a", "b", "c", "a", "b", "c"]), 3)
    assert hashes[0] == hashes[3]
    assert len(set(hashes.tolist())) == 3
    assert len(grams_hash(hashes_of(["a"]), 2)) == 0
