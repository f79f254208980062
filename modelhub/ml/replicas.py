"""What several processes have the same of, and whether it is still the same.

A plain weight is on every rank; of a DTensor all ranks at the same place of the dimensions that cut
it have the same part. Nothing else keeps them equal but that each computes the same: where one
rank's memory or a summation goes astray, losses stay plausible and the model is lost (BigScience
2022, chronicles of BLOOM: norms that tensor parallelism replicates had drifted apart unseen).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def weights_digests(model: nn.Module) -> dict[str, int]:
    """A hash of the bits of each weight this rank has, by the weight's name and which part it is.

    Parts that no other rank has are left out, and stages' weights without memory. Bits are folded
    on the device they are on. It finds what drifted apart; it is no protection against an
    adversary.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # a pass without a backward leaves the root's weights gathered
    digests = {}
    for name, weight in model.named_parameters():
        part = _part(weight)
        if part is None or weight.is_meta:
            continue
        own = weight.detach()
        own = own.to_local() if isinstance(own, DTensor) else own
        if not own.numel():  # of ZeRO 3 each rank has another stretch, and here nothing
            continue
        bits = torch.hash_tensor(own).view(torch.int64).item()
        digests[f"{name}{part} {tuple(own.shape)}"] = int(bits)
    return digests


def _part(weight: Tensor) -> str | None:
    """Which part of a weight this rank has: "" for all of it, None for one no other rank has."""
    if not isinstance(weight, DTensor):
        return ""
    mesh, where, parts = weight.device_mesh, mesh_place(weight), 1
    cut = []
    for dimension, placement in enumerate(weight.placements):
        if not placement.is_replicate():
            parts *= mesh.size(dimension)
            cut.append(f"{where[dimension]} of {mesh.size(dimension)}")
    if parts == torch.distributed.get_world_size():
        return None
    return f" part {', '.join(cut)}" if cut else ""


def mesh_place(weight: DTensor) -> Sequence[int]:
    """This rank's coordinates in the weight's mesh."""
    place = weight.device_mesh.get_coordinate()
    if place is None:
        raise RuntimeError("a weight lies on processes that this one is not among")
    return place


def replicas_differing(by_rank: Sequence[Mapping[str, int]]) -> tuple[str, int, int] | None:
    """The first weight that two ranks have differently: (name, the later rank, the first); or None.

    by_rank: every rank's `weights_digests`.
    """
    first: dict[str, int] = {}
    for rank, digests in enumerate(by_rank):
        for name, bits in digests.items():
            holder = first.setdefault(name, rank)
            if by_rank[holder][name] != bits:
                return name, rank, holder
    return None
