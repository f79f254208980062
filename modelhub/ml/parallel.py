"""Several processes that train one model and get the losses of a single one.

A step's loss is a sum over its rows divided by counts of the whole step. Each process (a rank)
computes its own share of the rows with all counts global, gradients are summed once a step, and so
are the figures: the same numbers as on one process but for the order of a sum's terms.

Two strategies, chosen where the program is launched (docs/launching.md):

    ddp     every rank has the whole model and optimizer; gradients are summed by all-reduce in
            buckets after the last backward. DistributedDataParallel is not used: it sums in hooks
            of its own forward, and shared rows call the backbone and the head, not the wrapper.
    fsdp2   torch's fully_shard, each layer and the root: weights, gradients and optimizer state are
            DTensors, a share on each rank. Every pass is collective, so every rank makes as many.

Either may be crossed with tensor parallelism, where neighbouring ranks share each layer's matrices
and read the same rows (modelhub/ml/tensor_parallel.py); a group of them counts as one reader. So do
the stages of a pipeline, each with a stretch of the layers (modelhub/ml/pipeline_parallel.py).

A training loop takes part with these lines; on one process each is the identity or nothing:

    processes = processes_start()                                      # before a model is loaded
    processes.prepare(model)                                           # before the optimizer
    rows = pack(groups, processes.budget_tokens(config.budget_tokens, tokens_of_the_step))
    for row, weight in processes.share(rows, cost=lambda row: row.tokens):   # one line a pass
        loss = processes.forward(row_loss, model, row)                 # function(model, row)
        (weight * loss / count_of_the_whole_step).backward()           # and weight · every figure
    processes.gradients_sum(weights)                                   # once, behind the last row
    norm = processes.gradients_clip(weights, config.max_grad_norm)
    figures = processes.sum({"loss": loss_sum, ...})                   # then divide
    model = processes.gather(model, make)                              # behind the last step
    if model is None:
        return                                                         # the first rank publishes

RunDir knows its rank too: every rank calls `metric`, `progress` and `checkpoint_publish` (saving
a sharded model is collective), the first alone writes. `training_state_save` keeps whole tensors,
so a run may go on with another number of processes or strategy; the losses are bit for bit the
same only with the same.

Started from torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).
gloo on the CPU, NCCL on CUDA. Every process reads the model from the run's inputs.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from modelhub.ml.allocator import memory_keep
from modelhub.ml.configs import RefusedError
from modelhub.ml.pipeline_parallel import Pipeline, held_check, stage_held, stages_check
from modelhub.ml.replicas import replicas_differing, weights_digests
from modelhub.ml.tensor_parallel import degree_check, tensor_parallel_apply
from modelhub.ml.zero import is_shared, weight_fill, weight_whole, zero_check

T = TypeVar("T")

STRATEGIES = ("ddp", "fsdp2")
_BUCKET_BYTES = 64 << 20  # of gradients that travel together
_TIMEOUT_S = 1800.0  # a rank that waits longer for another gives up


class Processes:
    """This process among those that train one model. Made by `processes_start`.

    rank counts from 0, world is how many there are, device is this rank's own; of those that share
    matrices (`tensor_parallel` many, neighbours) each group is one of the `readers`, and so are the
    stages of a `pipeline`.
    """

    tensor_parallel = 1
    pipeline: Pipeline | None = None
    zero_stage = 0

    def __init__(self, *, rank: int, world: int, device: torch.device, strategy: str) -> None:
        self.rank, self.world, self.device, self.strategy = rank, world, device, strategy

    @property
    def is_sharded(self) -> bool:
        """Whether every pass is collective: the model is a share on each rank."""
        return self.world > 1 and (
            self.strategy == "fsdp2" or self.group > 1 or self.zero_stage > 0
        )

    @property
    def group(self) -> int:
        """How many ranks have one model between them, and read the same rows."""
        return self.world if self.pipeline is not None else self.tensor_parallel

    @property
    def readers(self) -> int:
        """How many read rows of their own."""
        return self.world // self.group

    @property
    def reader(self) -> int:
        """Which of them this rank belongs to, from 0."""
        return self.rank // self.group

    def prepare(
        self,
        model: nn.Module,
        *,
        tensor_parallel: int = 1,
        expert_parallel: bool = False,
        pipeline_parallel: int = 1,
        zero_stage: int = 0,
    ) -> None:
        """Shard the model, or see that every rank has the same one. Before its optimizer is made.

        With a `zero_stage` the model stays whole here: the loop's `ZeroOptimizer` shares it out.
        A model that is still on the CPU is moved to the device on the way, layer by layer.
        Raises RefusedError if a weight stayed whole that should be sharded, or replicas differ.
        """
        if tensor_parallel > 1:
            degree_check(self.world, self.strategy, tensor_parallel)
        if pipeline_parallel > 1:
            stages_check(model, self.world, self.strategy, pipeline_parallel)
        if zero_stage:
            zero_check(self.world, self.strategy)
        if self.world == 1:
            return
        replicas_check(model)
        self.tensor_parallel = tensor_parallel
        if pipeline_parallel > 1:
            names = [name for name, _ in model.named_parameters()]
            self.pipeline = Pipeline(model, rank=self.rank, stages=self.world, device=self.device)
            held_check([set(own) for own in objects_gather(sorted(stage_held(model)))], names)
            return
        self.zero_stage = zero_stage
        if zero_stage:
            model.forward_through = MethodType(_forward_through, model)
        if zero_stage or not self.is_sharded:
            model.to(self.device)
            return
        if tensor_parallel > 1:
            model.to(self.device)
            tensor_parallel_apply(
                model,
                data_parallel=self.readers,
                tensor_parallel=tensor_parallel,
                expert_parallel=expert_parallel,
            )
        else:
            mesh = init_device_mesh(self.device.type, (self.world,))
            for layer in _layers(model):
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                # Summed, not averaged: losses are divided by the whole step's counts.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo has no other
        if self.readers > 1:
            sharded_check(model)
        # Shared rows call the backbone and the head; this is the root's forward for them.
        model.forward_through = MethodType(_forward_through, model)
        register_fsdp_forward_method(model, "forward_through")

    def forward(self, function: Callable[..., T], model: nn.Module, *args: Any) -> T:
        """`function(model, *args)`, with the weights of a sharded model gathered around it.

        What it returns must be made of tensors (alone, or in tuples, lists and dicts).
        """
        if self.is_sharded:
            return model.forward_through(function, *args)
        return function(model, *args)

    def budget_tokens(self, budget_tokens: int, tokens: int) -> int:
        """The budget of a row, small enough that a step of `tokens` has a row for every rank.

        A tenth over an even share, for groups seldom fill a row.
        """
        if self.world == 1:
            return budget_tokens
        return max(1, min(budget_tokens, math.ceil(tokens * 11 / (10 * self.world))))

    def share(self, items: Sequence[T], *, cost: Callable[[T], float]) -> list[tuple[T, float]]:
        """This rank's own items, each with the weight of its loss: 1, or 0 for a blank pass.

        Every item is one rank's with weight 1. The dearest are dealt first, to the rank with least
        so far. Where passes are collective, a rank that has one fewer repeats the cheapest item
        with weight 0. The answer depends on the items alone; one process has all, in order.
        """
        if self.world == 1:
            return [(item, 1.0) for item in items]
        order = sorted(range(len(items)), key=lambda place: (-cost(items[place]), place))
        loads = [0.0] * self.readers
        own: list[tuple[T, float]] = []
        for start in range(0, len(order), self.readers):
            readers = sorted(range(self.readers), key=lambda reader: (loads[reader], reader))
            dealt = dict(zip(readers, order[start : start + self.readers], strict=False))
            for reader, place in dealt.items():
                loads[reader] += cost(items[place])
            if self.reader in dealt:
                own.append((items[dealt[self.reader]], 1.0))
            elif self.is_sharded:
                own.append((items[order[-1]], 0.0))
        return own

    def gradients_sum(self, weights: Iterable[Tensor]) -> None:
        """Add up the ranks' gradients, once a step; FSDP2 has done so in every backward.

        A weight that has a gradient on no rank keeps none, as on one process.
        """
        if self.world == 1 or self.is_sharded:
            return
        trained = [weight for weight in weights if weight.requires_grad]
        has_gradient = torch.tensor(
            [weight.grad is not None for weight in trained], dtype=torch.int32
        )
        dist.all_reduce(has_gradient, op=dist.ReduceOp.MAX)
        with torch.no_grad():
            for bucket in _buckets(
                [w for w, has in zip(trained, has_gradient, strict=True) if has]
            ):
                parts = [
                    torch.zeros_like(weight) if weight.grad is None else weight.grad
                    for weight in bucket
                ]
                flat = torch.cat([part.reshape(-1) for part in parts])
                dist.all_reduce(flat)
                sums = flat.split([part.numel() for part in parts])
                for weight, total in zip(bucket, sums, strict=True):
                    weight.grad = total.view_as(weight)

    def gradients_clip(self, weights: Iterable[Tensor], max_norm: float) -> Tensor:
        """Scale the gradients down to a total norm of `max_norm`; returns the norm before.

        The norm is over all shares of all ranks: the same scalar everywhere. Plain tensors and
        DTensors of any meshes may be mixed. NaN and infinity come back as they are, for the caller
        to refuse.
        """
        kinds: dict[Any, list[Tensor]] = {}
        for weight in weights:
            if weight.grad is not None:
                kinds.setdefault(getattr(weight.grad, "device_mesh", None), []).append(weight)
        norms = [
            tensor_whole(nn.utils.get_total_norm([weight.grad for weight in own]))
            for own in kinds.values()
        ]
        norm = norms[0] if len(norms) == 1 else torch.stack(norms or [torch.zeros(1)]).norm()
        if self.pipeline is not None:  # each stage has gradients of its own
            squared = norm.square()
            dist.all_reduce(squared)
            norm = squared.sqrt()
        for own in kinds.values():
            nn.utils.clip_grads_with_norm_(own, max_norm, norm)
        return norm

    def sum(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The figures added up over the readers, in float64; every rank has the same names."""
        if self.world == 1:
            return dict(figures)
        values = torch.tensor([float(value) for value in figures.values()], dtype=torch.float64)
        dist.all_reduce(values)
        values /= self.group  # whose ranks have the same figures
        return dict(zip(figures, values.tolist(), strict=True))

    def tensor_sum(self, tensor: Tensor) -> Tensor:
        """The tensor added up over the readers, in place: the same bits on every rank."""
        if self.world > 1:
            dist.all_reduce(tensor)
            tensor /= self.group
        return tensor

    def gather(self, model: Any, make: Callable[[], Any]) -> Any | None:
        """The trained model, whole, on the first rank; None on the others, whose work is done.

        `make` builds the model as it was before `prepare`; it is called for a sharded model alone,
        on the first rank. The processes part here: nothing collective may follow.
        """
        if self.world == 1:
            return model
        replicas_check(model)
        if self.is_sharded:
            state = state_whole(model)
            if self.rank == 0:
                model = make()
                model.load_state_dict(state)
        barrier(timeout_s=_TIMEOUT_S)
        dist.destroy_process_group()
        return model if self.rank == 0 else None


