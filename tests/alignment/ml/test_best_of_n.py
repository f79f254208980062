"""What the best of n answers comes to, against values worked by hand."""

import math

import pytest

from alignment.ml.best_of_n import best_is_right, best_of, best_of_n_curve


def test_best_of_n_is_the_mean_over_all_draws():
    # Of {1, 2, 4}: the pairs' highest are 2, 4, 4.
    assert best_of([4, 1, 2], 1) == pytest.approx(7 / 3)
    assert best_of([4, 1, 2], 2) == pytest.approx(10 / 3)
    assert best_of([4, 1, 2], 3) == 4


def test_best_of_many_does_not_overflow():
    assert best_of([float(i) for i in range(2000)], 1000) == pytest.approx(1998, abs=0.1)


def test_the_curve_ends_at_the_fewest_answers_and_carries_the_bound():
    curve = best_of_n_curve([[0.0, 1.0, 2.0], [4.0, 4.0, 4.0, 4.0]])
    assert [point["n"] for point in curve] == [1, 2, 3]
    # Means of the prompts: (1 + 4) / 2, (5/3 + 4) / 2, (2 + 4) / 2.
    assert [point["mean_score"] for point in curve] == pytest.approx([2.5, 17 / 6, 3])
    bounds = [0, math.log(2) - 1 / 2, math.log(3) - 2 / 3]
    assert [point["kl_bound"] for point in curve] == pytest.approx(bounds)


def test_pass_at_n_and_the_best_of_n_by_reward_are_worked_by_hand():
    # One prompt, two of four answers right, the reward model's favourite wrong. Of the six pairs
    # five have a right one; those without the favourite, three, have a right one as their best.
    curve = best_of_n_curve([[4.0, 3.0, 2.0, 1.0]], [[False, True, True, False]])
    assert [point["n"] for point in curve] == [1, 2, 4]
    assert [point["pass_at_n"] for point in curve] == pytest.approx([1 / 2, 5 / 6, 1])
    assert [point["best_right"] for point in curve] == pytest.approx([1 / 2, 3 / 6, 0])


def test_of_equal_scores_the_first_answer_is_the_best_of_n():
    assert best_is_right([1.0, 1.0], [True, False], 2) == 1
    assert best_is_right([1.0, 1.0], [False, True], 2) == 0
