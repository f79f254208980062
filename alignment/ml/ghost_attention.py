"""Ghost attention: dialogues that keep to an instruction said once, at their beginning.

A policy told "always answer in French" forgets it after a few turns. So it is told at every turn,
and its answers are kept as if it had been told at the first alone:

    sampled   c u1 → a1    c u1 a1 c u2 → a2    c u1 a1 c u2 a2 c u3 → a3
    learnt    c u1 a1 u2 a2 u3 → a3             with loss on a3 alone

c: the instruction, u: the user's turns, a: the policy's. The loss is 0 on all that came before the
last answer, the assistant's words included, because those were written under another prompt than
the one they are now behind (Touvron et al. 2023, arXiv:2307.09288, section 3.3).

The user's turns come from dialogues there are; each takes one of the instructions. The output is
what `alignment.ml.sft` reads, whose default is exactly this loss. A dialogue in which an answer is
cut off or empty, or that outgrows the context, is left out and counted.

Turn by turn, all dialogues at once; a turn that is drawn is kept: killed and started again, the
program goes on with the next, and writes the same bytes.

By hand: `python -m alignment.ml.ghost_attention RUN_DIR`.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.ml.configs import GhostAttentionConfig
from alignment.ml.data import DemonstrationRecord
from modelhub.ml.adapter import ModelInput, model_context, model_input
from modelhub.ml.adapter_directory import adapter_directory_check
from modelhub.ml.chat import prompt_render
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.engines import Engine, Sample, engine_choose
from modelhub.ml.generate import local_engine_load, prompts_read, sample_seed
from modelhub.ml.records import (
    PromptRecord,
    json_canonical,
    json_strict,
    records_write,
)
from modelhub.ml.rundir import RunDir, program_run

_FILE = "answers.json"


@dataclass
class Talk:
    """One dialogue as it grows."""

    id: str
    instruction: str
    system: list[dict[str, str]]  # what stands before the first question
    questions: list[str]
    answers: list[str] = field(default_factory=list)
    left_out: str = ""  # why no more is drawn: "too_long", "unfinished", "empty"

    def asked(self) -> list[dict[str, str]]:
        """What the policy is asked for its next answer: the instruction at every turn."""
        return self._messages(lambda _turn: True)

    def learnt(self) -> list[dict[str, str]]:
        """What comes before the last answer as it will be learnt: the instruction once."""
        return self._messages(lambda turn: turn == 0)

    def _messages(self, told: Any) -> list[dict[str, str]]:
        messages = list(self.system)
        for turn, question in enumerate(self.questions[: len(self.answers) + 1]):
            words = f"{self.instruction}\n\n{question}" if told(turn) else question
            messages.append({"role": "user", "content": words})
            if turn < len(self.answers):
                messages.append({"role": "assistant", "content": self.answers[turn]})
        return messages


def talks_make(prompts: Sequence[PromptRecord], config: GhostAttentionConfig) -> list[Talk]:
    """The dialogues that are long enough, each with its instruction; their answers are not taken.

    Raises RefusedError if there is none.
    """
    talks = []
    for prompt in prompts:
        questions = [one["content"] for one in prompt.messages if one["role"] == "user"]
        first = next(i for i, one in enumerate(prompt.messages) if one["role"] == "user")
        system = [one for one in prompt.messages[:first] if one["role"] == "system"]
        if len(questions) >= config.least_turns:
            digest = hashlib.sha256(json_canonical([config.seed, prompt.prompt_id]).encode())
            place = int.from_bytes(digest.digest()[:8], "big") % len(config.instructions)
            talks.append(Talk(prompt.prompt_id, config.instructions[place], system, questions))
    if not talks:
        raise RefusedError(
            f"none of {len(prompts)} dialogues has {config.least_turns} questions or more: there "
            "is no later turn in which to keep to an instruction"
        )
    return talks


def turn_draw(
    talks: Sequence[Talk],
    turn: int,
    engine: Engine,
    tokenizer: Any,
    config: GhostAttentionConfig,
    *,
    room: int,
) -> None:
    """Draw one turn of every dialogue that has one, and mark those that end here for a reason.

    room: tokens there are for what is asked.
    """
    samples, drawn = [], []
    for talk in talks:
        if talk.left_out or turn >= len(talk.questions):
            continue
        messages = talk.asked()
        tokens = prompt_render(tokenizer, messages)
        if len(tokens) > room:
            talk.left_out = "too_long"
            continue
        drawn.append(talk)
        samples.append(
            Sample(
                prompt_id=talk.id,
                index=turn,
                messages=tuple(messages),
                prompt_tokens=tuple(tokens),
                seed=sample_seed(config.seed, talk.id, turn),
                temperature=config.temperature,
            )
        )
    answers = engine.generate(samples, lambda _done: None) if samples else []
    for talk, answer in zip(drawn, answers, strict=True):
        talk.answers.append(answer.text)
        if answer.finish_reason != "stop":
            talk.left_out = "unfinished"
        elif not answer.text.strip():
            talk.left_out = "empty"


def demonstration_of(talk: Talk, batch: str) -> DemonstrationRecord:
    """A whole dialogue as it is learnt: the instruction in its first turn, its last answer."""
    *earlier, last = talk.answers
    learnt = Talk(talk.id, talk.instruction, talk.system, talk.questions, earlier).learnt()
    return DemonstrationRecord(
        prompt_id=talk.id,
        messages=learnt,
        text=last,
        finish_reason="stop",
        score=None,
        batch=batch,
    )


def engine_named(config: GhostAttentionConfig, given: ModelInput) -> str:
    """The engine to take; "auto" never takes one that does not serve the model."""
    name = engine_choose(config.engine)
    if config.engine == "auto" and given.base is not None:
        return "transformers" if adapter_directory_check(given.folder).virtual_tokens else name
    return name


def main(run: RunDir) -> None:
    config = run.config(GhostAttentionConfig)
    given = model_input(run, "model")
    context_tokens = min(config.max_context_tokens, model_context(given))
    talks = talks_make(prompts_read(run.input("prompts") / "prompts.jsonl"), config)
    tokenizer = tokenizer_load(given.whole)
    turns = max(len(talk.questions) for talk in talks)
    done = 0
    found = run.checkpoint_latest()
    if found is not None:
        done = found[0]
        for talk, (answers, left_out) in zip(
            talks, json_strict((found[1] / _FILE).read_bytes()), strict=True
        ):
            talk.answers, talk.left_out = answers, left_out
        print(f"going on after {done} of {turns} turns", flush=True)
    run.progress(done, turns, "turns")
    engine: Engine | None = None
    for turn in range(done, turns):
        if engine is None:
            name = engine_named(config, given)
            print(f"engine: {name}", flush=True)
            engine = local_engine_load(
                name,
                given,
                config.sampling(),
                tokenizer=tokenizer,
                context_tokens=context_tokens,
            )
        room = context_tokens - config.max_tokens
        turn_draw(talks, turn, engine, tokenizer, config, room=room)
        run.progress(turn + 1, turns, "turns")
        kept = json_canonical([[talk.answers, talk.left_out] for talk in talks])
        run.checkpoint_publish(
            turn + 1, lambda folder, kept=kept: (folder / _FILE).write_text(kept)
        )
    whole = [talk for talk in talks if not talk.left_out]
    left_out = Counter(talk.left_out for talk in talks if talk.left_out)
    if not whole:
        reasons = ", ".join(f"{count} {name}" for name, count in sorted(left_out.items()))
        raise RefusedError(f"none of {len(talks)} dialogues came to its end: {reasons}")
    records_write(
        run.output("demonstrations") / "demonstrations.jsonl",
        (demonstration_of(talk, config.PROGRAM) for talk in whole),
    )
    run.succeed(
        outputs={"demonstrations": "demonstrations"},
        result={
            "dialogues": len(talks),
            "kept": len(whole),
            "turns": sum(len(talk.answers) for talk in whole),
            **{reason: left_out[reason] for reason in ("too_long", "unfinished", "empty")},
        },
    )


if __name__ == "__main__":
    program_run(main)
