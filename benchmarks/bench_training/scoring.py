"""Best-of-16 scoring: answers on a shared prompt against every prompt and answer by itself.

    python -m benchmarks.bench_training.scoring

A reward model (Llama, 256 wide, 6 layers; float32) scores 16 answers of 8 prompts: prompts of 192
to 320 tokens, answers of 48 to 80, a quarter of a prompt on average. The baseline is how reward
models are scored everywhere else: transformers' …ForSequenceClassification on prompt + answer,
padded in batches sorted by length, at the batch size that is fastest here. Ours is
`alignment.ml.shared_prefix` at the row length that is fastest. Both take turns; medians of seconds
are compared. The largest difference of two scores, over the largest score, is told as well.
"""

import json
import os
import random
import sys
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from alignment.ml.shared_prefix import Group, answer_scores, attach, pack
from benchmarks.peers import DEVICE, DTYPE, LLAMA_SHAPE, clock, products
from modelhub.ml.allocator import memory_keep

AIMED_AT = 4.0
PROMPTS, ANSWERS, TURNS = 8, 16, 7
PROMPT_TOKENS, ANSWER_TOKENS = (192, 320), (48, 80)
BATCHES, ROWS = (1, 2, 4, 8, 16, 32), (1024, 2048, 4096)
PAD = 0  # never drawn


def groups_draw() -> list[Group]:
    draw = random.Random(0)

    def tokens(bounds: tuple[int, int]) -> list[int]:
        return [draw.randrange(1, 8192) for _ in range(draw.randint(*bounds))]

    return [
        Group(tokens(PROMPT_TOKENS), [tokens(ANSWER_TOKENS) for _ in range(ANSWERS)])
        for _ in range(PROMPTS)
    ]


def model_make() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        **LLAMA_SHAPE, max_position_embeddings=1024, num_labels=1, pad_token_id=PAD
    )
    return LlamaForSequenceClassification(config).eval().to(DEVICE)


@torch.inference_mode()
def scores_one_by_one(model: Any, groups: list[Group], batch: int) -> list[float]:
    """Every prompt + answer in a sequence of its own, `batch` of them at a time."""
    sequences = [group.prompt_T + answer for group in groups for answer in group.answers]
    order = sorted(range(len(sequences)), key=lambda place: len(sequences[place]))
    scores = [0.0] * len(sequences)
    for start in range(0, len(order), batch):
        own = order[start : start + batch]
        longest = len(sequences[own[-1]])
        ids_BT = torch.full((len(own), longest), PAD)
        for row, place in enumerate(own):
            ids_BT[row, : len(sequences[place])] = torch.tensor(sequences[place])
        ids_BT = ids_BT.to(DEVICE)
        with products():
            found_B1 = model(input_ids=ids_BT, attention_mask=(ids_BT != PAD).long()).logits
        for place, score in zip(own, found_B1[:, 0].tolist(), strict=True):
            scores[place] = score
    return scores


@torch.inference_mode()
def scores_shared(model: Any, groups: list[Group], budget_tokens: int) -> list[float]:
    found: list[list[float]] = [[] for _ in groups]
    for row in pack(groups, budget_tokens):
        with products():
            scores = answer_scores(model, row)
        for index, scores_K in zip(row.indices, scores, strict=True):
            found[index] = scores_K.tolist()
    return [score for scores in found for score in scores]


def seconds_of(score: Any, *arguments: Any) -> float:
    started = clock()
    score(*arguments)
    return clock() - started


def fastest(score: Any, model: Any, groups: list[Group], sizes: tuple[int, ...]) -> int:
    """The size at which a fourth of the work is done soonest, behind a first try of each."""
    part = groups[: PROMPTS // 4]
    found = {}
    for size in sizes:
        found[size] = min(seconds_of(score, model, part, size) for _ in range(3))
        print(f"    {score.__name__}, {size}: {found[size]:.2f} s", file=sys.stderr, flush=True)
    return min(found, key=lambda size: found[size])


def main() -> None:
    memory_keep()
    groups = groups_draw()
    theirs, ours = model_make(), model_make()
    attach(ours)
    batch = fastest(scores_one_by_one, theirs, groups, BATCHES)
    row_tokens = fastest(scores_shared, ours, groups, ROWS)
    alone = torch.tensor(scores_one_by_one(theirs, groups, batch))
    shared = torch.tensor(scores_shared(ours, groups, row_tokens))
    times: dict[str, list[float]] = {"theirs": [], "ours": []}
    for _ in range(TURNS):
        times["theirs"].append(seconds_of(scores_one_by_one, theirs, groups, batch))
        times["ours"].append(seconds_of(scores_shared, ours, groups, row_tokens))
    seconds = {side: median(found) for side, found in times.items()}
    line = {
        "method": "scoring",
        "answers": ANSWERS,
        "ours_s": round(seconds["ours"], 3),
        "theirs_s": round(seconds["theirs"], 3),
        "device": DEVICE.type,
        "dtype": DTYPE,
        "their_batch": batch,
        "row_tokens": row_tokens,
        "ratio": round(seconds["theirs"] / seconds["ours"], 2),
        "aimed_at": AIMED_AT,
        "score_difference": float(f"{(alone - shared).abs().max() / alone.abs().max():.1e}"),
        "load_1m": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
