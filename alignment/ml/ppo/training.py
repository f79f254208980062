"""One step of PPO, and all of them: draw, score, estimate, update.

Legend: B answers of a step, T tokens of the longest, S tokens of a row's answers.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from alignment.ml.configs import PpoConfig
from alignment.ml.data import steps_places
from alignment.ml.divergence import below_reason, divergence_stop, rise_reason
from alignment.ml.ppo.losses import (
    AdaptiveKl,
    advantages_estimate,
    explained_variance,
    kl_estimates,
    masked_mean,
    policy_losses,
    token_rewards,
    value_losses,
    whiten,
)
from alignment.ml.ppo.networks import (
    autocast,
    optimizer_of,
    reference_logprobs,
    token_logprobs,
    token_values,
)
from alignment.ml.ppo.rewards import Answers, Reward, scores_shape
from alignment.ml.ppo.sampling import Drawing, LaidPrompt
from alignment.ml.shared_prefix import Group, Row, pack
from modelhub.ml.checkpoint import training_state_load, training_state_save
from modelhub.ml.rundir import NotFinite, RunDir

_EMA_NAME = "ema.safetensors"

# ── what a step learns from ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Batch:
    """A step's answers with all that updates need of each token: lists of (T,), one an answer."""

    groups: list[Group]
    logprobs: list[Tensor]  # of the policy that drew them
    values: list[Tensor]
    advantages: list[Tensor]
    returns: list[Tensor]

    def row(self, row: Row, places: Sequence[int], values: Sequence[Tensor]) -> Tensor:
        """Values of the answers in a row, in the row's order, (S,). places: of the row's groups."""
        first = _firsts(self.groups)
        return torch.cat(
            [
                values[first[places[index]] + number]
                for index in row.indices
                for number in range(len(self.groups[places[index]].answers))
            ]
        )


def _firsts(groups: Sequence[Group]) -> list[int]:
    """For each group, how many answers come before its first."""
    firsts, count = [], 0
    for group in groups:
        firsts.append(count)
        count += len(group.answers)
    return firsts


def _by_answer(
    groups: Sequence[Group], rows: Sequence[Row], found: Iterable[Tensor]
) -> list[Tensor]:
    """Flat values of rows, (S,) each, as one (T,) an answer, groups and answers in their order."""
    first = _firsts(groups)
    ordered: list[Tensor] = [torch.empty(0)] * sum(len(group.answers) for group in groups)
    for row, values_S in zip(rows, found, strict=True):
        lengths = [len(answer) for group in row.groups for answer in group.answers]
        parts = iter(values_S.split(lengths))
        for index, group in zip(row.indices, row.groups, strict=True):
            for number in range(len(group.answers)):
                ordered[first[index] + number] = next(parts)
    return ordered


@torch.no_grad()
def batch_make(
    answers: Answers,
    scores_B: Tensor,
    *,
    actor: Any,
    critic: Any,
    reference: Any | None,
    kl_coef: float,
    config: PpoConfig,
) -> tuple[Batch, dict[str, float]]:
    """Log-probabilities, values, rewards and advantages of drawn answers, and the step's figures.

    scores_B: each answer's score as PPO sees it. Raises NotFinite for a figure that is none.
    """
    groups = answers.groups
    rows = pack(groups, config.budget_tokens)
    ours, spread, theirs, worth = [], [], [], []
    for row in rows:
        with autocast(config.dtype):
            logprobs_S, entropy_S = token_logprobs(
                actor, row, temperature=config.temperature, entropy=True
            )
            ours.append(logprobs_S)
            spread.append(entropy_S)
            theirs.append(reference_logprobs(reference, actor, row, config.temperature))
            worth.append(token_values(critic, row))
    logprobs = _by_answer(groups, rows, ours)
    values = _by_answer(groups, rows, worth)
    lengths_B = torch.tensor([len(one) for one in logprobs])
    mask_BT = (torch.arange(int(lengths_B.max())) < lengths_B[:, None]).to(logprobs[0].device)
    logprobs_BT, values_BT, theirs_BT = (
        pad_sequence(one, batch_first=True)
        for one in (logprobs, values, _by_answer(groups, rows, theirs))
    )
    kl_BT = kl_estimates(logprobs_BT, theirs_BT, config.kl_estimator).masked_fill(~mask_BT, 0.0)
    rewards_BT = token_rewards(kl_BT, scores_B.to(kl_BT.device), mask_BT, kl_coef)
    if config.whiten_rewards:
        rewards_BT = whiten(rewards_BT, mask_BT, shift_mean=False)
    advantages_BT, returns_BT = advantages_estimate(
        rewards_BT, values_BT, mask_BT, gamma=config.gamma, lam=config.lam
    )
    white_BT = whiten(advantages_BT, mask_BT)

    def by_answer(values_BT: Tensor) -> list[Tensor]:
        return [own[:length] for own, length in zip(values_BT, lengths_B.tolist(), strict=True)]

    kl_B = kl_BT.sum(1)
    figures = {
        "objective/kl": float(kl_B.mean()),
        "objective/kl_coef": kl_coef,
        "objective/entropy": float(-logprobs_BT.masked_fill(~mask_BT, 0.0).sum(1).mean()),
        "objective/non_score_reward": float(-kl_coef * kl_B.mean()),
        "objective/rlhf_reward": float(scores_B.mean() - kl_coef * kl_B.mean()),
        "objective/response_length": float(lengths_B.float().mean()),
        "policy/entropy_avg": float(torch.cat(spread).mean()),
        "val/mean": float(masked_mean(values_BT, mask_BT)),
        "val/returns": float(masked_mean(returns_BT, mask_BT)),
        "val/explained_variance": explained_variance(values_BT, returns_BT, mask_BT),
        "val/num_eos_tokens": float(answers.ended_B.sum()),
    }
    return (
        Batch(groups, logprobs, values, by_answer(white_BT), by_answer(returns_BT)),
        figures,
    )


