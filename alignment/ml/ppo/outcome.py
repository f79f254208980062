"""What came of a run: scores of held-out prompts before and after, and the policy published."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from alignment.intervals import bootstrap_mean
from alignment.ml.adapters import adapter_publish
from alignment.ml.configs import OnlineSettings
from alignment.ml.ppo.networks import policy_publish
from alignment.ml.ppo.rewards import Reward
from alignment.ml.ppo.sampling import Drawing, LaidPrompt
from alignment.ml.ppo.training import Trained
from alignment.ml.rounding import weights_check, weights_round
from modelhub.ml.adapter import ModelInput
from modelhub.ml.checkpoint import model_save
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.rundir import RunDir

_LAST_STEPS = 10  # whose means the result gives
_LAST = ("objective/", "policy/", "rewards/", "loss/", "val/", "canary/")


def held_out_scores(
    drawing: Drawing, reward: Reward, prompts: Sequence[LaidPrompt], config: OnlineSettings
) -> list[list[float]]:
    """Each prompt's answers' scores, before any shaping; the same draws' numbers every time."""
    if not prompts:
        return []
    answers = drawing.draw(prompts, samples=config.evaluation_samples, salt="held-out")
    parts = reward.scores(answers).split([len(group.answers) for group in answers.groups])
    return [part.tolist() for part in parts]


def held_out_report(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], config: OnlineSettings
) -> dict[str, Any] | None:
    """Mean scores before and after, and the paired difference with its interval over prompts.

    None for fewer than two prompts, whose spread nothing tells.
    """
    if len(before) < 2:
        return None
    found = bootstrap_mean(
        [fmean(late) - fmean(early) for early, late in zip(before, after, strict=True)],
        samples=config.bootstrap_samples,
        seed=config.seed,
    )
    return {
        "prompts": len(before),
        "answers": sum(map(len, after)),
        "before": fmean(fmean(own) for own in before),
        "after": fmean(fmean(own) for own in after),
        "difference": found.mean,
        "difference_low": found.low,
        "difference_high": found.high,
    }


def outcome_publish(
    run: RunDir,
    actor: Any,
    base: Path,
    tokenizer: Any,
    config: OnlineSettings,
    trained: Trained,
    report: dict[str, Any] | None,
    more: dict[str, Any] | None = None,
) -> None:
    """Write the improved policy, a model or the adapter by itself, and the result. more: of the
    method's own.

    Raises RefusedError if no step was taken: a policy that has not moved would look like a result.
    """
    if not trained.steps:
        raise RefusedError(
            f"no step was taken, so there is nothing to publish: {trained.stopped}; give a "
            "reference nearer to the policy, or a higher kl_limit"
        )
    facts, output = _publish(run, actor, base, tokenizer, config)
    last = {
        name: fmean(values[-_LAST_STEPS:])
        for name, values in trained.history.items()
        if name.startswith(_LAST)
    }
    run.succeed(
        outputs={output: output},
        result={
            **facts,
            "steps": trained.steps,
            "steps_planned": trained.planned,
            "stopped_early": trained.stopped,
            "held_out": report,
            "last_steps": last,
            "kl": trained.history.get("objective/kl", []),
            "scores": trained.history.get("objective/scores", []),
            "losses": trained.history.get("loss/policy_avg", []),
            "tokens": trained.tokens,
            "seconds": trained.seconds,
            **(more or {}),
        },
    )


def _publish(
    run: RunDir, actor: Any, base: Path, tokenizer: Any, config: OnlineSettings
) -> tuple[dict[str, Any], str]:
    """(what the output is, its role)."""
    if config.publish == "adapter":
        return adapter_publish(run, actor, ModelInput(base)), "adapter"
    model = policy_publish(actor, base)
    weights_check(model)
    weights_round(model, seed=config.seed)
    folder = run.output("model")
    model_save(model, tokenizer, folder)
    facts = model_directory_check(folder)
    return {
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "dtype": facts.dtype,
        "context_tokens": facts.context_tokens,
        "chat_template": facts.chat_template,
    }, "model"
