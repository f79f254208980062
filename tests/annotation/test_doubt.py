"""A reward model's doubt, against values worked by hand."""

import math

import pytest

from annotation.doubt import doubt_of


def test_a_tie_of_one_model_is_one_bit_and_no_disagreement() -> None:
    doubt = doubt_of([[1.5], [1.5]])
    assert (doubt.near_tie, doubt.disagreement, doubt.total) == (1.0, 0.0, 1.0)


def test_three_to_one_is_the_entropy_of_three_quarters() -> None:
    """sigmoid(ln 3) = 3/4; H(3/4) = 2 - 3/4 · log2 3 = 0.811278 bits."""
    doubt = doubt_of([[math.log(3)], [0.0]])
    assert doubt.near_tie == pytest.approx(2 - 0.75 * math.log2(3))
    assert doubt.disagreement == 0


def test_two_sure_members_who_disagree_are_all_disagreement() -> None:
    """Beliefs 3/4 and 1/4: their mean is a coin, 1 bit, of which H(3/4) is near-tie."""
    doubt = doubt_of([[math.log(3), 0.0], [0.0, math.log(3)]])
    assert doubt.total == pytest.approx(1)
    assert doubt.near_tie == pytest.approx(2 - 0.75 * math.log2(3))
    certain = doubt_of([[800.0, -800.0], [0.0, 0.0]])
    assert (certain.near_tie, certain.disagreement) == (0, 1)


def test_of_more_answers_it_is_the_mean_over_pairs() -> None:
    """One tie, and two pairs that are certain: (1 + 0 + 0) / 3."""
    assert doubt_of([[0.0], [0.0], [900.0]]).total == pytest.approx(1 / 3)


def test_each_member_may_have_a_zero_of_its_own() -> None:
    scores = [[0.3, 1.0], [-0.2, 0.4], [1.1, 2.0]]
    moved = [[a + 100, b - 7] for a, b in scores]
    assert doubt_of(moved).total == pytest.approx(doubt_of(scores).total)


@pytest.mark.parametrize(
    "scores", [[], [[1.0]], [[1.0], []], [[], []], [[1.0, 2.0], [1.0]], [[math.nan], [0.0]]]
)
def test_what_cannot_be_compared_is_refused(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError):
        doubt_of(scores)
