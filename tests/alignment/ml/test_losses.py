"""The losses against values worked by hand."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.losses import (
    better_mask,
    centering_loss,
    outcomes_top,
    pair_accuracy,
    preference_shares,
    ranking_loss,
    safety_loss,
    soft_ranking_loss,
    token_divergence,
)

pytestmark = pytest.mark.ml


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_better_mask_of_a_ranking_with_a_tie_and_an_unranked_answer():
    # 2 first, then 0 and 3 tied; 1 is not ranked.
    assert better_mask([[2], [0, 3]], 4).int().tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 0, 0, 1],
        [0, 0, 0, 0],
    ]


def test_two_answers_are_bradley_terry():
    # -log σ(1.5 - 0.5) = log(1 + e^-1) = 0.31326
    loss = ranking_loss(torch.tensor([0.5, 1.5]), better_mask([[1], [0]], 2))
    assert loss.item() == pytest.approx(0.3132617, abs=1e-6)


def test_all_pairs_of_a_ranking_weigh_one_over_their_number():
    # 0 > 1 > 2 with scores 2, 1, 3: gaps 1, -1, -2.
    loss = ranking_loss(torch.tensor([2.0, 1.0, 3.0]), better_mask([[0], [1], [2]], 3))
    assert loss.item() == pytest.approx((softplus(-1) + softplus(1) + softplus(2)) / 3)


def test_tied_pairs_are_left_out_of_the_sum_and_of_the_weight():
    # 0 > 1 = 2: two pairs, not three; gaps 1 and -1.
    loss = ranking_loss(torch.tensor([2.0, 1.0, 3.0]), better_mask([[0], [1, 2]], 3))
    assert loss.item() == pytest.approx((softplus(-1) + softplus(1)) / 2)


def test_equal_scores_cost_log_two_whatever_the_ranking():
    loss = ranking_loss(torch.zeros(5), better_mask([[3], [0, 1], [2, 4]], 5))
    assert loss.item() == pytest.approx(math.log(2))


def test_a_margin_asks_for_more_distance():
    # Significantly better (margin 1) of Llama 2's small margins: -log σ(2 - 1).
    scores_K, better_KK = torch.tensor([2.0, 0.0]), better_mask([[0], [1]], 2)
    assert ranking_loss(scores_K, better_KK, 1.0).item() == pytest.approx(softplus(-1))
    by_pair_KK = torch.tensor([[9.0, 1 / 3], [9.0, 9.0]])  # read at [better, worse] alone
    assert ranking_loss(scores_K, better_KK, by_pair_KK).item() == pytest.approx(
        softplus(-2 + 1 / 3)
    )


def test_the_gradient_pulls_each_answer_by_its_pairs():
    # d/ds of -log σ(gap) is -(1 - σ(gap)) on the better one; at equal scores every pair pulls 1/2.
    scores_K = torch.zeros(3, requires_grad=True)
    ranking_loss(scores_K, better_mask([[0], [1], [2]], 3)).backward()
    assert scores_K.grad.tolist() == pytest.approx([-1 / 3, 0, 1 / 3])


def test_extreme_scores_stay_finite():
    scores_K = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = ranking_loss(scores_K, better_mask([[0], [1]], 2))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert torch.isfinite(scores_K.grad).all()


@pytest.mark.parametrize("tiers", [[[0, 1, 2]], [[1]], []])
def test_a_ranking_of_ties_alone_is_refused(tiers):
    with pytest.raises(ValueError, match="untied"):
        ranking_loss(torch.zeros(3), better_mask(tiers, 3))


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="3 scores"):
        ranking_loss(torch.zeros(3), better_mask([[0], [1]], 2))


@pytest.mark.parametrize("tiers, message", [([[0], [0]], "twice"), ([[5]], "candidate 5 of 3")])
def test_tiers_that_make_no_sense_are_refused(tiers, message):
    with pytest.raises(ValueError, match=message):
        better_mask(tiers, 3)


def test_centering_is_the_mean_square():
    assert centering_loss(torch.tensor([1.0, -3.0])).item() == pytest.approx(5.0)


def test_equal_scores_count_one_half_right():
    # Pairs 0>1 (right), 0>2 (equal), 1>2 (wrong).
    right = pair_accuracy(torch.tensor([2.0, 1.0, 2.0]), better_mask([[0], [1], [2]], 3))
    assert right == (1.5, 3)


def test_a_smoothed_label_is_the_mean_of_both_labels():
    scores_K, better_KK = torch.tensor([2.0, 0.0]), better_mask([[0], [1]], 2)
    # Gap 2, margin 1/2: the label asks for 1.5, its opposite for 2.5 the other way.
    expected = 0.9 * softplus(-1.5) + 0.1 * softplus(2.5)
    found = ranking_loss(scores_K, better_KK, 0.5, label_smoothing=0.1)
    assert found.item() == pytest.approx(expected)
    plain = ranking_loss(scores_K, better_KK, 0.5)
    assert ranking_loss(scores_K, better_KK, 0.5, label_smoothing=0.0).equal(plain)


def test_shares_of_votes_by_hand():
    # Weight 1 says 0 > 1 = 2, weight 3 says 1 > 0 and does not judge 2.
    share_KK = preference_shares([([[0], [1, 2]], 1.0), ([[1], [0]], 3.0)], 3)
    assert share_KK[0, 1] == pytest.approx(1 / 4) and share_KK[1, 0] == pytest.approx(3 / 4)
    assert share_KK[0, 2] == 1 and share_KK[2, 0] == 0
    assert share_KK[1, 2] == share_KK[2, 1] == 0.5
    assert share_KK.diagonal().isnan().all()
    assert preference_shares([([[0], [1]], 1.0)], 3)[0, 2].isnan()


def test_soft_labels_by_hand():
    # Three of four put 0 above 1; gap 1.
    share_KK = preference_shares([([[0], [1]], 3.0), ([[1], [0]], 1.0)], 2)
    found = soft_ranking_loss(torch.tensor([1.0, 0.0]), share_KK)
    assert found.item() == pytest.approx(0.75 * softplus(-1) + 0.25 * softplus(1))
    smoothed = soft_ranking_loss(torch.tensor([1.0, 0.0]), share_KK, label_smoothing=0.1)
    # 0.75 becomes 0.9 · 0.75 + 0.1 · 0.25 = 0.7.
    assert smoothed.item() == pytest.approx(0.7 * softplus(-1) + 0.3 * softplus(1))


def test_one_sure_vote_is_the_hard_label():
    scores_K, tiers = torch.tensor([0.3, -1.0, 2.0]), [[2], [0], [1]]
    soft = soft_ranking_loss(scores_K, preference_shares([(tiers, 1.0)], 3), 0.2)
    assert soft.item() == pytest.approx(ranking_loss(scores_K, better_mask(tiers, 3), 0.2).item())


def test_soft_labels_have_their_least_loss_at_the_annotators_odds():
    share_KK = preference_shares([([[0], [1]], 3.0), ([[1], [0]], 1.0)], 2)
    gap = torch.tensor(math.log(3), requires_grad=True)  # odds of 3 to 1
    soft_ranking_loss(torch.stack([gap, torch.zeros(())]), share_KK).backward()
    assert gap.grad.item() == pytest.approx(0.0, abs=1e-7)


def test_the_safety_loss_by_hand():
    found = safety_loss(torch.tensor([2.0, -1.0, 0.0]), torch.tensor([False, True, True]))
    # Safe at 2, unsafe at -1 and at 0.
    assert found.item() == pytest.approx((softplus(-2) + softplus(-1) + math.log(2)) / 3)


# ── distillation ─────────────────────────────────────────────────────────────────────────────────

HALF, QUARTER = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()


def test_divergences_by_hand():
    """Student (1/4, 3/4), teacher (1/2, 1/2)."""
    forward = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    reverse = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    # With β = 1/2 the mixture is (3/8, 5/8).
    between = 0.5 * (0.5 * math.log(0.5 / 0.375) + 0.5 * math.log(0.5 / 0.625)) + 0.5 * (
        0.25 * math.log(0.25 / 0.375) + 0.75 * math.log(0.75 / 0.625)
    )
    for beta, expected in ((0.0, forward), (1.0, reverse), (0.5, between)):
        found = token_divergence(QUARTER, HALF, beta=beta)
        assert found.tolist() == pytest.approx([expected], rel=1e-5)
    assert token_divergence(HALF, HALF, beta=0.3).abs().max() < 1e-7


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_and_its_gradient_are_trls(beta, temperature):
    gkd = pytest.importorskip("trl.experimental.gkd", reason="the ml extra is not installed")
    generator = torch.Generator().manual_seed(3)
    own_SV = (4 * torch.randn(7, 50, generator=generator)).requires_grad_()
    same_SV = own_SV.detach().clone().requires_grad_()
    teacher_SV = 4 * torch.randn(7, 50, generator=generator)
    taught_S = torch.tensor([1, -100, 1, 1, -100, 1, 1])
    expected = gkd.GKDTrainer.generalized_jsd_loss(
        same_SV[None], teacher_SV[None], taught_S[None], beta=beta, temperature=temperature
    )
    student_SO, teacher_SO = (
        torch.log_softmax(one / temperature, dim=-1) for one in (own_SV, teacher_SV)
    )
    found_S = token_divergence(student_SO, teacher_SO, beta=beta)
    found = found_S[taught_S == 1].mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    expected.backward()
    assert torch.allclose(own_SV.grad, same_SV.grad, rtol=1e-4, atol=1e-7)


def test_between_the_divergences_lie_their_limits():
    forward = token_divergence(QUARTER, HALF, beta=0.0)
    reverse = token_divergence(QUARTER, HALF, beta=1.0)
    small = token_divergence(QUARTER.double(), HALF.double(), beta=1e-4) / 1e-4
    large = token_divergence(QUARTER.double(), HALF.double(), beta=1 - 1e-4) / 1e-4
    assert small.item() == pytest.approx(forward.item(), rel=1e-3)
    assert large.item() == pytest.approx(reverse.item(), rel=1e-3)


def test_tokens_thrown_together_by_hand():
    """Of (1/2, 1/8, 3/8) tokens 2 and 0 are kept, the rest is 1/8."""
    logprobs_SV = torch.tensor([[0.5, 0.125, 0.375]]).log()
    found = outcomes_top(logprobs_SV, torch.tensor([[2, 0]]))
    assert found.exp().tolist()[0] == pytest.approx([0.375, 0.5, 0.125])


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_with_tokens_thrown_together_a_divergence_is_never_larger(beta):
    generator = torch.Generator().manual_seed(0)
    student_SV, teacher_SV = torch.randn(2, 20, 30, generator=generator).log_softmax(-1)
    whole_S = token_divergence(student_SV, teacher_SV, beta=beta)
    before_S = torch.zeros(20)
    for kept in (1, 8, 29):
        ids_SK = teacher_SV.topk(kept, dim=-1).indices
        part_S = token_divergence(
            outcomes_top(student_SV, ids_SK),
            outcomes_top(teacher_SV, ids_SK),
            beta=beta,
        )
        assert (part_S <= whole_S + 1e-5).all() and (part_S >= before_S - 1e-5).all()
        before_S = part_S
    assert torch.allclose(before_S, whole_S, atol=1e-5)


def test_a_divergence_of_other_shapes_or_beta_is_refused():
    with pytest.raises(ValueError, match=r"student \(1, 2\), teacher \(1, 3\)"):
        token_divergence(HALF, torch.zeros(1, 3), beta=0.5)
    with pytest.raises(ValueError, match="beta: wanted 0 to 1, got 2"):
        token_divergence(HALF, HALF, beta=2)
