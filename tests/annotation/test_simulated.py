"""The preference of simulated annotators, term by term, against values worked by hand."""

import math
from itertools import combinations
from pathlib import Path

import pytest

from annotation.simulated import (
    TIE_SHARE,
    UNACCEPTABLE_BELOW,
    WEIGHTS,
    preference_terms,
    ranking_noisy,
    spread_within,
    true_preference,
)

ASKED = [{"role": "user", "content": "How does soap clean greasy hands?"}]
GOOD = (
    "Soap has two ends: one holds on to grease and the other to water. When you rub your hands,"
    " soap surrounds the greasy dirt in tiny drops, and clean water carries them away."
)


def terms(text: str, finish_reason: str = "stop", asked: str = "") -> dict[str, float]:
    messages = [{"role": "user", "content": asked}] if asked else ASKED
    return preference_terms(messages, text, finish_reason)


def test_a_plain_finished_answer_to_the_question_is_faultless() -> None:
    assert terms(GOOD) == dict.fromkeys(WEIGHTS, 1.0)
    assert true_preference(ASKED, GOOD, "stop") == pytest.approx(1.0)


def test_the_weights_sum_to_one() -> None:
    assert math.fsum(WEIGHTS.values()) == pytest.approx(1.0)


def test_an_answer_that_was_cut_off_loses_what_finishing_is_worth() -> None:
    assert terms(GOOD, "length") == dict.fromkeys(WEIGHTS, 1.0) | {"finished": 0.0}
    assert true_preference(ASKED, GOOD, "length") == pytest.approx(0.80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # soap, clean, greasy, hands: four content words, of which half is enough.
        ("Soap does it.", 0.5),
        ("Soap makes hands nice.", 1.0),
        ("SOAP makes HANDS nice.", 1.0),
        ("It just works.", 0.0),
    ],
)
def test_on_topic_counts_the_prompts_content_words(text: str, expected: float) -> None:
    assert terms(text)["on_topic"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "expected"), [(1, 0.05), (10, 0.5), (20, 1.0), (80, 1.0), (120, 0.5), (200, 0.0)]
)
def test_size_is_flat_from_20_to_80_words(words: int, expected: float) -> None:
    assert terms(" ".join(f"w{n}" for n in range(words)))["size"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c d e", 1.0),
        ("a b c a b c", 0.5),  # abc bca cab abc: one of four has come before
        ("a a a a a", 0.0),  # one trigram, three times
        ("no", 1.0),
    ],
)
def test_varied_counts_trigrams_that_come_again(text: str, expected: float) -> None:
    assert terms(text)["varied"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Soap binds grease.", 1.0),
        ("Certainly! Soap binds grease.", 0.5),
        ("I’m sorry, but as an AI I have no hands.", 0.0),
    ],
)
def test_direct_counts_filler(text: str, expected: float) -> None:
    assert terms(text)["direct"] == pytest.approx(expected)


def test_plain_counts_long_words() -> None:
    assert terms("soap and water and time and extraordinary care work well")["plain"] == 0.5
    assert terms("extraordinary extraordinarily")["plain"] == 0.0


@pytest.mark.parametrize(
    ("text", "asked", "expected"),
    [
        ("- soap\n- water", "Why is soap slippery?", 0.0),
        ("1. soap\n2. water", "Give me steps to wash.", 1.0),
        ("# Soap\nIt cleans.", "Give me steps to wash.", 0.0),
        ("**Soap** cleans.", "Why is soap slippery?", 0.0),
        ("Soap is -5 times as good.", "Why is soap slippery?", 1.0),
    ],
)
def test_form_minds_lists_that_nobody_asked_for(text: str, asked: str, expected: float) -> None:
    assert terms(text, asked=asked)["form"] == expected


@pytest.mark.parametrize("text", ["", "  \n", "…", "🙂"])
def test_an_answer_without_words_is_worthless(text: str) -> None:
    assert true_preference(ASKED, text, "stop") == 0.0


def test_length_alone_decides_nothing_inside_the_plateau() -> None:
    """Three answers of one worth and of 21, 40 and 78 words."""
    base = (
        "Soap holds grease and water at once so your hands come clean when you rinse them well now"
    )
    more = " ".join(f"x{n}" for n in range(60))
    lengths = [base + " " + " ".join(more.split()[:n]) for n in (3, 22, 60)]
    assert {round(true_preference(ASKED, text, "stop"), 9) for text in lengths} == {1.0}


def test_without_noise_the_ranking_is_the_preference_and_near_ones_tie() -> None:
    values = {"a": 0.90, "b": 0.89, "c": 0.5, "d": 0.1}
    tiers, unacceptable = ranking_noisy(values, spread=0.1, noise=0.0, seed="s")
    assert tiers == [["a", "b"], ["c"], ["d"]]
    assert unacceptable == ["d"]


def test_the_noise_belongs_to_the_seed_and_has_the_spread_asked_for() -> None:
    values = {str(n): 0.0 for n in range(2000)}
    order = ranking_noisy(values, spread=1.0, noise=1.0, seed="s")
    assert order == ranking_noisy(values, spread=1.0, noise=1.0, seed="s")
    assert order != ranking_noisy(values, spread=1.0, noise=1.0, seed="t")
    # Two answers a standard deviation of their difference apart are told right with Φ(1) = 0.841.
    right = 0
    for trial in range(2000):
        tiers, _ = ranking_noisy(
            {"good": math.sqrt(2) * 0.5, "bad": 0.0}, spread=1e-9, noise=0.5e9, seed=str(trial)
        )
        right += tiers[0] == ["good"]
    assert right / 2000 == pytest.approx(0.841, abs=0.025)


def test_the_spread_is_pooled_within_prompts() -> None:
    # Two groups, each with squares 2 and one degree of freedom: sqrt((2 + 2) / 2).
    assert spread_within([[0.0, 2.0], [10.0, 12.0]]) == pytest.approx(math.sqrt(2))
    assert spread_within([[1.0], [2.0]]) == 0.0


def test_every_term_can_change_the_order() -> None:
    """No weight is so small that the others always hide it."""
    assert all(weight >= 0.05 for weight in WEIGHTS.values())
    assert all(abs(a - b) < 0.5 for a, b in combinations(WEIGHTS.values(), 2))


def test_the_documentation_has_the_weights_that_are_used() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "simulated-annotators.md").read_text()
    for name, weight in WEIGHTS.items():
        assert f"| {name} | {weight:.2f} |" in page
    assert f"within {TIE_SHARE} spreads" in page and f"less than {UNACCEPTABLE_BELOW} " in page
