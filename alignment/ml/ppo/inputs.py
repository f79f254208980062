"""The prompts of a run, and the tokenizers that must agree on them."""

from typing import Any

from alignment.ml.configs import OnlineSettings
from alignment.ml.ppo.sampling import LaidPrompt, prompts_lay, room_tokens
from alignment.ml.reader import reader_check
from modelhub.ml.adapter import model_input
from modelhub.ml.configs import RefusedError
from modelhub.ml.rundir import RunDir


def prompts_load(
    run: RunDir, tokenizer: Any, config: OnlineSettings
) -> tuple[list[LaidPrompt], list[LaidPrompt]]:
    """(prompts to train on, held-out ones), in tokens; none is held out without the input
    `evaluation_prompts`. Raises RefusedError for a prompt that is among both, and PromptsError."""
    room = room_tokens(run.input("base"), config)
    prompts = prompts_lay(run.input("prompts") / "prompts.jsonl", tokenizer, room_tokens=room)
    held_out: list[LaidPrompt] = []
    if run.has_input("evaluation_prompts"):
        path = run.input("evaluation_prompts") / "prompts.jsonl"
        held_out = prompts_lay(path, tokenizer, room_tokens=room)
        both = {one.prompt_id for one in prompts} & {one.prompt_id for one in held_out}
        if both:
            raise RefusedError(f"evaluation_prompts: {sorted(both)[0]} is trained on too")
    return prompts, held_out


def rewards_check(run: RunDir, tokenizer: Any, config: OnlineSettings) -> None:
    """Raise RefusedError for a reward that would go unread, or that reads other tokens than the
    policy writes."""
    if config.checker and run.has_input("reward"):
        raise RefusedError("a checker rewards the answers: the input reward would go unread")
    if run.has_input("references") and not config.checker and not run.has_input("safety"):
        raise RefusedError(
            "references are for a checker, or mark risk for a safety reward: name a checker, or "
            "leave the input references out"
        )
    for role in ("reward", "safety", "reference"):
        if run.has_input(role):
            reader_check(tokenizer, model_input(run, role).whole, role)
