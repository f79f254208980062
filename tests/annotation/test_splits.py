"""One question is on one side, however it is written, and stays there."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.splits import SHARES, content_hash, group_hash, split_of, text_normalise


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


QUESTION = "How do I make café crème at home?"
REWRITES = {
    "case": QUESTION.upper(),
    "white space": "  How do I\tmake\n\ncafé  crème at home? \r\n",
    "no-break space": QUESTION.replace(" ", "\u00a0"),
    "decomposed": unicodedata.normalize("NFD", QUESTION),
    "full-width": QUESTION.replace("H", "\uff28").replace("?", "\uff1f"),
    "zero-width space": QUESTION.replace("make", "ma\u200bke"),
    "zero-width joiner": QUESTION.replace("make", "ma\u200dke"),
    "soft hyphen": QUESTION.replace("home", "ho\u00adme"),
    "byte order mark": "\ufeff" + QUESTION,
    "direction mark": "\u202a" + QUESTION + "\u202c",
    "variation selector": QUESTION + "\ufe0f",
    "Hangul filler": "\u3164" + QUESTION,
    "bell": QUESTION + "\x07",
    "line separator": QUESTION.replace(" ", "\u2028"),
}


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=list(REWRITES))
def test_a_rewrite_is_in_the_same_group(rewrite: str) -> None:
    assert rewrite != QUESTION
    assert group_hash(asked(rewrite)) == group_hash(asked(QUESTION))
    assert content_hash(asked(rewrite)) != content_hash(asked(QUESTION))


def test_other_words_are_in_another_group() -> None:
    assert group_hash(asked("How do I make tea?")) != group_hash(asked(QUESTION))


def test_a_conversation_that_goes_on_is_in_the_group_of_its_beginning() -> None:
    longer = [
        {"role": "system", "content": "Be brief."},
        *asked(QUESTION.lower()),
        {"role": "assistant", "content": "With coffee."},
        *asked("And without?"),
    ]
    assert group_hash(longer) == group_hash(asked(QUESTION))


def test_a_conversation_without_a_user_turn_is_refused() -> None:
    with pytest.raises(ValueError, match="user turn"):
        group_hash([{"role": "system", "content": "x"}])


def test_the_content_hash_is_of_canonical_json() -> None:
    # sha256 of '[{"content":"hé","role":"user"}]' in UTF-8, by another program.
    import hashlib

    expected = hashlib.sha256('[{"content":"hé","role":"user"}]'.encode()).hexdigest()
    assert content_hash([{"content": "hé", "role": "user"}]) == expected
    assert content_hash([{"role": "user", "content": "hé"}]) == expected


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = text_normalise(text)
    assert text_normalise(once) == once


def test_the_shares_are_what_they_say_over_many_prompts() -> None:
    sides = [split_of(group_hash(asked(f"Question {n}?"))) for n in range(10_000)]
    for side, share in zip(("train", "validation", "held_out"), SHARES, strict=True):
        assert sides.count(side) / 10_000 == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(
    ("start", "side"),
    [
        ("0", "train"),
        ("bffffffffffff", "train"),  # just below 3/4
        ("c000000000000000", "validation"),  # 3/4
        ("ccccccccccccc", "validation"),  # just below 4/5
        ("ccccccccccccd", "held_out"),
        ("f" * 16, "held_out"),
    ],
)
def test_the_side_is_a_place_on_a_line(start: str, side: str) -> None:
    assert split_of(start.ljust(64, "0")) == side


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_shares_that_are_no_shares_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        split_of("0" * 64, shares)
