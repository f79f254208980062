"""The published thresholds, and how they are moved."""

import pytest

from modelhub.ml.configs import ConfigError
from modelhub.ml.corpora.rules import RULES, threshold_for, thresholds_of


@pytest.mark.parametrize(
    ("name", "threshold"),
    [
        # Gopher A.1.1 and table A1
        ("gopher.words_min", 50),
        ("gopher.words_max", 100_000),
        ("gopher.word_length_min", 3),
        ("gopher.word_length_max", 10),
        ("gopher.hashes", 0.1),
        ("gopher.bullet_lines", 0.9),
        ("gopher.ellipsis_lines", 0.3),
        ("gopher.alphabetic_words", 0.8),
        ("gopher.stop_words", 2),
        ("gopher.repeated_lines", 0.30),
        ("gopher.repeated_paragraphs_characters", 0.20),
        ("gopher.top_2_gram", 0.20),
        ("gopher.top_4_gram", 0.16),
        ("gopher.repeated_5_grams", 0.15),
        ("gopher.repeated_10_grams", 0.10),
        ("c4.sentences", 5),
        # FineWeb 3.6
        ("fineweb.ended_lines", 0.12),
        ("fineweb.short_lines", 0.67),
        ("fineweb.repeated_line_characters", 0.01),
        ("fineweb.line_breaks", 0.3),
    ],
)
def test_thresholds_are_the_published_ones(name: str, threshold: float) -> None:
    assert RULES[name].threshold == threshold


def test_a_value_on_the_threshold_stays() -> None:
    assert not RULES["gopher.words_min"].drops(50, 50)
    assert RULES["gopher.words_min"].drops(49, 50)
    assert not RULES["gopher.hashes"].drops(0.1, 0.1)
    assert RULES["gopher.hashes"].drops(0.11, 0.1)


def test_chinese_has_thresholds_of_its_own_or_none() -> None:
    found = thresholds_of(("gopher",))
    assert threshold_for(found, "gopher.words_min", is_chinese=True) == 80
    assert threshold_for(found, "gopher.word_length_min", is_chinese=True) is None


def test_thresholds_are_moved_added_and_taken_out() -> None:
    found = thresholds_of(
        ("gopher",), {"gopher.words_min": 5, "gopher.stop_words": None, "c4.sentences": 2}
    )
    assert found["gopher.words_min"] == 5.0
    assert "gopher.stop_words" not in found
    assert "gopher.stop_words@zh" in found
    assert found["c4.sentences"] == 2.0
    assert "c4.lorem_ipsum" not in found


@pytest.mark.parametrize(
    "changed",
    [
        {"gopher.wrds": 1},
        {"gopher.words_min@fr": 1},
        {"gopher.words_min": "5"},
        {"gopher.words_min": True},
        {"gopher.words_min": float("inf")},
        {"gopher.words_min": float("nan")},
    ],
)
def test_a_rule_that_is_not_is_named(changed: dict[str, object]) -> None:
    (name,) = changed
    with pytest.raises(ConfigError, match=name):
        thresholds_of(("gopher",), changed)
