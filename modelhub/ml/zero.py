"""ZeRO 1 and 2 by DeepSpeed (the extra `deepspeed`): moments, then gradients too, are shares.

Rajbhandari et al. 2019, arXiv:1910.02054. Stage 3 is FSDP2's (`fully_shard`), with the same shares.

DeepSpeed steps the loop's own optimizer on this process's stretch of all weights laid end to end;
that suits AdamW, which sees one number at a time, and no optimizer of whole matrices.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from modelhub.ml.configs import RefusedError


def zero_check(world: int, strategy: str) -> None:
    """Raise RefusedError where DeepSpeed is not installed, or has nothing to share."""
    if world == 1 or strategy != "ddp":
        raise RefusedError(
            f"zero_stage shares over processes of ddp, and there are {world} of {strategy}"
        )
    if find_spec("deepspeed") is None:
        raise RefusedError("zero_stage needs the extra: pip install 'rondo[deepspeed]'")


_MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroOptimizer:
    """An optimizer whose state is shared over the processes; in checkpoints it is the whole one."""

    def __init__(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        *,
        stage: int,
        passes: int,
        max_grad_norm: float,
        world: int,
    ) -> None:
        """passes: of every step, on every process. Raises RefusedError if a share is the whole."""
        if not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed

        self.checkpoint_class = type(optimizer).__name__
        self.param_groups = [dict(group) for group in optimizer.param_groups]
        self._weights = [one for group in self.param_groups for one in group["params"]]
        self._passes, self._world, self._passed = passes, world, 0
        self._inner = optimizer
        self._engine, self._zero, _, _ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            dist_init_required=False,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": passes,
                "gradient_clipping": max_grad_norm,
                "zero_optimization": {"stage": stage},
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
            },
        )
        share_check([part.numel() for part in self._parts()], self._sizes(), world)
        # DeepSpeed would tie moments to weights behind the first group's first step, and lose the
        # others'.
        for part in self._parts():
            self._inner.state[part] = {
                "step": torch.zeros((), dtype=torch.float32, device=part.device),
                "exp_avg": torch.zeros_like(part),
                "exp_avg_sq": torch.zeros_like(part),
            }
        self._zero._lazy_init_hp_params_optimizer_state()

    def _parts(self) -> list[Tensor]:
        """What this process steps of each group: a flat stretch."""
        return [group["params"][0] for group in self._inner.param_groups]

    def _sizes(self) -> list[int]:
        return [sum(one.numel() for one in group["params"]) for group in self.param_groups]

    def backward(self, loss: Tensor) -> None:
        """A pass's backward. Losses are added up over passes and processes, as everywhere here."""
        # DeepSpeed takes the mean over both.
        self._engine.backward(loss * (self._world * self._passes))
        self._passed += 1
        if self._passed < self._passes:
            self._engine.step()  # counts the pass

    def norm(self) -> Tensor:
        """Of the step's gradient, before `step` clips it; NaN where it is no number."""
        norm = torch.as_tensor(self._zero.scaled_global_norm()).float()
        return norm if norm >= 0 else torch.full_like(norm, torch.nan)

    def step(self) -> None:
        for group, shared in zip(self.param_groups, self._inner.param_groups, strict=True):
            shared["lr"] = group["lr"]
        self._engine.step()
        self._passed = 0

    def zero_grad(self) -> None:
        """`step` has done it."""

    def state_dict(self) -> dict[str, Any]:
        """As the whole optimizer's, its tensors whole. Collective."""
        from deepspeed.utils import safe_get_full_optimizer_state

        count = 0
        groups = []
        for group in self.param_groups:
            own = {name: value for name, value in group.items() if name != "params"}
            numbers = list(range(count, count + len(group["params"])))
            groups.append({**own, "params": numbers})
            count += len(numbers)
        step = self._inner.state[self._parts()[0]]["step"]
        state = {
            number: {
                "step": step.clone(),
                **{name: safe_get_full_optimizer_state(weight, name) for name in _MOMENTS},
            }
            for number, weight in enumerate(self._weights)
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the whole optimizer's state, and the model's weights as they are now."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        for group, saved in zip(self.param_groups, state["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        for weight in self._weights:
            safe_set_full_fp32_param(weight, weight.detach())
        if not state["state"]:  # of before the first step
            return
        for part in self._parts():
            self._inner.state[part]["step"].copy_(state["state"][0]["step"])
        for number, weight in enumerate(self._weights):
            for name in _MOMENTS:
                safe_set_full_optimizer_state(weight, state["state"][number][name], name)


def share_check(parts: list[int], sizes: list[int], world: int) -> None:
    """Raise RefusedError unless this process steps a share of each group alone.

    parts: numbers it steps, by group; sizes: of all. A share is padded to a whole block.
    """
    for part, size in zip(parts, sizes, strict=True):
        if part > size / world + 1024:
            raise RefusedError(
                f"ZeRO was asked for, but a process has the moments of {part:,} of {size:,} weights"
            )
