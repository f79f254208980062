"""The run: inputs in, an improved policy out."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from alignment.intervals import bootstrap_mean
from alignment.ml.configs import PpoConfig
from alignment.ml.data import DemonstrationRecord
from alignment.ml.ppo.networks import actor_load, critic_load, policy_publish, reference_load
from alignment.ml.ppo.rewards import Reward, reward_make, vocabulary_check
from alignment.ml.ppo.sampling import Drawing, LaidPrompt, prompts_lay, room_tokens
from alignment.ml.ppo.training import Trained, train
from alignment.ml.ppo.updates import Learner
from alignment.ml.rounding import weights_check, weights_round
from alignment.ml.shared_prefix import Group
from modelhub.ml.allocator import memory_keep
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import model_save, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.records import RecordError, lines_read, records_read
from modelhub.ml.rundir import RunDir, program_run

_LAST_STEPS = 10  # whose means the result gives


def pretraining_load(folder: Path, tokenizer: Any, *, max_tokens: int) -> list[Group]:
    """The examples of PPO-ptx: demonstrations.jsonl, learnt on the answers' tokens, or texts.jsonl
    ({"text"}), learnt on all tokens behind the first and cut at `max_tokens`.

    Demonstrations longer than that are left out. Raises RefusedError if nothing is left.
    """
    groups = []
    if (folder / "demonstrations.jsonl").exists():
        for record in records_read(folder / "demonstrations.jsonl", DemonstrationRecord):
            answer = answer_encode(tokenizer, record.text, record.finish_reason)
            group = Group(prompt_render(tokenizer, record.messages), [answer])
            if answer and group.tokens <= max_tokens:
                groups.append(group)
    else:
        path = folder / "texts.jsonl"
        for number, value in lines_read(path):
            if not isinstance(value, dict) or not isinstance(value.get("text"), str):
                raise RecordError(path.name, number, "text", "wanted a string")
            tokens = tokenizer(value["text"], add_special_tokens=False)["input_ids"][:max_tokens]
            if len(tokens) > 1:
                groups.append(Group(tokens[:1], [tokens[1:]]))
    if not groups:
        raise RefusedError(
            f"pretraining: no example of at most {max_tokens} tokens: there is nothing to mix in"
        )
    return groups


def inputs_check(run: RunDir, config: PpoConfig) -> None:
    """Raise RefusedError for inputs and settings that would silently mean nothing together."""
    if config.ptx_coef and not run.has_input("pretraining"):
        raise RefusedError("ppo.ptx_coef mixes in pretraining examples: give the input pretraining")
    if run.has_input("pretraining") and not config.ptx_coef:
        raise RefusedError("the input pretraining is used with ptx_coef more than 0 alone")
    if config.checker and run.has_input("reward"):
        raise RefusedError("a checker rewards the answers: the input reward would go unread")


def held_out_scores(
    drawing: Drawing, reward: Reward, prompts: Sequence[LaidPrompt], config: PpoConfig
) -> list[list[float]]:
    """Each prompt's answers' scores, before any shaping; the same draws' numbers every time."""
    if not prompts:
        return []
    answers = drawing.draw(prompts, samples=config.evaluation_samples, salt="held-out")
    parts = reward.scores(answers).split([len(group.answers) for group in answers.groups])
    return [part.tolist() for part in parts]


def held_out_report(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], config: PpoConfig
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


def main(run: RunDir) -> None:
    config = run.config(PpoConfig)
    memory_keep()
    inputs_check(run, config)
    base = run.input("base")
    tokenizer = tokenizer_load(base)
    room = room_tokens(base, config)
    prompts = prompts_lay(run.input("prompts") / "prompts.jsonl", tokenizer, room_tokens=room)
    held_out: list[LaidPrompt] = []
    if run.has_input("evaluation_prompts"):
        path = run.input("evaluation_prompts") / "prompts.jsonl"
        held_out = prompts_lay(path, tokenizer, room_tokens=room)
        both = {one.prompt_id for one in prompts} & {one.prompt_id for one in held_out}
        if both:
            raise RefusedError(f"evaluation_prompts: {sorted(both)[0]} is trained on too")
    for role in ("reward", "safety", "reference"):
        if run.has_input(role):
            vocabulary_check(tokenizer, run.input(role), role)
    examples: list[Group] = []
    if config.ptx_coef:
        limit = min(config.max_context_tokens, model_directory_check(base).context_tokens)
        examples = pretraining_load(run.input("pretraining"), tokenizer, max_tokens=limit)
    asked = [*prompts, *held_out]
    reward = reward_make(run, config, [one.prompt_id for one in asked])

    torch.manual_seed(config.seed)
    actor = actor_load(base, config)
    rewarded_by_model = run.has_input("reward")
    critic = critic_load(run.input("reward") if rewarded_by_model else None, base, config)
    reference = None
    if run.has_input("reference"):
        reference = reference_load(run.input("reference"))
    elif not config.lora_rank:
        reference = reference_load(base)
    drawing = Drawing(base, tokenizer, asked, config)
    print(f"{len(prompts)} prompts; engine {drawing.name} {drawing.version}", flush=True)
    learner = Learner(actor, critic, config)

    def evaluate() -> list[list[float]]:
        return held_out_scores(drawing, reward, held_out, config)

    trained = train(
        run,
        learner,
        reference=reference,
        reward=reward,
        drawing=drawing,
        prompts=prompts,
        pretraining=examples,
        evaluate=evaluate,
        config=config,
    )
    learner.average_publish()
    after: list[list[float]] = []
    if held_out:
        drawing.refresh(actor, step=trained.steps + 1)
        after = evaluate()
    report = held_out_report(trained.before, after, config)
    _publish(run, actor, base, tokenizer, config, trained, report)


def _publish(
    run: RunDir,
    actor: Any,
    base: Path,
    tokenizer: Any,
    config: PpoConfig,
    trained: Trained,
    report: dict[str, Any] | None,
) -> None:
    model = policy_publish(actor, base)
    weights_check(model)
    weights_round(model, seed=config.seed)
    folder = run.output("model")
    model_save(model, tokenizer, folder)
    facts = model_directory_check(folder)
    last = {
        name: fmean(values[-_LAST_STEPS:])
        for name, values in trained.history.items()
        if name.startswith(("objective/", "policy/", "loss/", "val/", "canary/"))
    }
    run.succeed(
        outputs={"model": "model"},
        result={
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "dtype": facts.dtype,
            "context_tokens": facts.context_tokens,
            "chat_template": facts.chat_template,
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
        },
    )


if __name__ == "__main__":
    program_run(main)
