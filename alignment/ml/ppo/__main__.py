"""The run: inputs in, an improved policy out."""

from typing import Any

import torch

from alignment.ml.adapters import adapter_machine_check
from alignment.ml.best_step import BestStep
from alignment.ml.configs import PpoConfig
from alignment.ml.conversations import Lesson
from alignment.ml.ppo.choosing import Choosing, prompts_part
from alignment.ml.ppo.inputs import prompts_load, rewards_check
from alignment.ml.ppo.networks import actor_load, critic_load, reference_load
from alignment.ml.ppo.outcome import held_out_report, held_out_scores, outcome_publish
from alignment.ml.ppo.pretraining import pretraining_load
from alignment.ml.ppo.rewards import reward_make
from alignment.ml.ppo.sampling import Drawing
from alignment.ml.ppo.training import train
from alignment.ml.ppo.updates import Learner
from modelhub.ml.adapter import model_input
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.parallel import processes_start
from modelhub.ml.rundir import RunDir, program_run


def inputs_check(run: RunDir, config: PpoConfig) -> None:
    """Raise RefusedError for inputs and settings that would silently mean nothing together."""
    if config.ptx_coef and not run.has_input("pretraining"):
        raise RefusedError("ppo.ptx_coef mixes in pretraining examples: give the input pretraining")
    if run.has_input("pretraining") and not config.ptx_coef:
        raise RefusedError("the input pretraining is used with ptx_coef more than 0 alone")


def main(run: RunDir) -> None:
    config = run.config(PpoConfig)
    adapter_machine_check(config)
    inputs_check(run, config)
    base = run.input("base")
    tokenizer = tokenizer_load(base)
    rewards_check(run, tokenizer, config)
    prompts, evaluated = prompts_load(run, tokenizer, config)
    choosing_prompts, held_out = prompts_part(evaluated, config)
    examples: list[Lesson] = []
    if config.ptx_coef:
        context_tokens = model_directory_check(base).context_tokens - config.own_tokens
        limit = min(config.max_context_tokens, context_tokens)
        folder = run.input("pretraining")
        examples = pretraining_load(folder, tokenizer, config, max_tokens=limit)
    asked = [*prompts, *evaluated]
    processes = processes_start()
    reward = reward_make(run, config, [one.prompt_id for one in asked], processes)

    def make() -> Any:
        torch.manual_seed(config.seed)
        return actor_load(base, config)

    actor = make()
    rewarded_by_model = run.has_input("reward")
    critic = critic_load(model_input(run, "reward") if rewarded_by_model else None, base, config)
    reference = None
    if run.has_input("reference"):
        reference = reference_load(run.input("reference"))
    elif not config.adapter:  # else the policy itself, its adapter off
        reference = reference_load(base)
    for model in (actor, critic, reference):
        if model is not None:
            processes.prepare(model)
            model.to(processes.device)
    drawing = Drawing(base, tokenizer, asked, config, processes=processes)
    print(f"{len(prompts)} prompts; engine {drawing.name} {drawing.version}", flush=True)
    learner = Learner(actor, critic, config, processes)

    def evaluate() -> list[list[float]]:
        return held_out_scores(drawing, reward, held_out, config)

    choosing = None
    if choosing_prompts:
        choosing = Choosing(
            BestStep(run, learner.actor_weights, processes),
            refresh=lambda step: drawing.refresh(actor, step=step + 1),
            evaluate=lambda: held_out_scores(drawing, reward, choosing_prompts, config),
            swap=learner.average_swap,
        )
    trained = train(
        run,
        learner,
        reference=reference,
        reward=reward,
        drawing=drawing,
        prompts=prompts,
        pretraining=examples,
        evaluate=evaluate,
        choosing=choosing,
        config=config,
    )
    if choosing and trained.steps:
        choosing.end(run, trained.steps)
    else:
        learner.average_publish()
    after: list[list[float]] = []
    if held_out:
        drawing.refresh(actor, step=trained.steps + 1)
        after = evaluate()
    actor = processes.gather(actor, make)
    if actor is None:
        return  # the first process publishes
    report = held_out_report(trained.before, after, config)
    more = choosing.best.described() if choosing else {}
    outcome_publish(run, actor, base, tokenizer, config, trained, report, more)


if __name__ == "__main__":
    program_run(main)