# ── updates ──────────────────────────────────────────────────────────────────────────────────────


def minibatches_deal(prompts: int, *, parts: int, salt: str) -> list[list[int]]:
    """The prompts' places dealt out into `parts` hands, as even as can be, in an order of its own.
    Fewer hands where there are fewer prompts."""
    order = list(range(prompts))
    random.Random(salt).shuffle(order)  # noqa: S311 - an order, not a secret
    parts = min(parts, prompts)
    bounds = [prompts * number // parts for number in range(parts + 1)]
    return [order[a:b] for a, b in pairwise(bounds)]


def minibatch_gradients(
    batch: Batch, places: Sequence[int], *, actor: Any, critic: Any, config: PpoConfig
) -> tuple[dict[str, float], int]:
    """Add the gradients of the mean losses over a minibatch's tokens, row by row.

    How groups fall into rows changes nothing but rounding. Returns the minibatch's figures and the
    tokens computed, by one of the two networks.
    """
    groups = [batch.groups[place] for place in places]
    tokens = sum(len(answer) for group in groups for answer in group.answers)
    sums = dict.fromkeys(
        ("loss/policy_avg", "policy/clipfrac_avg", "policy/approxkl_avg", "val/ratio"), 0.0
    )
    sums |= {"loss/value_avg": 0.0, "val/clipfrac_avg": 0.0}
    rows = pack(groups, config.budget_tokens)
    for row in rows:
        old_S = batch.row(row, places, batch.logprobs)
        with autocast(config.dtype):
            logprobs_S, _ = token_logprobs(actor, row, temperature=config.temperature)
        losses_S, held_S = policy_losses(
            logprobs_S,
            old_S,
            batch.row(row, places, batch.advantages),
            cliprange=config.cliprange,
        )
        (losses_S.sum() / tokens).backward()
        with autocast(config.dtype):
            values_S = token_values(critic, row)
        errors_S, near_S = value_losses(
            values_S,
            batch.row(row, places, batch.values),
            batch.row(row, places, batch.returns),
            cliprange_value=config.cliprange_value,
        )
        (errors_S.sum() / tokens).backward()
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
                sums[name] += float(found_S.sum()) / tokens
    return sums, sum(row.tokens for row in rows)


def pretraining_gradients(actor: Any, groups: Sequence[Group], config: PpoConfig) -> float:
    """Add γ times the gradient of the mean loss over the examples' tokens (PPO-ptx).

    Returns that mean, nats a token, without γ.
    """
    tokens = sum(len(answer) for group in groups for answer in group.answers)
    total = 0.0
    for row in pack(groups, config.budget_tokens):
        with autocast(config.dtype):
            loss = -token_logprobs(actor, row)[0].sum() / tokens
        (config.ptx_coef * loss).backward()
        total += float(loss.detach())
    return total


def norm_clip(weights: Sequence[Tensor], limit: float) -> float:
    """The gradient's norm before it is clipped to `limit` (0: not at all)."""
    return float(nn.utils.clip_grad_norm_(weights, limit if limit else math.inf))


def learning_rate_share(step: int, config: PpoConfig) -> float:
    """The share of the rates at step 0, 1, …: from a tenth, in a line, constant behind the warm-up
    (Ouyang et al. 2022, appendix C.4)."""
    if step >= config.warmup_steps:
        return 1.0
    return 0.1 + 0.9 * step / config.warmup_steps


class Learner:
    """Actor and critic with their optimizers, and the actor's average if it is asked for."""

    def __init__(self, actor: Any, critic: Any, config: PpoConfig) -> None:
        self.actor, self.critic, self._config = actor, critic, config
        self.actor_optimizer = optimizer_of(actor, config.lr, config)
        self.critic_optimizer = optimizer_of(critic, config.critic_lr, config)
        self.actor_weights = [one for one in actor.parameters() if one.requires_grad]
        self.critic_weights = [one for one in critic.parameters() if one.requires_grad]
        self._ema = [one.detach().clone() for one in self.actor_weights if config.ema_decay]

    def update(
        self, batch: Batch, examples: Callable[[int], Sequence[Group]], *, step: int
    ) -> tuple[dict[str, float], int]:
        """All updates of a step. Returns their mean figures and the tokens computed.

        examples: as many pretraining examples as it is asked for. Raises NotFinite before a weight
        is touched by an update whose losses or gradients are not finite.
        """
        config = self._config
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
                    batch, places, actor=self.actor, critic=self.critic, config=config
                )
                tokens += computed
                if config.ptx_coef:
                    count = sum(len(batch.groups[place].answers) for place in places)
                    wanted = max(1, round(config.ptx_per_answer * count))
                    figures["loss/ptx_avg"] = pretraining_gradients(
                        self.actor, examples(wanted), config
                    )
                figures["policy/grad_norm"] = norm_clip(self.actor_weights, config.max_grad_norm)
                figures["val/grad_norm"] = norm_clip(self.critic_weights, config.max_grad_norm)
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

    def save(self, folder: Path, *, values: dict[str, Any]) -> None:
        for name, model, optimizer in self._parts():
            (folder / name).mkdir()
            training_state_save(folder / name, model=model, optimizer=optimizer, values=values)
        if self._ema:
            save_file({str(i): one.cpu() for i, one in enumerate(self._ema)}, folder / _EMA_NAME)

    def load(self, folder: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, model, optimizer in self._parts():
            values = training_state_load(folder / name, model=model, optimizer=optimizer)
        if self._ema:
            saved = load_file(folder / _EMA_NAME)
            for place, mean in enumerate(self._ema):
                mean.copy_(saved[str(place)])
        return values

    def _parts(self) -> list[tuple[str, Any, torch.optim.Optimizer]]:
        return [
            ("actor", self.actor, self.actor_optimizer),
            ("critic", self.critic, self.critic_optimizer),
        ]


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


class Pretraining:
    """The examples of PPO-ptx, in an order of their own in every pass over them."""

    def __init__(self, groups: Sequence[Group], *, seed: int, taken: int) -> None:
        self._groups, self._seed = groups, seed
        self.taken = taken

    def take(self, count: int) -> list[Group]:
        found = []
        for number in range(self.taken, self.taken + count):
            epoch, place = divmod(number, len(self._groups))
            order = random.Random(f"{self._seed}:ptx:{epoch}").sample(  # noqa: S311
                range(len(self._groups)), len(self._groups)
            )
            found.append(self._groups[order[place]])
        self.taken += count
        return found


def steps_plan(prompts: int, config: PpoConfig) -> list[list[int]]:
    """The prompts of every step, as places: each epoch takes each prompt once, in its own order."""
    epochs = steps_places(
        [1] * prompts, epochs=config.epochs, per_step=config.prompts_per_step, seed=config.seed
    )
    return [places for steps in epochs for places in steps]


@dataclass(frozen=True)
class Trained:
    """What came of the steps."""

    steps: int
    planned: int
    stopped: str  # why the run ended before its last step; "" if it did not
    history: dict[str, list[float]]  # the figures of every step
    tokens: int
    seconds: float
    before: list[list[float]]  # scores of the evaluation prompts' answers, before the first step


def train(
    run: RunDir,
    learner: Learner,
    *,
    reference: Any | None,
    reward: Reward,
    drawing: Drawing,
    prompts: Sequence[LaidPrompt],
    pretraining: Sequence[Group],
    evaluate: Callable[[], list[list[float]]],
    config: PpoConfig,
) -> Trained:
    """Take every step, from the newest checkpoint on if there is one.

    evaluate: scores of held-out answers of the policy as the engine has it, asked for once before
    the first step. Raises NotFinite, Diverged or CanaryError, with nothing published.
    """
    plan = steps_plan(len(prompts), config)
    done: dict[str, Any] = {
        "step": 0,
        "kl_coef": config.kl_coef,
        "ptx_taken": 0,
        "history": {},
        "tokens": 0,
        "seconds": 0.0,
        "before": None,
    }
    found = run.checkpoint_latest()
    if found is not None:
        done = learner.load(found[1])
        print(f"resuming behind step {done['step']} of {len(plan)}", flush=True)
    examples = Pretraining(pretraining, seed=config.seed, taken=done["ptx_taken"])
    controller = AdaptiveKl(config.kl_target, config.kl_horizon)
    history: dict[str, list[float]] = done["history"]
    stopped = ""
    run.progress(done["step"], len(plan), "steps")
    for step in range(done["step"], len(plan)):
        started = time.perf_counter()
        apart = drawing.refresh(learner.actor, step=step + 1)
        if done["before"] is None:
            done["before"] = evaluate()
            started = time.perf_counter()
        answers = drawing.draw(
            [prompts[place] for place in plan[step]], samples=config.samples, salt=f"step:{step}"
        )
        drawn_at = time.perf_counter()
        raw_B = reward.scores(answers)
        scores_B = scores_shape(raw_B, answers.ended_B, config)
        if not torch.isfinite(scores_B).all():
            raise NotFinite(f"a score is not finite at step {step + 1}")
        batch, figures = batch_make(
            answers,
            scores_B,
            actor=learner.actor,
            critic=learner.critic,
            reference=reference,
            kl_coef=done["kl_coef"],
            config=config,
        )
        kl = figures["objective/kl"]
        if 0 < config.kl_limit < kl:
            stopped = (
                f"KL from the reference was {kl:.3g} nats an answer at step {step + 1}, more than "
                f"kl_limit ({config.kl_limit:g})"
            )
            break
        updates, computed = learner.update(batch, examples.take, step=step)
        seconds = time.perf_counter() - started
        written = sum(len(answer) for group in answers.groups for answer in group.answers)
        figures = {
            "objective/scores": float(raw_B.mean()),
            "objective/scores_std": float(raw_B.std(unbiased=False)),
            **figures,
            **updates,
            **reward.figures,
            "canary/logprob_difference": apart,
            "episode": sum(len(places) for places in plan[: step + 1]) * config.samples,
        }
        for name, value in figures.items():
            history.setdefault(name, []).append(value)
        drawing_s = drawn_at - started
        clocked = {
            "generated_tokens_per_s": written / drawing_s,
            "tokens_per_s": computed / (seconds - drawing_s),
        }
        # NaN ends the run here, with the last good checkpoint behind it.
        run.metric(step + 1, {**figures, **clocked})
        divergence_stop(step + 1, *_tripwires(history, config))
        if config.kl_controller == "adaptive":
            done["kl_coef"] = controller.next(done["kl_coef"], kl, answers.count)
        done |= {
            "step": step + 1,
            "ptx_taken": examples.taken,
            "history": history,
            "tokens": done["tokens"] + computed,
            "seconds": done["seconds"] + seconds,
        }
        if done["step"] % config.checkpoint_every_steps == 0 and done["step"] < len(plan):
            run.checkpoint_publish(done["step"], partial(learner.save, values=done))
        run.progress(done["step"], len(plan), "steps")
        print(_line(step + 1, len(plan), figures), flush=True)
    if stopped:
        print(f"stopped early: {stopped}", flush=True)
    return Trained(
        steps=done["step"],
        planned=len(plan),
        stopped=stopped,
        history=history,
        tokens=done["tokens"],
        seconds=done["seconds"],
        before=done["before"] or [],
    )


def _tripwires(history: dict[str, list[float]], config: PpoConfig) -> list[str | None]:
    rises = [
        rise_reason(name, history[name], factor=config.rise_factor, floor=floor)
        for name, floor in (
            ("loss/value_avg", 0.1),
            ("policy/grad_norm", 1.0),
            ("val/grad_norm", 1.0),
        )
    ]
    entropy = below_reason(
        "policy/entropy_avg", history["policy/entropy_avg"], limit=config.entropy_floor
    )
    return [*rises, entropy]


_SHOWN = ("objective/scores", "objective/kl", "loss/policy_avg", "loss/value_avg")


def _line(step: int, steps: int, figures: dict[str, float]) -> str:
    shown = "  ".join(f"{name} {figures[name]:.4g}" for name in _SHOWN)
    return f"step {step}/{steps}  {shown}"
