"""Rounding to bfloat16 in which small updates survive."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.rounding import stochastic_round, weights_round

pytestmark = pytest.mark.ml


def rounded(values, seed=0):
    return stochastic_round(values, torch.Generator().manual_seed(seed))


def test_values_that_bfloat16_holds_stay():
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, 2.0**-130, 3.0e38]).bfloat16().float()
    for seed in range(20):
        assert torch.equal(rounded(values, seed), values)


def test_a_value_goes_to_one_of_its_two_neighbours_and_its_mean_stays():
    # bfloat16 has 1 and 1 + 1/128; a quarter of the way up, one in four rounds up.
    for sign in (1, -1):
        found = rounded(torch.full((40_000,), sign * (1 + 0.25 / 128)))
        assert set(found.tolist()) == {sign * 1.0, sign * (1 + 1 / 128)}
        up = (found.abs() > 1).float().mean().item()
        assert up == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 40_000) ** 0.5)


def test_a_small_update_that_nearest_rounding_loses_survives_in_the_sum():
    base = torch.randn(100_000, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    update = 1e-4 * torch.sign(torch.randn(100_000, generator=torch.Generator().manual_seed(2)))
    moved = base + update

    def kept(found):
        return ((found - base) @ update / (update @ update)).item()

    assert kept(moved.bfloat16().float()) < 0.3
    assert kept(rounded(moved)) == pytest.approx(1, abs=0.15)


def test_a_models_weights_are_rounded_in_place_and_the_same_for_the_same_seed():
    layer = torch.nn.Linear(30, 30)
    again = torch.nn.Linear(30, 30)
    again.load_state_dict(layer.state_dict())
    other = torch.nn.Linear(30, 30)
    other.load_state_dict(layer.state_dict())
    for one, seed in ((layer, 3), (again, 3), (other, 4)):
        weights_round(one, seed=seed)
        assert torch.equal(one.weight, one.weight.bfloat16().float())
    assert torch.equal(layer.weight, again.weight)
    assert not torch.equal(layer.weight, other.weight)


def test_a_weight_that_was_not_trained_goes_to_the_nearest():
    layer = torch.nn.Linear(30, 30)
    layer.bias.requires_grad_(False)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    weights_round(layer, seed=0)
    assert torch.equal(layer.bias, bias.bfloat16().float())
    assert not torch.equal(layer.weight, weight.bfloat16().float())
