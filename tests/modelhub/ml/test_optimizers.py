"""The kinds of AdamW: what is made, and what is refused where it cannot run."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.configs.checks import OPTIMIZERS
from modelhub.ml import optimizers
from modelhub.ml.configs import RefusedError
from modelhub.ml.optimizers import optimizer_check, optimizer_make

pytestmark = pytest.mark.ml


def test_each_group_keeps_its_options_and_an_empty_one_is_left_out():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    made = optimizer_make(
        [{"params": [weight], "weight_decay": 0.1, "peak": 2.0}, {"params": [], "peak": 1.0}],
        kind="adamw",
        lr=0.5,
    )
    (group,) = made.param_groups
    assert (group["weight_decay"], group["peak"], group["lr"]) == (0.1, 2.0, 0.5)


def test_a_step_by_hand():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    made = optimizer_make([{"params": [weight], "weight_decay": 0.1}], kind="adamw", lr=0.01)
    weight.grad = torch.tensor([3.0])
    made.step()
    # Decay takes 0.01 · 0.1 of the weight; Adam's first step is the rate, whatever the gradient.
    assert weight.item() == pytest.approx(1.0 * (1 - 0.001) - 0.01, abs=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind != "adamw"])
def test_an_8bit_or_paged_one_is_refused_without_a_gpu(kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RefusedError, match=f"optimizer {kind} needs an NVIDIA GPU"):
        optimizer_make([{"params": [torch.nn.Parameter(torch.ones(1))]}], kind=kind, lr=1e-3)


def test_it_is_refused_without_its_package(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(RefusedError, match="needs the package bitsandbytes"):
        optimizer_check("adamw_8bit")


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(RefusedError, match="got 'sgd'"):
        optimizer_check("sgd")
