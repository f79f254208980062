"""ZeRO by DeepSpeed (the extra `deepspeed`): what a process has of the others' is a share.

Rajbhandari et al. 2019, arXiv:1910.02054. Stage 1 shares the moments, 2 the gradients too, 3 the
weights too, which are gathered around each layer's pass. torch's FSDP2 (`fully_shard`) shares what
stage 3 does, with no library beside torch.

DeepSpeed steps the loop's own optimizer on this process's stretch of all weights laid end to end;
that suits AdamW, which sees one number at a time, and no optimizer of whole matrices.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from modelhub.ml.configs import RefusedError

STAGES = (1, 2, 3)
_MOMENTS = ("exp_avg", "exp_avg_sq")


def zero_check(world: int, strategy: str) -> None:
    """Raise RefusedError where DeepSpeed is not installed, or has nothing to share."""
    if world == 1 or strategy != "ddp":
        raise RefusedError(
            f"zero_stage shares over processes of ddp, and there are {world} of {strategy}"
        )
    if find_spec("deepspeed") is None:
        raise RefusedError("zero_stage needs the extra: pip install 'rondo[deepspeed]'")


class _Root(nn.Module):
    """The module that DeepSpeed's engine calls: it lets a function call the model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(self.model, *args)


class ZeroOptimizer:
    """An optimizer whose state is shared over the processes; in checkpoints it is the whole one.

    From then on `model.forward_through` goes by DeepSpeed's engine, and every pass has to: the
    engine's forward is where its stage 3 counts passes. Past it, each pass's gradient would take
    the place of those before it, and a step of several passes have the last one's gradient alone.
    """

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

        if not torch.cuda.is_available():
            # Else it compiles, for a minute, an all-reduce of inference that nothing here calls.
            deepspeed.ops.__compatible_ops__ = {}
        self.checkpoint_class = type(optimizer).__name__
        self.param_groups = [dict(group) for group in optimizer.param_groups]
        self._weights = [one for group in self.param_groups for one in group["params"]]
        self._stage, self._passes, self._world, self._passed = stage, passes, world, 0
        self._inner = optimizer
        sizes = [sum(one.numel() for one in group["params"]) for group in self.param_groups]
        self._engine, self._zero, _, _ = deepspeed.initialize(
            model=_Root(model),
            optimizer=optimizer,
            dist_init_required=False,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": passes,
                "gradient_clipping": max_grad_norm,
                # 0: small weights are shares too, or a small model would be whole everywhere.
                "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
            },
        )
        model.forward_through = self._forward_through
        if stage == 3:
            weights_shared_check(model.named_parameters(), world)
        else:
            share_check([part.numel() for part in self._parts()], sizes, world)
        # DeepSpeed would tie moments to weights behind the first group's first step, and lose the
        # others'.
        for part in self._parts():
            self._inner.state[part] = {
                "step": torch.zeros((), dtype=torch.float32, device=part.device),
                "exp_avg": torch.zeros_like(part),
                "exp_avg_sq": torch.zeros_like(part),
            }
        if stage < 3:
            self._zero._lazy_init_hp_params_optimizer_state()

    def _parts(self) -> list[Tensor]:
        """What this process steps: flat stretches, one of each group; of stage 3 one or more."""
        if self._stage == 3:
            return list(self._zero.fp32_partitioned_groups_flat)
        return [group["params"][0] for group in self._inner.param_groups]

    def _forward_through(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(model, *args)` inside the engine's forward."""
        # Which ends the caller's autocast; so it is begun again inside.
        kind = self._engine.device.type
        asked = {
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
        }

        def inside(model: Any, *own: Any) -> Any:
            with torch.autocast(kind, **asked):
                return function(model, *own)

        with torch.autocast(kind, enabled=False):
            return self._engine(inside, *args)

    def backward(self, loss: Tensor) -> None:
        """A pass's backward. Losses are added up over passes and processes, as everywhere here."""
        # DeepSpeed takes the mean over both.
        self._engine.backward(loss * (self._world * self._passes))
        self._passed += 1
        if self._passed < self._passes:
            self._engine.step()  # counts the pass

    def norm(self) -> Tensor:
        """Of the step's gradient, before `step` clips it; NaN where it is no number."""
        if self._stage == 3:
            from deepspeed.utils import safe_get_local_grad

            squares = [safe_get_local_grad(weight).square().sum() for weight in self._weights]
            squared = torch.stack(squares).sum()
            dist.all_reduce(squared)
            return squared.sqrt()
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
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_optimizer_state,
        )

        for group, saved in zip(self.param_groups, state["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        for weight in self._weights:
            if self._stage < 3:  # whose stretches are apart from the model's weights
                safe_set_full_fp32_param(weight, weight.detach())
        if not state["state"]:  # of before the first step
            return
        for part in self._parts():
            self._inner.state[part]["step"].copy_(state["state"][0]["step"])
        for number, weight in enumerate(self._weights):
            for name in _MOMENTS:
                moment = state["state"][number][name]
                if self._stage == 3:
                    safe_set_local_optimizer_state(weight, _own_share(weight, moment), name)
                else:
                    safe_set_full_optimizer_state(weight, moment, name)


def is_shared(tensor: Tensor) -> bool:
    """Whether a weight is a share of stage 3: to be seen through the functions below alone."""
    return hasattr(tensor, "ds_id")


def weight_whole(weight: Tensor) -> Tensor:
    """A copy of the weight that stage 3 has shared out. Collective."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([weight]):
        return weight.detach().clone()


def weight_fill(weight: Any, whole: Tensor) -> None:
    """Take this process's share of the whole weight, which every process has."""
    from deepspeed.utils import safe_set_local_fp32_param

    own = _own_share(weight, whole)
    weight.ds_tensor.data.copy_(own)  # what passes gather
    safe_set_local_fp32_param(weight, own)  # what is stepped: on the CPU another copy


def _own_share(weight: Any, whole: Tensor) -> Tensor:
    """This process's share of a tensor of the weight's shape."""
    return share_of(whole, numbers=weight.ds_tensor.numel(), rank=dist.get_rank())


def share_of(whole: Tensor, *, numbers: int, rank: int) -> Tensor:
    """A rank's stretch of so many numbers, flat; the last is filled up with zeros."""
    own = whole.flatten()[numbers * rank :][:numbers]
    return torch.cat([own, own.new_zeros(numbers - own.numel())])


def share_check(parts: list[int], sizes: list[int], world: int) -> None:
    """Raise RefusedError unless this process steps a share of each group alone.

    parts: numbers it steps, by group; sizes: of all. A share is padded to a whole block.
    """
    for part, size in zip(parts, sizes, strict=True):
        if part > size / world + 1024:
            raise RefusedError(
                f"ZeRO was asked for, but a process has the moments of {part:,} of {size:,} weights"
            )


def weights_shared_check(weights: Iterable[tuple[str, Any]], world: int) -> None:
    """Raise RefusedError naming the first weight of stage 3 that is more than a share here."""
    for name, weight in weights:
        share = weight.numel() + (weight.ds_tensor.numel() if is_shared(weight) else 0)
        size = weight.ds_numel if is_shared(weight) else weight.numel()
        if share > math.ceil(size / world):
            raise RefusedError(
                f"ZeRO 3 was asked for, but a process has {share:,} of the {size:,} numbers of "
                f"{name}"
            )
