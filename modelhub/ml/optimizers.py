"""AdamW in the kinds there are: torch's own, and bitsandbytes' with 8-bit or paged moments.

An 8-bit optimizer keeps Adam's two moments in a byte each, by blocks with a scale of their own
(Dettmers et al. 2022, arXiv:2110.02861): 2 bytes a weight instead of 8. A paged one lets them move
to the host's memory when the GPU's is full. Both need an NVIDIA GPU and the package bitsandbytes;
asked for elsewhere they are refused before anything is computed, never replaced in silence.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch

from modelhub.ml.configs import RefusedError

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
