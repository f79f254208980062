"""PPO, RLOO, GRPO and online DPO by a checker: the sums marked in GSM8K's answers, a small model.

    python -m benchmarks.sums_reference --method rloo
    python -m benchmarks.sums_reference --method ppo --set lr 5e-5 --evaluate-on validation

A Llama of a million weights, one token a byte, is first fine-tuned on two thirds of the sums that
GSM8K's answers mark ("<<48/2=24>>"), as questions and answers, until it is right at times. Then the
method improves it on sums that the file does not mark, neither way round, drawn to be of the same
form, rewarded by the checker `gsm8k` alone. Of the marked sums that are left, never trained on, the
share of answers that are right is given before and after, and the difference with its 95 % interval
over prompts. With `--evaluate-on drawn` it is that of drawn sums that nothing else uses: prompts
like those the method learns from. Settings are chosen on 500 more, with `--evaluate-on validation`.

The file is read from the folder of shared data (--data, or RONDO_SHARED_DATA; by default
../shared/data). The fine-tuned model is kept for the next method; killed and started again with the
same folder, a run goes on. One JSON line on standard output, on standard error the curve of its
training, means over 25 steps.
"""

import gzip
import json
import os
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from alignment.ml.checkers import REFERENCES_NAME, ReferenceRecord
from alignment.ml.data import DemonstrationRecord
from benchmarks.byte_tokenizer import byte_tokenizer
from benchmarks.ppo_reference import prompts_write
from benchmarks.runs import metrics_table, program_run, reference_parser, settings_read
from modelhub.ml.manifest import MANIFEST_NAME, manifest_write
from modelhub.ml.records import json_canonical, records_write

METHODS = ("ppo", "rloo", "grpo", "online_dpo")
VALIDATION = 500  # drawn sums to choose settings by
FINE_TUNING: dict[str, Any] = {
    "epochs": 40,
    "lr": 2e-3,
    "examples_per_step": 64,
    "budget_tokens": 4096,
    "max_tokens": 64,
    "checkpoint_every_steps": 200,
    "evaluate_every_steps": 0,
    "seed": 0,
}
CONFIG: dict[str, Any] = {
    "engine": "transformers",
    "checker": "gsm8k",
    "epochs": 1,
    "prompts_per_step": 32,
    "samples": 16,
    "max_tokens": 6,
    "lr": 1e-4,
    "evaluation_samples": 16,
    "checkpoint_every_steps": 10,
    "seed": 0,
}
OWN: dict[str, dict[str, Any]] = {
    "ppo": {"critic_lr": 3e-4, "kl_coef": 0.01, "ppo_epochs": 2, "critic_warmup_steps": 2},
    "rloo": {"kl_coef": 0.01, "normalize_advantages": True},
    "grpo": {"equal_groups": "drop"},
    "online_dpo": {"beta": 0.1, "lr": 5e-5},
}
_SUM = re.compile(r"<<(\d{1,2}[-+*/]\d{1,2})=(\d{1,3})>>")
_PARTS = re.compile(r"(\d+)([-+*/])(\d+)")


def sums_read(path: Path, *, seed: int) -> list[tuple[str, str]]:
    """(question, answer) of each sum of two numbers below 100 that the file marks, none twice."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = {one for line in file for one in _SUM.findall(json.loads(line)["answer"])}
    ordered = sorted(found)
    random.Random(seed).shuffle(ordered)
    return ordered


def sums_draw(marked: list[tuple[str, str]], count: int, *, seed: int) -> list[tuple[str, str]]:
    """(question, answer) of `count` sums of the same form that are not marked, none twice.

    A sign and its left number are those of one marked sum, the right number is another's with that
    sign, both drawn by the seed. What has no whole answer from 0 to 999 is drawn again, and so is
    what is marked, or has been drawn, the other way round: 3+4 is no new sum beside 4+3.
    """
    parts = [_parts(question) for question, _ in marked]
    rights = {sign: [right for _, own, right in parts if own == sign] for sign in "+-*/"}
    draw = random.Random(seed)
    seen = {_either_way(*one) for one in parts}
    found: list[tuple[str, str]] = []
    for _ in range(1000 * count):
        if len(found) == count:
            return found
        left, sign, _right = draw.choice(parts)
        right = draw.choice(rights[sign])
        answer, key = _answer(left, sign, right), _either_way(left, sign, right)
        if answer is None or key in seen:
            continue
        seen.add(key)
        found.append((f"{left}{sign}{right}", str(answer)))
    raise SystemExit(
        f"there are only {len(found)} sums to draw, not {count}: ask for fewer prompts"
    )


def _parts(question: str) -> tuple[int, str, int]:
    left, sign, right = _PARTS.fullmatch(question).groups()  # type: ignore[union-attr]
    return int(left), sign, int(right)


def _either_way(left: int, sign: str, right: int) -> tuple[int, str, int]:
    if sign in "+*" and left > right:
        left, right = right, left
    return left, sign, right


def _answer(left: int, sign: str, right: int) -> int | None:
    """None if it is no whole number from 0 to 999."""
    if sign == "/":
        return left // right if right and left % right == 0 else None
    answer = {"+": left + right, "-": left - right, "*": left * right}[sign]
    return answer if 0 <= answer <= 999 else None


def model_write(folder: Path, *, seed: int) -> None:
    """A Llama of a million random weights that knows bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from modelhub.ml.checkpoint import model_save

    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model_save(model, tokenizer, folder, dtype="float32")


