"""Several reward models as one, against values worked by hand."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.ensemble import (
    disagreement_report,
    members_combine,
    shifts_common,
    weights_average,
)
from annotation.doubt import doubt_of

pytestmark = pytest.mark.ml

SCORES_KM = torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])


def test_mean_worst_and_uncertain_by_hand():
    assert members_combine(SCORES_KM, "mean").tolist() == [3.0, 3.0]
    assert members_combine(SCORES_KM, "worst").tolist() == [1.0, 3.0]
    # Deviations -2, -1, 3: variance 14 / 3; half of it is taken from 3.
    found = members_combine(SCORES_KM, "uncertain", uncertainty_weight=0.5)
    assert found.tolist() == pytest.approx([3 - 7 / 3, 3.0])
    with pytest.raises(ValueError, match="wanted mean, worst, uncertain"):
        members_combine(SCORES_KM, "median")


def test_of_one_member_every_way_is_its_score():
    one_K1 = torch.tensor([[1.5], [-2.0]])
    for how in ("mean", "worst", "uncertain"):
        assert members_combine(one_K1, how).tolist() == [1.5, -2.0]


def test_members_are_put_on_a_common_zero_over_answers_not_groups():
    scores = [torch.tensor([[1.0, 10.0], [3.0, 30.0]]), torch.tensor([[5.0, 20.0]])]
    assert shifts_common(scores) == [3.0, 20.0]


def test_members_that_differ_by_a_constant_do_not_disagree():
    groups = [torch.tensor([[1.0, 11.0], [2.0, 12.0]]), torch.tensor([[0.0, 10.0]])]
    report = disagreement_report(groups)
    assert (report["members"], report["spread"]) == (2, 0.0)
    assert report["disagreement_bits"] == pytest.approx(0.0, abs=1e-9)


def test_disagreement_is_that_of_the_annotators_queue():
    groups = [torch.tensor([[3.0, -3.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])]
    report = disagreement_report(groups)
    doubts = [doubt_of(one.tolist()) for one in groups]
    assert report["disagreement_bits"] == pytest.approx(
        (doubts[0].disagreement + doubts[1].disagreement) / 2
    )
    assert doubts[0].disagreement > 0.5 > doubts[1].disagreement
    # Means 1 and -0.5 taken off: (2, -2.5), (-1, 0.5), (0, 1.5), (-1, 0.5); half of 4.5, 1.5 ….
    assert report["spread"] == pytest.approx((2.25 + 0.75 + 0.75 + 0.75) / 4)


def test_weights_are_averaged_and_others_refused_by_name():
    first = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([2.0]).bfloat16()}
    second = {"a": torch.tensor([3.0, 5.0]), "b": torch.tensor([4.0]).bfloat16()}
    found = weights_average([first, second])
    assert found["a"].tolist() == [2.0, 4.0]
    assert (found["b"].tolist(), found["b"].dtype) == ([3.0], torch.bfloat16)
    with pytest.raises(ValueError, match="member 2 has another a than member 1"):
        weights_average([first, {**second, "a": torch.zeros(3)}])
    with pytest.raises(ValueError, match="member 2 has another c"):
        weights_average([first, {**second, "c": torch.zeros(3)}])
