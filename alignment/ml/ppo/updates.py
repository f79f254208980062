"""The updates of a step: minibatches, their gradients, and the two networks that learn.

Legend: S tokens of a row's answers.
"""

import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignment.ml.configs import OnlineSettings, PpoConfig
from alignment.ml.conversations import Lesson, taught_places
from alignment.ml.ppo.batch import Batch
from alignment.ml.ppo.losses import policy_losses, value_losses
from alignment.ml.ppo.networks import autocast, optimizer_of, token_logprobs, token_values
from alignment.ml.shared_prefix import pack
from modelhub.ml.checkpoint import training_state_load, training_state_save
from modelhub.ml.parallel import ALONE, Processes, tensor_placed, tensor_whole
from modelhub.ml.rundir import NotFinite

_EMA_NAME = "ema.safetensors"


def minibatches_deal(prompts: int, *, parts: int, salt: str) -> list[list[int]]:
    """The prompts' places dealt out into `parts` hands, as even as can be, in an order of its own.
    Fewer hands where there are fewer prompts."""
    order = list(range(prompts))
    random.Random(salt).shuffle(order)  # noqa: S311 - an order, not a secret
    parts = min(parts, prompts)
    bounds = [prompts * number // parts for number in range(parts + 1)]
    return [order[a:b] for a, b in pairwise(bounds)]


def minibatch_gradients(
    batch: Batch,
    places: Sequence[int],
    *,
    actor: Any,
    critic: Any,
    config: PpoConfig,
    processes: Processes = ALONE,
) -> tuple[dict[str, float], int]:
    """Add the gradients of the mean losses over a minibatch's tokens, row by row.

    How groups fall into rows, and rows to processes, changes nothing but rounding. Returns the
    minibatch's figures and the tokens computed, by one of the two networks.
    """
    groups = [batch.groups[place] for place in places]
    tokens = sum(len(answer) for group in groups for answer in group.answers)
    sums = dict.fromkeys(
        ("loss/policy_avg", "policy/clipfrac_avg", "policy/approxkl_avg", "val/ratio"), 0.0
    )
    sums |= {"loss/value_avg": 0.0, "val/clipfrac_avg": 0.0}
    logprobs_of = partial(token_logprobs, temperature=config.temperature)
    whole = sum(group.tokens for group in groups)
    rows = pack(groups, processes.budget_tokens(config.budget_tokens, whole))
    for row, weight in processes.share(rows, cost=lambda row: row.tokens):
        old_S = batch.row(row, places, batch.logprobs)
        with autocast(config.dtype):
            logprobs_S, _ = processes.forward(logprobs_of, actor, row)
        losses_S, held_S = policy_losses(
            logprobs_S,
            old_S,
            batch.row(row, places, batch.advantages),
            cliprange=config.cliprange,
        )
        (weight * losses_S.sum() / tokens).backward()
        with autocast(config.dtype):
            values_S = processes.forward(token_values, critic, row)
        errors_S, near_S = value_losses(
            values_S,
            batch.row(row, places, batch.values),
            batch.row(row, places, batch.returns),
            cliprange_value=config.cliprange_value,
        )
        (weight * errors_S.sum() / tokens).backward()
        with torch.no_grad():
            gap_S = logprobs_S - old_S
            for name, found_S in (
                ("loss/policy_avg", losses_S),
                ("policy/clipfrac_avg", held_S.float()),
                ("policy/approxkl_avg", 0.5 * gap_S.square()),
                ("val/ratio", gap_S.exp()),
                ("loss/value_avg", errors_S),
                ("val/clipfrac_avg", near_S.float()),
            ):
                sums[name] += weight * float(found_S.sum()) / tokens
    return processes.sum(sums), whole


def pretraining_gradients(
    actor: Any, examples: Sequence[Lesson], config: PpoConfig, processes: Processes = ALONE
) -> float:
    """Add γ times the gradient of the mean loss over the examples' taught tokens (PPO-ptx).

    Returns that mean, nats a token, without γ.
    """
    groups = [one.group for one in examples]
    tokens = sum(one.taught_tokens for one in examples)
    total = 0.0
    whole = sum(group.tokens for group in groups)
    rows = pack(groups, processes.budget_tokens(config.budget_tokens, whole))
    for row, weight in processes.share(rows, cost=lambda row: row.tokens):
        taught_S = torch.tensor(taught_places([examples[index] for index in row.indices]))
        with autocast(config.dtype):
            logprobs_S = processes.forward(token_logprobs, actor, row)[0]
            loss = -logprobs_S[taught_S.to(logprobs_S.device)].sum() / tokens
        (weight * config.ptx_coef * loss).backward()
        total += weight * float(loss.detach())
    return processes.sum({"loss": total})["loss"]


def norm_clip(weights: Sequence[Tensor], limit: float, processes: Processes = ALONE) -> float:
    """Sum the gradients over the processes and clip them; the norm before.

    limit: of the norm; 0 clips nothing.
    """
    processes.gradients_sum(weights)
    return float(processes.gradients_clip(weights, limit if limit else math.inf))


def learning_rate_share(step: int, config: OnlineSettings) -> float:
    """The share of the rates at step 0, 1, …: from a tenth, in a line, constant behind the warm-up
    (Ouyang et al. 2022, appendix C.4)."""
    if step >= config.warmup_steps:
        return 1.0
    return 0.1 + 0.9 * step / config.warmup_steps


class Learner:
    """Actor and critic with their optimizers, and the actor's average if it is asked for."""

    def __init__(
        self, actor: Any, critic: Any, config: PpoConfig, processes: Processes = ALONE
    ) -> None:
        """Both are prepared for the processes already."""
        self.actor, self.critic, self._config = actor, critic, config
        self.processes = processes
        self.actor_optimizer = optimizer_of(actor, config.lr, config)
        self.critic_optimizer = optimizer_of(critic, config.critic_lr, config)
        self.actor_weights = [one for one in actor.parameters() if one.requires_grad]
        self.critic_weights = [one for one in critic.parameters() if one.requires_grad]
        self._ema = [one.detach().clone() for one in self.actor_weights if config.ema_decay]

    def update(
        self, batch: Batch, examples: Callable[[int], Sequence[Lesson]], *, step: int
    ) -> tuple[dict[str, float], int]:
        """All updates of a step. Returns their mean figures and the tokens computed.

        examples: as many pretraining examples as it is asked for. Raises NotFinite before a weight
        is touched by an update whose losses or gradients are not finite.
        """
        config, processes = self._config, self.processes
        share = learning_rate_share(step, config)
        for optimizer, lr in (
            (self.actor_optimizer, config.lr),
            (self.critic_optimizer, config.critic_lr),
        ):
            for group in optimizer.param_groups:
                group["lr"] = share * lr
        found: list[dict[str, float]] = []
        tokens, stopped = 0, False
        for epoch in range(config.ppo_epochs):
            for places in minibatches_deal(
                len(batch.groups),
                parts=config.minibatches,
                salt=f"{config.seed}:{step}:{epoch}",
            ):
                figures, computed = minibatch_gradients(
                    batch,
                    places,
                    actor=self.actor,
                    critic=self.critic,
                    config=config,
                    processes=processes,
                )
                tokens += computed
                if config.ptx_coef:
                    count = sum(len(batch.groups[place].answers) for place in places)
                    wanted = max(1, round(config.ptx_per_answer * count))
                    figures["loss/ptx_avg"] = pretraining_gradients(
                        self.actor, examples(wanted), config, processes
                    )
                for name, weights in (
                    ("policy/grad_norm", self.actor_weights),
                    ("val/grad_norm", self.critic_weights),
                ):
                    figures[name] = norm_clip(weights, config.max_grad_norm, processes)
                for name, value in figures.items():
                    if not math.isfinite(value):
                        raise NotFinite(f"{name} is {value} at step {step + 1}")
                found.append(figures)
                if 0 < config.target_kl < figures["policy/approxkl_avg"]:
                    stopped = True
                    break
                self._step(step)
            if stopped:
                break
        self.actor_optimizer.zero_grad(set_to_none=True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        means = {name: fmean(one[name] for one in found) for name in found[0]}
        done = len(found) - stopped
        return {**means, "policy/updates": done, "lr": share * config.lr}, tokens

    def _step(self, step: int) -> None:
        if step >= self._config.critic_warmup_steps:
            self.actor_optimizer.step()
        self.critic_optimizer.step()
        self.actor_optimizer.zero_grad(set_to_none=True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        if self._ema:
            with torch.no_grad():
                for mean, weight in zip(self._ema, self.actor_weights, strict=True):
                    mean.lerp_(weight, 1.0 - self._config.ema_decay)

    @torch.no_grad()
    def average_publish(self) -> None:
        """Give the actor its average, where one is kept (Ouyang et al. 2022, appendix C.4)."""
        if self._ema:
            for mean, weight in zip(self._ema, self.actor_weights, strict=True):
                weight.copy_(mean)

    @torch.no_grad()
    def average_swap(self) -> None:
        """Exchange the actor's weights and their average, where one is kept."""
        if self._ema:
            for mean, weight in zip(self._ema, self.actor_weights, strict=True):
                held = weight.clone()
                weight.copy_(mean)
                mean.copy_(held)

    def save(self, folder: Path, *, values: dict[str, Any]) -> None:
        for name, model, optimizer in self._parts():
            (folder / name).mkdir()
            training_state_save(folder / name, model=model, optimizer=optimizer, values=values)
        if self._ema:
            whole = {str(i): tensor_whole(one).cpu() for i, one in enumerate(self._ema)}
            save_file(whole, folder / _EMA_NAME)

    def load(self, folder: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, model, optimizer in self._parts():
            values = training_state_load(folder / name, model=model, optimizer=optimizer)
        if self._ema:
            saved = load_file(folder / _EMA_NAME)
            for place, mean in enumerate(self._ema):
                mean.copy_(tensor_placed(saved[str(place)], mean))
        return values

    def _parts(self) -> list[tuple[str, Any, torch.optim.Optimizer]]:
        return [
            ("actor", self.actor, self.actor_optimizer),
            ("critic", self.critic, self.critic_optimizer),
        ]