def policy_make(folder: Path, sums: list[tuple[str, str]], *, seed: int = 0) -> Path:
    """The policy to start from, fine-tuned on the sums; the folder of its weights.

    The seed is of its random weights and of the order of the sums.
    """
    base = folder / "base"
    if not (base / MANIFEST_NAME).exists():
        model_write(base, seed=seed)
        manifest_write(base)
    demonstrations = folder / "demonstrations"
    demonstrations.mkdir(exist_ok=True)
    records_write(
        demonstrations / "demonstrations.jsonl",
        [
            DemonstrationRecord(
                prompt_id=f"sft-{number}",
                messages=[{"role": "user", "content": question}],
                text=answer,
                finish_reason="stop",
                score=None,
                batch="",
            )
            for number, (question, answer) in enumerate(sums)
        ],
    )
    inputs = {"base": base, "demonstrations": demonstrations}
    program_run(folder / "sft", "sft", FINE_TUNING | {"seed": seed}, inputs)
    return folder / "sft" / "outputs" / "model"


def main() -> None:
    parser = reference_parser(__doc__, "var/sums-reference")
    parser.add_argument("--method", choices=METHODS, default="rloo")
    parser.add_argument("--prompts", type=int, default=4000)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument(
        "--evaluate-on", choices=["held_out", "drawn", "validation"], default="held_out"
    )
    parser.add_argument("--seed", type=int, default=0, help="another start, in another --folder")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("FIELD", "VALUE"))
    given = parser.parse_args()
    config = CONFIG | OWN[given.method]
    config |= settings_read(given.set)
    given.folder.mkdir(parents=True, exist_ok=True)
    marked = sums_read(given.data / "gsm8k_train.jsonl.gz", seed=0)
    used = VALIDATION + given.prompts
    asked = used + (given.held_out if given.evaluate_on == "drawn" else 0)
    drawn = sums_draw(marked, asked, seed=0)
    evaluated = {
        "held_out": marked[: given.held_out],
        "drawn": drawn[used:],
        "validation": drawn[:VALIDATION],
    }
    parts = {
        "evaluation_prompts": evaluated[given.evaluate_on],
        "prompts": drawn[VALIDATION:used],
    }
    policy = policy_make(given.folder, marked[given.held_out :], seed=given.seed)
    inputs = {"base": policy, "references": given.folder / "references"}
    references = []
    for name, own in parts.items():
        inputs[name] = given.folder / name
        prompts_write(inputs[name], [question for question, _ in own], name)
        references += [
            ReferenceRecord(prompt_id=f"{name}-{number}", answer=answer)
            for number, (_, answer) in enumerate(own)
        ]
    inputs["references"].mkdir(exist_ok=True)
    records_write(inputs["references"] / REFERENCES_NAME, references)
    started = time.monotonic()
    run = given.folder / f"{given.method}-{given.evaluate_on}"
    result = program_run(run, given.method, config, inputs)
    curve = ("objective/scores", "objective/kl", "policy/entropy_avg", "objective/response_length")
    print(metrics_table(run, *curve, every=25), file=sys.stderr)
    print(
        json_canonical(
            {
                "method": given.method,
                "prompts": given.prompts,
                "config": config,
                "steps": result["steps"],
                given.evaluate_on: result["held_out"],
                "kl": result["kl"][-1],
                "scores": [round(one, 3) for one in result["scores"]],
                "equal_prompts_share": result.get("equal_prompts_share"),
                "minutes": round((time.monotonic() - started) / 60, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
