"""The kinds of AdamW: what is made, and what is refused where it cannot run."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.configs.checks import OPTIMIZERS
from modelhub.ml import muon, optimizers
from modelhub.ml.configs import RefusedError
from modelhub.ml.optimizers import mesh_optimizer_make, optimizer_check, optimizer_make

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


# ── Muon and AdamW as one ────────────────────────────────────────────────────────────────────────


def stepped(optimizers, weights, steps=3):
    """The weights behind some steps on fixed gradients."""
    for step in range(steps):
        draw = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=draw)
        for optimizer in optimizers:
            optimizer.step()
    return [weight.detach().clone() for weight in weights]


def weights_draw():
    draw = torch.Generator().manual_seed(9)
    shapes = [(6, 4), (3, 8), (10, 4), (5,)]
    return [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]


def test_muon_with_adamw_steps_as_torchs_own_two(monkeypatch):
    monkeypatch.setattr(muon, "bfloat16_multiplies", lambda: True)  # torch knows no other dtype
    own = weights_draw()
    groups = [
        {"params": own[2:3], "weight_decay": 0.1},
        {"params": own[3:], "weight_decay": 0.0},
    ]
    together = mesh_optimizer_make(own[:2], groups, lr=0.02, weight_decay=0.1)
    theirs = weights_draw()
    torchs = torch.optim.Muon(theirs[:2], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [
            {"params": theirs[2:3], "weight_decay": 0.1},
            {"params": theirs[3:], "weight_decay": 0.0},
        ],
        lr=0.02,
        betas=(0.9, 0.95),
        fused=True,
    )
    found, wanted = stepped([together], own), stepped([torchs, adamw], theirs)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_its_state_goes_on_where_it_was():
    own, copied = weights_draw(), weights_draw()

    def made(weights):
        return mesh_optimizer_make(
            weights[:2], [{"params": weights[2:], "weight_decay": 0.0}], lr=0.02, weight_decay=0.1
        )

    first, second = made(own), made(copied)
    stepped([first], own, steps=2)
    with torch.no_grad():
        for weight, other in zip(own, copied, strict=True):
            other.copy_(weight)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    found, wanted = stepped([second], copied), stepped([first], own)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
