"""Several processes have a stretch of a model's layers each, and pass activations on.

The first also has the embedding, the last the norm and the head, as transformers' plan of the
architecture says. What is another's becomes a weight without memory (on torch's meta device) under
its own name, so that an optimizer and a checkpoint number weights as on one process.

torch.distributed.pipelining runs a step's micro-batches one forward, one backward (1F1B: Narayanan
et al. 2019, PipeDream-Flush in arXiv:2006.09503): a stage keeps the activations of as many passes
as there are stages behind it, not of all.

Legend: B blocks, T tokens, C width of a hidden state, V vocabulary.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from modelhub.ml.configs import RefusedError

_PARTS = {"embed_tokens", "layers", "norm"}  # of a plan, and in this order


def stages_check(model: Any, world: int, strategy: str, stages: int) -> None:
    """Raise RefusedError for a model that cannot be cut so, or processes that are no stages."""
    if world != stages or strategy != "ddp":
        raise RefusedError(
            f"pipeline_parallel is {stages} and there are {world} processes of {strategy}: a stage "
            "is one process, with the strategy ddp"
        )
    name, config = type(model).__name__, model.config
    if (getattr(config, "base_model_pp_plan", None) or {}).keys() != _PARTS:
        raise RefusedError(f"{name} has no plan of pipeline parallelism")
    if getattr(config, "num_local_experts", 0):
        raise RefusedError(f"{name}: the experts' own loss is over all layers, no stage has it")
    if config.tie_word_embeddings:
        raise RefusedError(f"{name}: embedding and head are one weight, and two stages need it")
    if config.num_hidden_layers < stages:
        raise RefusedError(f"{name} has {config.num_hidden_layers} layers for {stages} stages")


class Stage(nn.Module):
    """A stretch of layers: (B, T) token ids or (B, T, C) states in, states or logits out."""

    def __init__(self, model: Any, number: int, stages: int) -> None:
        """Takes the model apart, in place."""
        super().__init__()
        self.model = model
        self.is_first, self.is_last = number == 0, number == stages - 1
        self.context: Callable[[], Any] = nullcontext  # of a forward; a loop sets its precision
        backbone = model.model
        count = len(backbone.layers)
        own = range(count * number // stages, count * (number + 1) // stages)
        for place, layer in enumerate(backbone.layers):
            if place not in own:
                _leave_out(layer)
        if not self.is_first:
            backbone.embed_tokens.to("meta")  # states come in, and it is not asked
        if not self.is_last:
            _leave_out(backbone.norm)
            model.lm_head.to("meta")

    def forward(self, given: Tensor, **inputs: Tensor) -> Tensor:
        with self.context():
            name = "input_ids" if self.is_first else "inputs_embeds"
            states_BTC = self.model.model(**{name: given}, **inputs).last_hidden_state
            return self.model.lm_head(states_BTC) if self.is_last else states_BTC


def _leave_out(module: nn.Module) -> None:
    module.to("meta")
    module.forward = MethodType(_pass_on, module)


def _pass_on(_module: nn.Module, states_BTC: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
    return states_BTC


class Pipeline:
    """This process's stage among all, and how a batch goes through them. Calls are collective."""

    def __init__(self, model: Any, *, rank: int, stages: int, device: torch.device) -> None:
        """Keeps one stage of a whole model, in place, and moves it to the device."""
        self.rank, self.stages, self.device = rank, stages, device
        self.width = model.config.hidden_size
        self.stage = Stage(model, rank, stages)
        for module in model.modules():
            if not any(weight.is_meta for weight in module.parameters(recurse=False)):
                for name, tensor in module.named_parameters(recurse=False):
                    getattr(module, name).data = tensor.data.to(device)
                for name, tensor in module.named_buffers(recurse=False):
                    setattr(module, name, tensor.to(device))
        self._schedules: dict[int, Schedule1F1B] = {}
        self._loss: Callable[[Tensor, Tensor], Tensor] | None = None

    def backward(
        self,
        inputs: Mapping[str, Tensor],
        targets_BT: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        passes: int,
    ) -> None:
        """Forward and backward of a step in so many equal passes; gradients are added up.

        inputs: of the whole step, `input_ids` among them. loss: (logits_BTV, targets_BT) of a pass
        as a scalar; it is called by the last stage alone.
        """
        self._loss = loss
        if passes not in self._schedules:
            stage = PipelineStage(self.stage, self.rank, self.stages, self.device)
            self._schedules[passes] = Schedule1F1B(
                stage, passes, loss_fn=self._loss_of, scale_grads=False
            )
        others = dict(inputs)
        ids_BT = others.pop("input_ids")
        given = (ids_BT,) if self.stage.is_first else ()
        target = targets_BT if self.stage.is_last else None
        losses: list[Tensor] | None = [] if self.stage.is_last else None
        self._schedules[passes].step(
            *given, target=target, losses=losses, return_outputs=False, **others
        )

    def _loss_of(self, logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
        assert self._loss is not None  # noqa: S101 - set by `backward`, the only way here
        return self._loss(logits_BTV, targets_BT)

    @torch.no_grad()
    def look(
        self, inputs: Mapping[str, Tensor], function: Callable[[Tensor], Tensor], shape: torch.Size
    ) -> Tensor:
        """`function(logits_BTV)` of a batch, no gradients: float32 of `shape`, on every rank."""
        others = dict(inputs)
        given = others.pop("input_ids")
        if not self.stage.is_first:
            given = torch.empty(*given.shape, self.width, device=self.device)
            dist.recv(given, self.rank - 1)
        out = self.stage(given, **others)
        found = torch.empty(shape, device=self.device)
        if self.stage.is_last:
            found = function(out).float().contiguous()
        else:
            dist.send(out.float().contiguous(), self.rank + 1)
        dist.broadcast(found, self.stages - 1)
        return found

    def told(self, values: list[float]) -> list[float]:
        """The last stage's values, on every rank; all know how many."""
        found = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(found, self.stages - 1)
        return found.tolist()


def stage_held(model: nn.Module) -> set[str]:
    """The names of the weights that this process has."""
    return {name for name, weight in model.named_parameters() if not weight.is_meta}


def held_check(held: list[set[str]], names: list[str]) -> None:
    """Raise RefusedError unless every weight is on one stage, and no stage has all.

    held: by rank. A pipeline of whole models would train on, and save nothing.
    """
    for name in names:
        ranks = [rank for rank, own in enumerate(held) if name in own]
        if len(ranks) != 1:
            raise RefusedError(f"pipeline: {name} is on {len(ranks)} stages: {ranks}")
    for rank, own in enumerate(held):
        if len(held) > 1 and not 0 < len(own) < len(names):
            raise RefusedError(f"pipeline: stage {rank} has {len(own)} of {len(names)} weights")
