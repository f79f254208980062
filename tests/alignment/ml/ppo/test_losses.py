"""The arithmetic of PPO against values worked by hand."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from torch import tensor

from alignment.ml.ppo.losses import (
    AdaptiveKl,
    advantages_estimate,
    entropies,
    explained_variance,
    kl_estimates,
    masked_mean,
    policy_losses,
    token_rewards,
    value_losses,
    whiten,
)

pytestmark = pytest.mark.ml


def close(found, expected):
    assert torch.allclose(found, tensor(expected), atol=1e-6), found


def test_advantages_are_the_discounted_sum_of_one_step_errors():
    # γ = 0.9, λ = 0.5, so γλ = 0.45. From the end:
    #   δ2 = 1 − 0.2 = 0.8                         A2 = 0.8
    #   δ1 = 0 + 0.9·0.2 − 0.4 = −0.22             A1 = −0.22 + 0.45·0.8 = 0.14
    #   δ0 = −0.1 + 0.9·0.4 − 0.5 = −0.24          A0 = −0.24 + 0.45·0.14 = −0.177
    advantages, returns = advantages_estimate(
        tensor([[-0.1, 0.0, 1.0]]),
        tensor([[0.5, 0.4, 0.2]]),
        torch.ones(1, 3, dtype=torch.bool),
        gamma=0.9,
        lam=0.5,
    )
    close(advantages, [[-0.177, 0.14, 0.8]])
    close(returns, [[0.323, 0.54, 1.0]])


def test_with_gamma_and_lambda_one_a_return_is_the_sum_of_the_rewards_to_come():
    _, returns = advantages_estimate(
        tensor([[1.0, 2.0, 4.0]]),
        tensor([[7.0, -3.0, 0.5]]),
        torch.ones(1, 3, dtype=torch.bool),
        gamma=1.0,
        lam=1.0,
    )
    close(returns, [[7.0, 6.0, 4.0]])


def test_what_lies_behind_an_answer_is_worth_nothing_to_it():
    mask = tensor([[True, True, False], [True, True, True]])
    rewards, values = tensor([[0.0, 1.0, 9.0], [0.0, 0.0, 1.0]]), tensor([[0.5, 0.2, 8.0]] * 2)
    advantages, returns = advantages_estimate(rewards, values, mask, gamma=1.0, lam=0.5)
    # The first answer by itself: A1 = 1 − 0.2, A0 = (0.2 − 0.5) + 0.5·0.8.
    close(advantages[0], [0.1, 0.8, 0.0])
    close(returns[0], [0.6, 1.0, 0.0])


def test_the_score_is_paid_at_the_last_token_and_the_kl_at_every_one():
    mask = tensor([[True, True, True], [True, False, False]])
    kl = tensor([[0.5, -0.2, 0.1], [2.0, 7.0, 7.0]])
    found = token_rewards(kl, tensor([3.0, -1.0]), mask, kl_coef=0.1)
    close(found, [[-0.05, 0.02, 2.99], [-1.2, 0.0, 0.0]])
    with pytest.raises(ValueError, match="an answer without a token"):
        token_rewards(kl, tensor([3.0, -1.0]), tensor([[True] * 3, [False] * 3]), 0.1)


def test_the_estimates_of_the_kl():
    ours, theirs = tensor([-1.0, -2.0]), tensor([-1.5, -1.0])
    close(kl_estimates(ours, theirs, "k1"), [0.5, -1.0])
    close(kl_estimates(ours, theirs, "k2"), [0.125, 0.5])
    # log-ratios −0.5 and 1: e^−0.5 − 1 + 0.5 and e − 1 − 1.
    close(kl_estimates(ours, theirs, "k3"), [math.exp(-0.5) - 0.5, math.e - 2])
    with pytest.raises(ValueError, match="k4"):
        kl_estimates(ours, theirs, "k4")


def test_whitening_is_over_the_masked_places_alone():
    values = tensor([[1.0, 3.0, 100.0], [5.0, 100.0, 100.0]])
    mask = tensor([[True, True, False], [True, False, False]])
    # Mean 3, unbiased variance (4 + 0 + 4) / 2 = 4.
    close(whiten(values, mask), [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    close(whiten(values, mask, shift_mean=False), [[2.0, 3.0, 0.0], [4.0, 0.0, 0.0]])


def test_a_single_place_has_no_spread_to_divide_by():
    mask = tensor([[True, False]])
    close(whiten(tensor([[4.0, 9.0]]), mask), [[0.0, 0.0]])
    close(whiten(tensor([[4.0, 9.0]]), mask, shift_mean=False), [[4.0, 0.0]])
    with pytest.raises(ValueError, match="a mean over no token"):
        masked_mean(tensor([1.0]), tensor([False]))


def test_the_clip_holds_back_only_what_would_be_gained_by_going_on():
    # Ratios 1.5, 1.5, 0.5, 0.5 with advantages of either sign, ε = 0.2.
    ratios = tensor([1.5, 1.5, 0.5, 0.5])
    losses, held = policy_losses(
        ratios.log(), torch.zeros(4), tensor([1.0, -1.0, 1.0, -1.0]), cliprange=0.2
    )
    # Good and already likelier: 1.2. Bad and likelier: all of 1.5. Good and less likely: 0.5.
    # Bad and already less likely: 0.8.
    close(losses, [-1.2, 1.5, -0.5, 0.8])
    assert held.tolist() == [True, False, False, True]


def test_a_token_held_by_the_clip_has_no_gradient():
    logprobs = tensor([1.5, 1.5]).log().requires_grad_()
    losses, _ = policy_losses(logprobs, torch.zeros(2), tensor([1.0, -1.0]), cliprange=0.2)
    losses.sum().backward()
    close(logprobs.grad, [0.0, 1.5])


def test_a_value_is_judged_by_the_worse_of_itself_and_itself_kept_near_the_old_one():
    values, old, returns = tensor([1.0, 0.1, 3.0]), torch.zeros(3), tensor([1.0, 1.0, 1.0])
    losses, held = value_losses(values, old, returns, cliprange_value=0.2)
    # Kept near: 0.2, 0.1, 0.2. Squared errors 0 and 0.64; 0.81 and 0.81; 4 and 0.64; halved.
    close(losses, [0.32, 0.405, 2.0])
    assert held.tolist() == [True, False, False]
    losses, held = value_losses(values, old, returns, cliprange_value=0.0)
    close(losses, [0.0, 0.405, 2.0])
    assert not held.any()


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.1),  # on target
        (6.6, 0.1 * (1 + 0.1 * 512 / 10_000)),
        (60.0, 0.1 * (1 + 0.2 * 512 / 10_000)),  # 900 % over, counted as 20 %
        (0.0, 0.1 * (1 - 0.2 * 512 / 10_000)),
    ],
)
def test_the_coefficient_is_steered_to_the_target_by_at_most_a_fifth_a_horizon(kl, expected):
    found = AdaptiveKl(target=6.0, horizon=10_000).next(0.1, kl, 512)
    assert found == pytest.approx(expected)


def test_a_kl_that_is_no_number_steers_nothing():
    with pytest.raises(ValueError, match="the KL is nan"):
        AdaptiveKl(6.0, 10_000).next(0.1, math.nan, 1)


def test_explained_variance_of_a_perfect_a_constant_and_a_wrong_critic():
    returns, mask = tensor([1.0, 2.0, 3.0, 50.0]), tensor([True, True, True, False])
    assert explained_variance(returns, returns, mask) == pytest.approx(1.0)
    assert explained_variance(torch.full((4,), 7.0), returns, mask) == pytest.approx(0.0)
    # Errors 2, 0, −2 vary four times as much as the returns.
    assert explained_variance(tensor([3.0, 2.0, 1.0, 0.0]), returns, mask) == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones(4), mask) == 0.0


def test_entropy_of_an_even_and_of_a_certain_distribution():
    close(entropies(tensor([[0.0] * 8, [1e4, *[0.0] * 7]])), [math.log(8), 0.0])
