"""AdamW in the kinds there are: torch's own, and bitsandbytes' with 8-bit or paged moments; Muon.

An 8-bit optimizer keeps Adam's two moments in a byte each, by blocks with a scale of their own
(Dettmers et al. 2022, arXiv:2110.02861): 2 bytes a weight instead of 8. A paged one lets them move
to the host's memory when the GPU's is full. Both need an NVIDIA GPU and the package bitsandbytes;
asked for elsewhere they are refused before anything is computed, never replaced in silence.

Muon (modelhub/ml/muon.py) is for the matrices between embedding and head; the others are AdamW's.
Both are steps under one optimizer, so that a checkpoint holds one state.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from modelhub.ml.configs import RefusedError
from modelhub.ml.muon import muon_step

# name in a configuration → class in bitsandbytes.optim
_BITSANDBYTES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw": "PagedAdamW32bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
}


def optimizer_make(
    groups: Sequence[dict[str, Any]],
    *,
    kind: str,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """AdamW of a kind over parameter groups.

    groups: {"params", …} with any options of their own, such as "weight_decay" and a "peak" for the
    loop's schedule; groups without a parameter are left out. kind: one of
    `alignment.ml.configs.checks.OPTIMIZERS`. lr: of groups that name none, peak. betas: Llama 2's.
    Raises RefusedError for a kind that this machine cannot run, saying what is missing.
    """
    kept = [group for group in groups if group["params"]]
    if kind == "adamw":
        return torch.optim.AdamW(kept, lr=lr, betas=betas, eps=eps, weight_decay=0.0, fused=True)
    optimizer_check(kind)
    import bitsandbytes

    made: torch.optim.Optimizer = getattr(bitsandbytes.optim, _BITSANDBYTES[kind])(
        kept, lr=lr, betas=betas, eps=eps, weight_decay=0.0
    )
    return made


def optimizer_check(kind: str) -> None:
    """Raise RefusedError if this machine cannot run the kind; before any model is loaded."""
    if kind == "adamw":
        return
    if kind not in _BITSANDBYTES:
        raise RefusedError(f"optimizer: wanted adamw, {', '.join(_BITSANDBYTES)}, got {kind!r}")
    if not torch.cuda.is_available():
        raise RefusedError(f"optimizer {kind} needs an NVIDIA GPU, and there is none: take adamw")
    if find_spec("bitsandbytes") is None:
        raise RefusedError(
            f"optimizer {kind} needs the package bitsandbytes, which is not installed: "
            "install it, or take adamw"
        )


def mesh_optimizer_make(
    matrices: Sequence[Tensor],
    groups: Sequence[dict[str, Any]],
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
) -> torch.optim.Optimizer:
    """Muon over `matrices`, if any, AdamW over `groups` ({"params", "weight_decay"}), one rate.

    Weights may be whole, or shared over processes in any ways at once: the groups, and so a
    checkpoint of the optimizer, are the same on any number of them. A step of Muon's is scaled to
    the size that AdamW's has (0.2 · √(larger side), Liu et al. 2025, section 2.2), so a rate found
    with AdamW may stay.
    """
    own = [{"params": list(matrices), "weight_decay": weight_decay, "is_muon": True}]
    others = [{**group, "is_muon": False} for group in groups]
    return MuonAdamW([group for group in own + others if group["params"]], lr=lr, betas=betas)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for groups marked `is_muon`, AdamW for the others; one state dict."""

    def __init__(
        self, groups: Sequence[dict[str, Any]], *, lr: float, betas: tuple[float, float]
    ) -> None:
        super().__init__(list(groups), {"lr": lr, "betas": betas, "is_muon": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            trained = [weight for weight in group["params"] if weight.grad is not None]
            if not trained:
                continue
            if group["is_muon"]:
                self._muon_step(group, trained)
            else:
                self._adamw_step(group, trained)

    def _muon_step(self, group: dict[str, Any], trained: list[Tensor]) -> None:
        if isinstance(trained[0], DTensor):
            raise RefusedError("muon needs whole matrices on every process: take ddp, or adamw")
        for weight in trained:
            state = self.state[weight]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
            muon_step(
                weight,
                weight.grad,
                state["momentum"],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
            )

    def _adamw_step(self, group: dict[str, Any], trained: list[Tensor]) -> None:
        # torch steps weights together that are shared in one way.
        kinds: dict[Any, list[Tensor]] = {}
        for weight in trained:
            kinds.setdefault(getattr(weight, "device_mesh", None), []).append(weight)
        for own in kinds.values():
            self._adamw_step_alike(group, own)

    def _adamw_step_alike(self, group: dict[str, Any], trained: list[Tensor]) -> None:
        for weight in trained:
            state = self.state[weight]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
                state["exp_avg"] = torch.zeros_like(weight)
                state["exp_avg_sq"] = torch.zeros_like(weight)
        beta1, beta2 = group["betas"]
        adamw(
            trained,
            [weight.grad for weight in trained],
            [self.state[weight]["exp_avg"] for weight in trained],
            [self.state[weight]["exp_avg_sq"] for weight in trained],
            [],
            [self.state[weight]["step"] for weight in trained],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )
