"""The words that an edit changed."""

import random
import time

from annotation.word_diff import MAX_CHANGES, changed_share, words_diff, words_shared


def test_what_was_put_in_and_taken_out_by_hand() -> None:
    assert words_diff("The cat sat.", "The black cat lay.") == [
        ["=", "The "],
        ["+", "black "],
        ["=", "cat "],
        ["-", "sat."],
        ["+", "lay."],
    ]
    # Of the words of both (3 and 4), one was taken out and two were put in.
    assert changed_share(words_diff("The cat sat.", "The black cat lay.")) == 3 / 7


def test_the_example_of_myers_has_five_changes() -> None:
    """Myers 1986, figures 1 and 2: ABCABBA to CBABAC in five."""
    diff = words_diff("A\tB\tC\tA\tB\tB\tA".replace("\t", "あ"), "CあBあAあBあAあC")
    assert changed_share(diff) > 0
    parts = words_diff("あいうあいいあ", "ういあいあう")  # each kana is a part of its own
    assert sum(len(text) for sign, text in parts if sign != "=") == 5


def test_both_texts_can_be_read_off() -> None:
    draw = random.Random(0)
    for _ in range(300):
        old, new = (
            "".join(draw.choices(["a", "b", " ", "\n", "中", "."], k=draw.randrange(12)))
            for _ in range(2)
        )
        diff = words_diff(old, new)
        assert "".join(text for sign, text in diff if sign != "+") == old
        assert "".join(text for sign, text in diff if sign != "-") == new
        assert (old == new) == (changed_share(diff) == 0.0 and all(s == "=" for s, _ in diff))


def test_nothing_is_the_same_as_nothing() -> None:
    assert words_diff("", "") == []
    assert changed_share([]) == 0.0
    assert changed_share(words_diff("one", "two")) == 1.0


def test_two_long_texts_with_nothing_in_common_take_no_time() -> None:
    began = time.process_time()
    diff = words_diff("old " * 20_000, "new " * 20_000)
    assert [sign for sign, _ in diff] == ["-", "+"] or len(diff) < 2 * MAX_CHANGES
    assert time.process_time() - began < 5


def test_what_two_texts_share_is_counted_word_by_word() -> None:
    assert words_shared("It is big.", "it is BIG.") == 1
    assert words_shared("a a b", "a c") == 2 * 1 / 5
    assert words_shared("天空", "天空很蓝") == 2 * 2 / 6
    assert words_shared("one", "") == 0
    assert words_shared(" ", "") is None
