"""All steps of a run: draw, score, estimate, update; checkpoints and tripwires."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from alignment.ml.configs import OnlineSettings, PpoConfig
from alignment.ml.conversations import Lesson
from alignment.ml.data import steps_places
from alignment.ml.ppo.batch import batch_make
from alignment.ml.ppo.choosing import Choosing
from alignment.ml.ppo.losses import AdaptiveKl
from alignment.ml.ppo.pretraining import Pretraining
from alignment.ml.ppo.rewards import Reward, scores_shape
from alignment.ml.ppo.sampling import Drawing, LaidPrompt
from alignment.ml.ppo.updates import Learner
from modelhub.ml.divergence import below_reason, divergence_stop, rise_reason
from modelhub.ml.rundir import NotFinite, RunDir


def steps_plan(prompts: int, config: OnlineSettings) -> list[list[int]]:
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
    pretraining: Sequence[Lesson],
    evaluate: Callable[[], list[list[float]]],
    choosing: Choosing | None,
    config: PpoConfig,
) -> Trained:
    """Take every step, from the newest checkpoint on if there is one.

    evaluate: scores of held-out answers of the policy as the engine has it, asked for once before
    the first step. choosing: scores the policy every so many steps, and keeps the best. Raises
    NotFinite, Diverged or CanaryError, with nothing published.
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
        if choosing:
            choosing.best.restore(done["best"])
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
            processes=learner.processes,
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
        is_last = done["step"] == len(plan)
        if choosing and done["step"] % config.evaluate_every_steps == 0 and not is_last:
            choosing.look(run, done["step"])
        if done["step"] % config.checkpoint_every_steps == 0 and not is_last:
            values = done | ({"best": choosing.best.state()} if choosing else {})
            run.checkpoint_publish(done["step"], partial(learner.save, values=values))
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
