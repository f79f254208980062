"""All steps of a run: draw, score, update; checkpoints and tripwires; and the run around them."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from alignment.ml.adapters import adapter_machine_check
from alignment.ml.best_step import BestStep
from alignment.ml.configs import OnlineSettings
from alignment.ml.online.batch import Batch, batch_make
from alignment.ml.online.redraw import step_draw
from alignment.ml.online.updates import Learner
from alignment.ml.ppo.choosing import Choosing, prompts_part
from alignment.ml.ppo.inputs import prompts_load, rewards_check
from alignment.ml.ppo.networks import actor_load, reference_load
from alignment.ml.ppo.outcome import held_out_report, held_out_scores, outcome_publish
from alignment.ml.ppo.rewards import Reward, reward_make
from alignment.ml.ppo.sampling import Drawing, LaidPrompt
from alignment.ml.ppo.training import Trained, steps_plan
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.divergence import below_reason, divergence_stop, rise_reason
from modelhub.ml.parallel import processes_start
from modelhub.ml.rundir import NotFinite, RunDir


class Update(Protocol):
    """What a method does with a step's answers: its figures, and the tokens it computed."""

    def __call__(
        self, learner: Learner, batch: Batch, scores_BK: Tensor, *, step: int
    ) -> tuple[dict[str, float], int]: ...


def train(
    run: RunDir,
    learner: Learner,
    *,
    update: Update,
    reward: Reward,
    drawing: Drawing,
    prompts: Sequence[LaidPrompt],
    evaluate: Callable[[], list[list[float]]],
    choosing: Choosing | None,
    config: OnlineSettings,
) -> Trained:
    """Take every step, from the newest checkpoint on if there is one.

    evaluate: scores of held-out answers of the policy as the engine has it, asked for once before
    the first step. choosing: scores the policy every so many steps, and keeps the best. Raises
    NotFinite, Diverged or CanaryError, with nothing published.
    """
    plan = steps_plan(len(prompts), config)
    done: dict[str, Any] = {"step": 0, "history": {}, "tokens": 0, "seconds": 0.0, "before": None}
    found = run.checkpoint_latest()
    if found is not None:
        done = learner.load(found[1])
        if choosing:
            choosing.best.restore(done["best"])
        print(f"resuming behind step {done['step']} of {len(plan)}", flush=True)
    history: dict[str, list[float]] = done["history"]
    stopped = ""
    run.progress(done["step"], len(plan), "steps")
    for step in range(done["step"], len(plan)):
        started = time.perf_counter()
        apart = drawing.refresh(learner.actor, step=step + 1)
        if done["before"] is None:
            done["before"] = evaluate()
            started = time.perf_counter()
        drawn = step_draw(drawing, reward, prompts, plan[step], step=step, config=config)
        if not torch.isfinite(drawn.scores_BK).all():
            raise NotFinite(f"a score is not finite at step {step + 1}")
        batch, figures = batch_make(
            drawn.answers,
            actor=learner.actor,
            reference=learner.reference,
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
        updates, computed = update(
            learner, batch, drawn.scores_BK.to(batch.log_ratios_BK.device), step=step
        )
        seconds = time.perf_counter() - started
        episodes = int(history["episode"][-1]) if step else 0
        figures = {
            **figures,
            **updates,
            **drawn.figures,
            "canary/logprob_difference": apart,
            "episode": episodes + drawn.prompts * config.samples,
        }
        for name, value in figures.items():
            history.setdefault(name, []).append(value)
        clocked = {
            "generated_tokens_per_s": drawn.tokens / drawn.seconds,
            "tokens_per_s": computed / (seconds - drawn.seconds),
        }
        # NaN ends the run here, with the last good checkpoint behind it.
        run.metric(step + 1, {**figures, **clocked})
        divergence_stop(step + 1, *_tripwires(history, config))
        done |= {
            "step": step + 1,
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


def _tripwires(history: dict[str, list[float]], config: OnlineSettings) -> list[str | None]:
    norms = history.get("policy/grad_norm", [])  # a step without an update has none
    entropies = history["policy/entropy_avg"]
    return [
        rise_reason("policy/grad_norm", norms, factor=config.rise_factor, floor=1.0),
        below_reason("policy/entropy_avg", entropies, limit=config.entropy_floor),
    ]


_SHOWN = ("objective/scores", "objective/kl", "objective/equal_prompts", "loss/policy_avg")


def _line(step: int, steps: int, figures: dict[str, float]) -> str:
    shown = "  ".join(f"{name} {figures[name]:.4g}" for name in _SHOWN if name in figures)
    return f"step {step}/{steps}  {shown}"


def online_run(run: RunDir, config: OnlineSettings, update: Update) -> None:
    """The run of a method: inputs in, an improved policy out.

    Raises RefusedError, with nothing published, if no prompt ever had answers of different scores:
    there was nothing to learn from, and a policy that has not moved would look like a result.
    """
    adapter_machine_check(config)
    base = run.input("base")
    tokenizer = tokenizer_load(base)
    rewards_check(run, tokenizer, config)
    prompts, evaluated = prompts_load(run, tokenizer, config)
    choosing_prompts, held_out = prompts_part(evaluated, config)
    asked = [*prompts, *evaluated]
    processes = processes_start()
    reward = reward_make(run, config, [one.prompt_id for one in asked], processes)

    def make() -> Any:
        torch.manual_seed(config.seed)
        return actor_load(base, config)

    actor = make()
    reference = None
    if run.has_input("reference"):
        reference = reference_load(run.input("reference"))
    elif not config.adapter:  # else the policy itself, its adapter off
        reference = reference_load(base)
    for model in (actor, reference):
        if model is not None:
            processes.prepare(model)
            model.to(processes.device)
    drawing = Drawing(base, tokenizer, asked, config, processes=processes)
    print(f"{len(prompts)} prompts; engine {drawing.name} {drawing.version}", flush=True)

    def evaluate() -> list[list[float]]:
        return held_out_scores(drawing, reward, held_out, config)

    choosing = None
    if choosing_prompts:
        choosing = Choosing(
            BestStep(run, [one for one in actor.parameters() if one.requires_grad], processes),
            refresh=lambda step: drawing.refresh(actor, step=step + 1),
            evaluate=lambda: held_out_scores(drawing, reward, choosing_prompts, config),
        )
    trained = train(
        run,
        Learner(actor, reference, config, processes),
        update=update,
        reward=reward,
        drawing=drawing,
        prompts=prompts,
        evaluate=evaluate,
        choosing=choosing,
        config=config,
    )
    if choosing and trained.steps:
        choosing.end(run, trained.steps)
    equal = trained.history.get("objective/equal_prompts", [])
    share = sum(equal) / len(equal) if equal else 0.0
    if equal and share == 1.0:
        raise RefusedError(
            f"none of {len(prompts)} prompts had answers of different scores in {trained.steps} "
            "steps: there was nothing to learn from; take prompts that the policy answers rightly "
            "at times, more samples, or a reward that tells more answers apart"
        )
    if share:
        print(f"{share:.0%} of the prompts drawn had answers of one score each", flush=True)
    after: list[list[float]] = []
    if held_out:
        drawing.refresh(actor, step=trained.steps + 1)
        after = evaluate()
    actor = processes.gather(actor, make)
    if actor is None:
        return  # the first process publishes
    report = held_out_report(trained.before, after, config)
    more = {"equal_prompts_share": share, **(choosing.best.described() if choosing else {})}
    outcome_publish(run, actor, base, tokenizer, config, trained, report, more)
