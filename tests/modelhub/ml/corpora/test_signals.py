"""Signals against values worked out by hand; the greedy n-gram walk against datatrove's words."""

import random

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

import numpy as np

from modelhub.ml.corpora.signals import (
    NUMBERS,
    grams_hash,
    hashes_of,
    repeated_grams_characters,
    signals_measure,
    signals_schema,
    top_gram_characters,
)


def test_word_signals_of_a_short_text() -> None:
    """Seven words and two marks; letters in six; a # and an … in nine; be and the of stop words."""
    found = signals_measure("To be, or not the # 42 end…\n")
    assert found["words"] == 7
    assert found["word_length"] == pytest.approx((2 + 2 + 2 + 3 + 3 + 2 + 3) / 7)
    assert found["hashes"] == pytest.approx(1 / 10)
    assert found["ellipses"] == pytest.approx(1 / 10)
    assert found["alphabetic_words"] == pytest.approx(6 / 10)
    assert found["stop_words"] == 2  # as written: "To" is not "to"


def test_line_signals_of_a_list() -> None:
    text = "- one\n- two\n• three...\nThe end.\n\nThe end.\n"
    found = signals_measure(text)
    assert found["bullet_lines"] == pytest.approx(3 / 6)
    assert found["ellipsis_lines"] == pytest.approx(1 / 6)
    # Runs of line ends part six lines, the last one empty; one of them stood there before.
    assert found["repeated_lines"] == pytest.approx(1 / 6)
    assert found["repeated_lines_characters"] == pytest.approx(8 / len(text))
    assert found["ended_lines"] == pytest.approx(3 / 5)
    assert found["short_lines"] == 1.0
    assert found["repeated_line_characters"] == pytest.approx(8 / (len(text) - 6))


def test_c4_signals_keep_ended_lines_of_three_words() -> None:
    text = (
        "Too short.\nThis line counts. It has two sentences.\nno end mark here\n"
        "Please enable javascript to go on.\nRead our privacy policy before you go.\n"
        "“Here is one more line.”\n"
    )
    found = signals_measure(text)
    assert found["sentences"] == 3
    assert found["lines_kept"] == pytest.approx(2 / 6)
    assert signals_measure("Lorem ipsum dolor {x}")["lorem_ipsum"] == 1
    assert signals_measure("Lorem ipsum dolor {x}")["curly_brackets"] == 1


def test_chinese_counts_characters_and_its_own_marks() -> None:
    found = signals_measure("话说天下大势，分久必合。\n是的，这是我的书！\n")
    assert found["language"] == "zh"
    assert found["words"] == 17
    assert found["stop_words"] == 3  # 是 的 这
    assert found["sentences"] == 2
    assert found["ended_lines"] == 1.0
    assert found["han"] == pytest.approx(17 / 21)


def test_classical_verse_is_chinese() -> None:
    assert signals_measure("春眠不觉晓，处处闻啼鸟。")["language"] == "zh"
    assert signals_measure("吾輩は猫である。名前はまだ無い。")["language"] == "ja"


def datatrove_repeated(words: list[str], n: int) -> int:
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


@pytest.mark.parametrize("seed", range(20))
def test_repeated_grams_are_those_of_the_plain_walk(seed: int) -> None:
    chance = random.Random(seed)
    words = [chance.choice(["a", "bb", "ccc"]) for _ in range(chance.randrange(0, 60))]
    hashes = hashes_of(words)
    ends = np.concatenate([[0], np.cumsum([len(word) for word in words], dtype=np.int64)])
    for n in (2, 3, 5):
        expected = datatrove_repeated(words, n)
        assert repeated_grams_characters(grams_hash(hashes, n), ends, n) == expected


def test_the_commonest_gram_counts_with_its_spaces() -> None:
    words = ["a", "rose", "is", "a", "rose", "is", "a", "thorn"]
    ends = np.concatenate([[0], np.cumsum([len(word) for word in words])])
    grams = grams_hash(hashes_of(words), 2)
    assert top_gram_characters(grams, ends, 2) == 2 * len("a rose")


def test_an_empty_text_has_every_signal() -> None:
    found = signals_measure(" \n")
    assert all(found[name] == 0 for name in NUMBERS)
    assert set(found) == set(signals_schema().names)


def test_spans_are_kept_beside_their_counts() -> None:
    found = signals_measure("Write to a@b.com or c@d.org.")
    assert found["pii_email"] == 2
    assert found["pii"][0] == {"kind": "email", "start": 9, "end": 16}
