"""Muon's orthogonal step, against the singular values that the iteration gives each."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from modelhub.ml import muon
from modelhub.ml.muon import muon_step, orthogonalised

pytestmark = pytest.mark.ml


@pytest.mark.parametrize("shape", [(6, 4), (3, 8), (5, 5)])
def test_every_singular_value_goes_through_the_polynomial_and_no_direction_changes(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    wanted = (left * values) @ right
    found = orthogonalised(matrix, torch.float32)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    rough = orthogonalised(matrix, torch.bfloat16)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.double(), wanted, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(("multiplies", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_products_are_in_what_this_machine_is_fast_in(monkeypatch, multiplies, dtype):
    monkeypatch.setattr(muon, "bfloat16_multiplies", lambda: multiplies)
    assert orthogonalised(torch.eye(3)).dtype == getattr(torch, dtype)


def test_a_first_step_by_hand(monkeypatch):
    monkeypatch.setattr(muon, "bfloat16_multiplies", lambda: False)
    weight, gradient = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    momentum = torch.zeros(1, 2)
    muon_step(weight, gradient, momentum, lr=0.1, weight_decay=0.5)
    value = 1.0  # of a matrix with one singular value, whatever it is
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    # (1 − 0.1 · 0.5) · 2, and a step of 0.1 · 0.2 · √2 the other way.
    torch.testing.assert_close(weight, torch.tensor([[1.9, -0.02 * 2**0.5 * value]]))
    torch.testing.assert_close(momentum, torch.tensor([[0.0, 0.2]]))  # (1 − 0.95) · 4