# This process by itself, for what is called outside a run of several.
ALONE = Processes(
    rank=0,
    world=1,
    device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    strategy="ddp",
)


def processes_start() -> Processes:
    """Join the processes that torchrun, accelerate or the hub's launcher has started, if any.

    Where models compute on the CPU the process keeps the memory that it frees from here on
    (modelhub/ml/allocator.py); on CUDA the copy that a model leaves behind goes back to the system.
    The strategy is RONDO_STRATEGY, or fsdp2 under an accelerate configuration that asks for FSDP.
    Raises RefusedError for a strategy there is none of, or FSDP in its first version.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    on_cuda = torch.cuda.is_available()
    if not on_cuda:
        memory_keep()
    if world == 1:
        return ALONE
    strategy = _strategy(os.environ)
    device = torch.device("cpu")
    if on_cuda:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group(
            # Figures and objects are on the CPU on either device.
            backend="cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            timeout=timedelta(seconds=_TIMEOUT_S),
        )
    print(f"rank {rank} of {world} on {device}, {strategy}", flush=True)
    return Processes(rank=rank, world=world, device=device, strategy=strategy)


def _strategy(environment: Mapping[str, str]) -> str:
    asked = environment.get("RONDO_STRATEGY", "")
    if environment.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        if environment.get("FSDP_VERSION", "1") != "2":
            raise RefusedError("accelerate asks for FSDP 1; set fsdp_version: 2")
        asked = asked or "fsdp2"
        # transformers would load weights on the first rank alone and leave the others' to chance.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    if asked and asked not in STRATEGIES:
        raise RefusedError(f"RONDO_STRATEGY: wanted {' or '.join(STRATEGIES)}, got {asked!r}")
    return asked or "ddp"


def world_size() -> int:
    """How many processes train together; 1 where none were started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return process_rank() == 0


