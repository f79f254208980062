"""Several processes share each layer's matrices, crossed with FSDP2 if there are more of them.

transformers knows for its architectures which matrix is cut by columns and which by rows, and which
experts lie where; torch's DTensors do the rest. A model is cut in memory, its weights already in
it, so that all ways of training start from the same weights.

Two ranks of a mesh `data × tensor`: neighbours share matrices and read the same rows; ranks at the
same place of different groups share weights as FSDP2 does.
"""

from typing import Any

from torch.distributed.tensor import DTensor

from modelhub.ml.configs import RefusedError


def degree_check(world: int, strategy: str, tensor_parallel: int) -> None:
    """Raise RefusedError unless so many processes make whole groups, and more than one is FSDP2."""
    if world % tensor_parallel:
        raise RefusedError(
            f"tensor_parallel is {tensor_parallel} and there are {world} processes: they are not "
            "whole groups"
        )
    if world > tensor_parallel and strategy != "fsdp2":
        raise RefusedError(
            f"{world} processes with tensor_parallel {tensor_parallel} need the strategy fsdp2"
        )


def tensor_parallel_apply(
    model: Any, *, data_parallel: int, tensor_parallel: int, expert_parallel: bool
) -> None:
    """Cut the model over `data_parallel · tensor_parallel` processes, in place. Collective.

    expert_parallel: each rank of a group has an equal part of the experts, instead of a slice of
    each. Raises RefusedError for an architecture without a plan, sizes that cannot be divided, or
    a matrix that the plan names and that stayed whole.
    """
    from transformers.distributed import DistributedConfig

    plan = model.tp_plan
    if not plan:
        raise RefusedError(f"{type(model).__name__} has no plan of tensor parallelism")
    heads = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
    if heads % tensor_parallel:
        raise RefusedError(f"{heads} heads of keys cannot be shared by {tensor_parallel} processes")
    asked = DistributedConfig(
        tp_size=tensor_parallel,
        fsdp_size=data_parallel,
        ep_size=tensor_parallel if expert_parallel else 1,
    )
    asked, _, mesh = type(model).prepare_distribute_model(asked)
    try:
        model.maybe_distribute_model(model, asked, mesh)
    except ValueError as error:
        raise RefusedError(f"{type(model).__name__}: {error}") from error
    plan_check(model)


def plan_check(model: Any) -> None:
    """Raise RefusedError naming the first weight that the plan cuts and that is whole.

    Libraries that cannot do what they are asked train on, each rank with the whole model.
    """
    from transformers.distributed.tensor_parallel import _get_parameter_plan

    plan = {
        **model.tp_plan,
        **(model.ep_plan if model.config.distributed_config.ep_size > 1 else {}),
    }
    cut = {"colwise", "rowwise", "packed_colwise", "packed_rowwise", "grouped_gemm"}
    found = 0
    for name, weight in model.named_parameters():
        if name.endswith(".bias") or _get_parameter_plan(name, plan, is_weight=True) not in cut:
            continue
        found += 1
        if not isinstance(weight, DTensor):
            raise RefusedError(f"tensor parallelism was asked for, but {name} is whole")
    if not found:
        raise RefusedError("tensor parallelism was asked for, but its plan names no weight")
