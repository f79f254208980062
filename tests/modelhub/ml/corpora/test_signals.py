"""Signals against values worked out by hand, and quick ways against plain ones."""

import re

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelhub.ml.corpora import words
from modelhub.ml.corpora.signals import (
    _LINE_ENDS,
    NUMBERS,
    c4_lines,
    signals_measure,
    signals_schema,
    texts_measure,
)


def test_word_signals_of_a_short_text() -> None:
    """Seven words and three marks; letters in six; a # and an … in ten; be and the: stop words."""
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


def test_an_empty_text_has_every_signal() -> None:
    found = signals_measure(" \n")
    assert all(found[name] == 0 for name in NUMBERS)
    assert set(found) == set(signals_schema().names)


def test_spans_are_kept_beside_their_counts() -> None:
    found = signals_measure("Write to a@b.com or c@d.org.")
    assert found["pii_email"] == 2
    assert found["pii"][0] == {"kind": "email", "start": 9, "end": 16}


def test_texts_together_have_the_signals_they_have_alone() -> None:
    """One's repeats are no other's; an empty one among them shifts nothing."""
    texts = [
        "A rose is a rose is a rose. " * 3,
        "",
        "A rose is a rose is a rose.",
        "话说天下大势，分久必合。合久必分。" * 2,
        "word",
    ]
    assert texts_measure(texts) == [signals_measure(text) for text in texts]


BOILERPLATE = """terms of use, privacy policy, cookie policy, uses cookies, use of cookies,
use cookies, javascript""".replace("\n", " ").split(", ")
MARKS = [".", "...", "…", "- ", "•", " ", "\n", "\r\n", "\x85", "。", "{", "[12]", "[edit]"]
WORDS = [
    "Java[1]Script",
    "JAVASCRIPT",
    "Use ",
    "cookies",
    "plain ",
    "two words ",
    "他们的",
    "İ",
    "Σ",
]
PARTS = st.sampled_from([*BOILERPLATE, *MARKS, *WORDS])


def lines_plainly(text: str) -> list[str]:
    kept = []
    for line in text.splitlines():
        line = re.sub(r"\[\d*]|\[edit]|\[citation needed]", "", line.strip())
        is_short = len(line.split()) < 3
        if is_short and not line.isascii():
            is_short = sum(map(words.is_word, words.words_split(line))) < 3
        if not line.endswith(_LINE_ENDS) or line.endswith("...") or is_short:
            continue
        if not any(phrase in line.lower() for phrase in BOILERPLATE):
            kept.append(line)
    return kept


@settings(deadline=None, max_examples=300)
@given(parts=st.lists(PARTS, max_size=14))
@example(parts=["plain ", "two words ", "Java[1]Script", "."])
@example(parts=["- ", "plain ", "…", "\n", "•", "..."])
def test_asking_a_text_before_its_lines_changes_nothing(parts: list[str]) -> None:
    text = "".join(parts)
    assert c4_lines(text) == (lines_plainly(text), len(text.splitlines()))
    if text.strip():
        lines = text.splitlines()
        found = signals_measure(text)
        bullets = [line for line in lines if line.strip()[:1] in ("-", "•") and line.strip()]
        assert found["bullet_lines"] == len(bullets) / len(lines)
        ellipses = [line for line in lines if line.rstrip().endswith(("...", "…"))]
        assert found["ellipsis_lines"] == len(ellipses) / len(lines)
