"""Llama 2's combination of two rewards, against values worked by hand."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.combined_reward import (
    combined_reward,
    combined_score,
    logit,
    safety_share,
    whiten,
)

pytestmark = pytest.mark.ml

THRESHOLD = math.log(0.15 / 0.85)  # -1.7346: where σ is 0.15


def test_safety_rules_where_the_prompt_is_risky_or_the_answer_looks_unsafe():
    helpful = torch.tensor([3.0, 3.0, 3.0, -2.0])
    safe = torch.tensor([1.0, 1.0, -2.0, -1.0])
    risky = torch.tensor([True, False, False, False])
    # Risky: 1. Safe enough, not risky: 3. σ(-2) = 0.119 < 0.15: -2. σ(-1) = 0.269: helpfulness, -2.
    assert combined_score(helpful, safe, risky).tolist() == [1.0, 3.0, -2.0, -2.0]
    assert safety_share(helpful, safe, risky) == 0.5


def test_the_threshold_is_on_the_probability_and_an_answer_on_it_is_safe():
    helpful, risky = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.bool)
    safe = torch.tensor([THRESHOLD - 1e-9, THRESHOLD + 1e-9], dtype=torch.float64)
    found = combined_score(helpful, safe, risky)
    assert found.tolist() == [pytest.approx(THRESHOLD), 0.0]
    stricter = combined_score(helpful, torch.tensor([-0.1, 0.1]).double(), risky, threshold=0.5)
    assert stricter.tolist() == [pytest.approx(-0.1), 0.0]


def test_whitening_by_hand():
    # Mean 3, deviations -2, 0, 2, 0; variance 8 / 4 = 2.
    found = whiten(torch.tensor([1.0, 3.0, 5.0, 3.0]))
    assert found.tolist() == pytest.approx([-math.sqrt(2), 0, math.sqrt(2), 0])


@pytest.mark.parametrize("values", [[7.0], [0.1, 0.1, 0.1], [1e6, 1e6]])
def test_equal_rewards_carry_no_preference(values):
    assert whiten(torch.tensor(values)).tolist() == [0.0] * len(values)


def test_the_reward_of_a_batch_by_hand():
    helpful = torch.tensor([2.0, 4.0, 9.0])
    safe = torch.tensor([0.0, 0.0, -4.0])
    risky = torch.tensor([False, False, False])
    # Combined 2, 4, -4: mean 2/3, deviations 4/3, 10/3, -14/3, variance (16 + 100 + 196) / 27.
    spread = math.sqrt(312 / 27)
    expected = [4 / 3 / spread, 10 / 3 / spread, -14 / 3 / spread]
    assert combined_reward(helpful, safe, risky).tolist() == pytest.approx(expected, rel=1e-6)


def test_logit_undoes_the_sigmoid_and_stays_finite_at_its_ends():
    assert logit(torch.tensor([0.5, 0.15])).tolist() == pytest.approx([0.0, THRESHOLD], abs=1e-6)
    scores = torch.tensor([-3.0, 0.25, 4.0])
    assert logit(torch.sigmoid(scores)).tolist() == pytest.approx(scores.tolist(), abs=1e-4)
    assert torch.isfinite(logit(torch.tensor([0.0, 1.0]))).all()


def test_what_does_not_fit_is_refused():
    two, three = torch.zeros(2), torch.zeros(3)
    with pytest.raises(ValueError, match=r"\(2,\) helpfulness scores, \(3,\) safety scores"):
        combined_score(two, three, torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"risky_B: wanted bool, got torch.float32"):
        combined_score(two, two, two)
    with pytest.raises(ValueError, match="threshold"):
        combined_score(two, two, two.bool(), threshold=1.0)
