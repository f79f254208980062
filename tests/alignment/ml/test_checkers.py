"""Verifiable rewards: what counts as right."""

from decimal import Decimal

import pytest

from alignment.ml.checkers import (
    CHECKERS,
    ReferenceRecord,
    checker_get,
    exact,
    final_number,
    gsm8k,
    references_check,
    references_load,
)
from alignment.ml.configs.checks import CHECKERS as OFFERED
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import RecordError, records_write


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She sold 48+24 = <<48+24=72>>72 clips.\n#### 72", "72"),
        ("#### 1,080", "1080"),
        ("#### $5", "5"),
        ("#### -3", "-3"),
        ("#### −3", "-3"),
        ("#### 10.50 dollars", "10.5"),
        ("#### 12\nOr rather\n#### 13", "13"),  # the last one counts
        ("First 3, then 4. So the answer is 7.", "7"),
        ("It costs $1,234.50.", "1234.5"),
        ("half of it is .5", "0.5"),
    ],
)
def test_the_number_an_answer_ends_on(text, number):
    assert final_number(text) == Decimal(number)


def test_a_launch_offers_every_checker_and_none():
    assert ("", *sorted(CHECKERS)) == OFFERED


@pytest.mark.parametrize("text", ["", "no idea", "####", "#### many"])
def test_an_answer_without_a_number_has_none(text):
    assert final_number(text) is None
    assert gsm8k(text, "#### 4") == 0.0


def test_a_number_is_right_however_it_is_written():
    assert gsm8k("so she has 72.0 clips", "worked out\n#### 72") == 1.0
    assert gsm8k("72 clips, no, 71", "#### 72") == 0.0


def test_exact_puts_white_space_aside_and_nothing_else():
    assert exact(" the\n answer ", "the answer") == 1.0
    assert exact("The answer", "the answer") == 0.0


def test_a_checker_is_known_by_its_name():
    assert checker_get("gsm8k") is CHECKERS["gsm8k"]
    with pytest.raises(RefusedError, match="wanted exact or gsm8k, got 'eval'"):
        checker_get("eval")


def test_references_are_read_for_the_prompts_asked_for(tmp_path):
    path = tmp_path / "references.jsonl"
    records_write(path, [ReferenceRecord(prompt_id=one, answer="4") for one in "abc"])
    assert sorted(references_load(path, ["a", "c"])) == ["a", "c"]
    with pytest.raises(RefusedError, match="no reference for 2 prompts, such as d e"):
        references_load(path, ["a", "d", "e"])
    records_write(path, [ReferenceRecord(prompt_id="a"), ReferenceRecord(prompt_id="a")])
    with pytest.raises(RecordError, match="line 2, field prompt_id: a is there twice"):
        references_load(path, ["a"])


def test_a_reference_that_nothing_could_match_is_refused_before_training():
    references_check({"a": ReferenceRecord(prompt_id="a", answer="#### 4")}, gsm8k)
    with pytest.raises(RefusedError, match="prompt b: no number in the reference"):
        references_check({"b": ReferenceRecord(prompt_id="b", answer="four")}, gsm8k)
    with pytest.raises(RefusedError, match="its own reference is not counted as right"):
        references_check({"c": ReferenceRecord(prompt_id="c")}, lambda text, right: 0.0)
