"""The losses against values worked by hand."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.losses import (
    better_mask,
    centering_loss,
    pair_accuracy,
    preference_shares,
    ranking_loss,
    safety_loss,
    soft_ranking_loss,
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
