"""The updates of a step: passes, minibatches, and the policy that learns."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from alignment.ml.configs import OnlineSettings
from alignment.ml.ppo.networks import optimizer_of
from alignment.ml.ppo.updates import learning_rate_share, minibatches_deal, norm_clip
from modelhub.ml.checkpoint import training_state_load, training_state_save
from modelhub.ml.parallel import ALONE, Processes
from modelhub.ml.rundir import NotFinite

Gradients = Callable[[Sequence[int]], tuple[dict[str, float], int]]


class Learner:
    """The policy with its optimizer, and the reference that it is kept near."""

    def __init__(
        self,
        actor: Any,
        reference: Any | None,
        config: OnlineSettings,
        processes: Processes = ALONE,
    ) -> None:
        """reference: None where it is the actor, its adapter off. Both are prepared for the
        processes already."""
        self.actor, self.reference, self._config = actor, reference, config
        self.processes = processes
        self._optimizer = optimizer_of(actor, config.lr, config)
        self._weights = [one for one in actor.parameters() if one.requires_grad]

    def update(
        self,
        places: Sequence[int],
        gradients: Gradients,
        *,
        step: int,
        iterations: int = 1,
        target_kl: float = 0.0,
    ) -> tuple[dict[str, float], int]:
        """All updates of a step. Returns their mean figures and the tokens computed.

        places: of the prompts to learn from; without any no update is taken, and none of the
        figures is there. gradients: adds those of the prompts' loss to the weights', of the rows
        that are this process's, and returns (figures, tokens) of all. target_kl: a minibatch whose
        policy/approxkl_avg is more ends the step.
        Raises NotFinite before a weight is touched by an update that is not finite.
        """
        config = self._config
        lr = learning_rate_share(step, config) * config.lr
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        found: list[dict[str, float]] = []
        tokens, stopped = 0, False
        for iteration in range(iterations if places else 0):
            for hand in minibatches_deal(
                len(places), parts=config.minibatches, salt=f"{config.seed}:{step}:{iteration}"
            ):
                figures, computed = gradients([places[one] for one in hand])
                tokens += computed
                figures["policy/grad_norm"] = norm_clip(
                    self._weights, config.max_grad_norm, self.processes
                )
                for name, value in figures.items():
                    if not math.isfinite(value):
                        raise NotFinite(f"{name} is {value} at step {step + 1}")
                found.append(figures)
                if 0 < target_kl < figures["policy/approxkl_avg"]:
                    stopped = True
                    break
                self._optimizer.step()
                self._optimizer.zero_grad(set_to_none=True)
            if stopped:
                break
        self._optimizer.zero_grad(set_to_none=True)
        means = {name: fmean(one[name] for one in found) for name in found[0]} if found else {}
        return {**means, "policy/updates": len(found) - stopped, "lr": lr}, tokens

    def save(self, folder: Path, *, values: dict[str, Any]) -> None:
        training_state_save(folder, model=self.actor, optimizer=self._optimizer, values=values)

    def load(self, folder: Path) -> dict[str, Any]:
        return training_state_load(folder, model=self.actor, optimizer=self._optimizer)


RATIO_FIGURES = ("policy/clipfrac_avg", "policy/approxkl_avg", "val/ratio")


def ratio_figures(gap: torch.Tensor, held: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a loss has to say beside itself, a value each of its tokens or answers.

    gap: log π/π_old; held: whether the clip held it back.
    """
    gap = gap.detach()
    return dict(zip(RATIO_FIGURES, (held.float(), 0.5 * gap.square(), gap.exp()), strict=True))
