"""The arithmetic of methods without a critic, by hand and against TRL's own code."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from torch import tensor

from alignment.ml.online.losses import (
    advantages_normalize,
    equal_prompts,
    group_advantages,
    leave_one_out,
    token_shares,
)
from alignment.ml.ppo.losses import kl_estimates, policy_losses

pytestmark = pytest.mark.ml


def close(found, expected):
    assert torch.allclose(found, tensor(expected), atol=1e-5), found


def test_an_answer_s_baseline_is_the_mean_of_the_others():
    # 1 − (2 + 6)/2 = −3, 2 − (1 + 6)/2 = −1.5, 6 − (1 + 2)/2 = 4.5
    close(leave_one_out(tensor([[1.0, 2.0, 6.0]])), [[-3.0, -1.5, 4.5]])
    close(leave_one_out(tensor([[1.0, 0.0], [5.0, 5.0]])), [[1.0, -1.0], [0.0, 0.0]])


def test_group_advantages_are_scaled_by_the_deviation_that_is_asked_for():
    rewards = tensor([[1.0, 3.0], [10.0, 10.0]])
    close(group_advantages(rewards, "none"), [[-1.0, 1.0], [0.0, 0.0]])
    # √2, the unbiased deviation of 1 and 3; the other prompt's 0 over 1e-4.
    one = 1 / (math.sqrt(2) + 1e-4)
    close(group_advantages(rewards, "group"), [[-one, one], [0.0, 0.0]])
    # All four: mean 6, squares 25 + 9 + 16 + 16 = 66, over 3.
    one = 1 / (math.sqrt(22) + 1e-4)
    close(group_advantages(rewards, "batch"), [[-one, one], [0.0, 0.0]])
    with pytest.raises(ValueError, match="wanted group, batch or none"):
        group_advantages(rewards, "std")


def test_one_answer_alone_is_refused():
    for advantages in (leave_one_out, lambda rewards: group_advantages(rewards, "none")):
        with pytest.raises(ValueError, match="two or more"):
            advantages(tensor([[1.0]]))


def test_normalized_advantages_have_mean_zero_and_deviation_one():
    found = advantages_normalize(tensor([[1.0, 2.0], [3.0, 6.0]]))
    assert float(found.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(found.std()) == pytest.approx(1.0, abs=1e-3)


def test_prompts_whose_answers_score_alike_are_told_apart():
    scores = tensor([[1.0, 1.0], [1.0, 0.0], [100.0, 100.0 + 1e-5], [0.0, 1e-4]])
    assert equal_prompts(scores).tolist() == [True, False, True, False]


def test_tokens_count_as_the_loss_says():
    # Two answers, of 1 and 3 tokens.
    assert token_shares([1, 3], "grpo", max_tokens=10) == pytest.approx([1 / 2, 1 / 6])
    assert token_shares([1, 3], "dapo", max_tokens=10) == pytest.approx([1 / 4, 1 / 4])
    assert token_shares([1, 3], "dr_grpo", max_tokens=10) == pytest.approx([1 / 20, 1 / 20])
    with pytest.raises(ValueError, match="one at least"):
        token_shares([1, 0], "grpo", max_tokens=10)
    with pytest.raises(ValueError, match="wanted grpo, dapo or dr_grpo"):
        token_shares([1], "bnpo", max_tokens=10)


def test_the_clip_holds_later_upwards_where_that_is_asked_for():
    # Ratios 1.25, 1.25, 0.75 with advantages 1, −1, −1; ε 0.2, ε' 0.28.
    logprobs = tensor([1.25, 1.25, 0.75]).log()
    losses, held = policy_losses(
        logprobs, torch.zeros(3), tensor([1.0, -1.0, -1.0]), cliprange=0.2, cliprange_high=0.28
    )
    close(losses, [-1.25, 1.25, 0.8])
    assert held.tolist() == [False, False, True]
    losses, held = policy_losses(logprobs[:1], torch.zeros(1), tensor([1.0]), cliprange=0.2)
    close(losses, [-1.2])
    assert held.tolist() == [True]


def test_k2_is_the_estimate_whose_own_gradient_is_the_kl_s():
    """Over a whole distribution of three tokens, the gradient's mean against autograd's KL."""
    logits = tensor([0.3, -0.2, 0.1], requires_grad=True)
    reference = tensor([0.5, 0.3, 0.2]).log()
    logs = torch.log_softmax(logits, 0)
    exact = torch.autograd.grad((logs.exp() * (logs - reference)).sum(), logits)[0]
    means = {}
    for name in ("k1", "k2", "k3"):
        logs = torch.log_softmax(logits, 0)
        drawn = (logs.exp().detach() * kl_estimates(logs, reference, name)).sum()
        means[name] = torch.autograd.grad(drawn, logits)[0]
    assert torch.allclose(means["k2"], exact, atol=1e-6)
    assert torch.allclose(means["k1"], torch.zeros(3), atol=1e-6)
    # k3's is the gradient of the KL the other way round: π − π_ref.
    wanted = torch.softmax(logits, 0).detach() - reference.exp()
    assert torch.allclose(means["k3"], wanted, atol=1e-6)