def objects_gather(value: T) -> list[T]:
    """Every rank's value, by rank. JSON values: a pickle never leaves the run's own processes."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def barrier(*, timeout_s: float) -> None:
    """Wait until every rank is here. Raises RuntimeError if one is not in time."""
    if world_size() == 1:
        return
    # A group of its own: gloo's barrier has a timeout, on either device, and names who is missing.
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
    dist.monitored_barrier(group, timeout=timedelta(seconds=timeout_s), wait_all_ranks=True)


def tensor_whole(tensor: Tensor) -> Tensor:
    """The tensor, gathered from all ranks if each has a share; then every rank must call this."""
    if is_shared(tensor):
        return weight_whole(tensor)
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def tensor_placed(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor that every rank has, sharded as `like` is. No rank sends anything."""
    if not isinstance(like, DTensor):
        return tensor
    tensor = tensor.to(like.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def tensor_shape(tensor: Any) -> torch.Size:
    """Of the whole, where this rank has a share."""
    return tensor.ds_shape if is_shared(tensor) else tensor.shape


@torch.no_grad()
def tensor_fill(tensor: Tensor, whole: Tensor) -> None:
    """Write a whole tensor that every rank has into one that may be a share. No rank sends."""
    if is_shared(tensor):
        weight_fill(tensor, whole)
    else:
        tensor.copy_(tensor_placed(whole, tensor))


@torch.no_grad()
def tensors_gather(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, whole, on the first rank's CPU, whoever has them; empty on the others.

    Of a sharded tensor every rank has a part; one that is on another stage of a pipeline is missing
    here, or without memory. Collective.
    """
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_meta:
            whole = tensor_whole(tensor).detach()
            if is_first():
                own[name] = whole.cpu().contiguous()
            else:  # to be sent, if the first rank has it not
                has_first = isinstance(tensor, DTensor) or is_shared(tensor)
                own[name] = whole.new_empty(0) if has_first else whole
    held = objects_gather({n: [list(t.shape), str(t.dtype)] for n, t in own.items()})
    for rank, others in enumerate(held):
        for name in sorted(others.keys() - held[0].keys()):
            shape, dtype = others[name]
            if process_rank() == rank:
                dist.send(own[name].cpu().contiguous(), 0)
            elif is_first():
                own[name] = torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
                dist.recv(own[name], rank)
    return own if is_first() else {}


def state_whole(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a sharded model with whole tensors on the CPU; empty but on the first rank.

    Tied weights are gathered once and stay one tensor under two names. Collective.
    """
    state = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}  # the name under which a tensor is gathered
    for name, tensor in state.items():
        first.setdefault(id(tensor), name)
    gathered = tensors_gather({name: state[name] for name in first.values()})
    return {name: gathered[first[id(one)]] for name, one in state.items()} if gathered else {}


def sharded_check(model: nn.Module) -> None:
    """Raise RefusedError naming the first parameter that is not a DTensor.

    Asked to shard where they cannot, libraries train on, each rank with the whole model.
    """
    for name, parameter in model.named_parameters():
        if not isinstance(parameter, DTensor):
            raise RefusedError(f"fsdp2 was asked for, but {name} is whole on every rank")


def replicas_check(model: nn.Module) -> None:
    """Raise RefusedError, naming a weight, unless ranks have the same bits of what they share.

    That is every whole weight, and every part that several ranks have. Collective.
    """
    found = objects_gather(weights_digests(model))
    differing = replicas_differing(found)
    if differing is not None:
        name, rank, other = differing
        raise RefusedError(f"the weights of rank {rank} are not those of rank {other}: {name}")


def _layers(model: nn.Module) -> list[nn.Module]:
    """What is sharded by itself: the decoder's layers, whatever the architecture calls them."""
    names = {name for module in model.modules() for name in _no_split(module)}
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise RefusedError(f"{type(model).__name__} does not say which layers can be sharded")
    return layers


def _no_split(module: nn.Module) -> Iterable[str]:
    return getattr(module, "_no_split_modules", None) or ()


def _forward_through(model: nn.Module, function: Callable[..., T], *args: Any) -> T:
    return function(model, *args)


def _buckets(weights: Sequence[Tensor]) -> list[list[Tensor]]:
    """Weights of one dtype that fill a bucket, in their order."""
    buckets: list[list[Tensor]] = []
    room = 0
    for weight in weights:
        size = weight.numel() * weight.element_size()
        if not buckets or size > room or buckets[-1][0].dtype != weight.dtype:
            buckets.append([])
            room = _BUCKET_BYTES
        buckets[-1].append(weight)
        room -= size
    return buckets
