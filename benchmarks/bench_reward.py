"""The shared prefix against TRL's RewardTrainer: same rankings, same loss, same machine.

    python -m benchmarks.bench_reward              K = 4, 6, 9, then SmolLM2-135M at K = 4
    python -m benchmarks.bench_reward --k 4        that K only
    python -m benchmarks.bench_reward --cpu-time   CPU seconds, where other jobs are running
    python -m benchmarks.bench_reward --k 4 --ours-only 14    our steps alone, for 14 seconds

One JSON line for each K on standard output, a table on standard error.

What is compared: training steps on random-token rankings without ties, four rankings a step (prompt
of 64-192 tokens, answers of 32-160, uniform): forward, backward, AdamW, in float32, without
gradient checkpointing, clipping or logging, on all cores. Ours lays each ranking out once
(`alignment.ml.shared_prefix`) under InstructGPT's loss. TRL is given the C(K,2) pairs of the same
rankings as `chosen_ids` and `rejected_ids`, and takes as many of them in a step as those rankings
have, in its own random order; it is run through `RewardTrainer.train()` with micro-batches of
several sizes and the fastest is taken; ours with rows of several sizes, likewise. A step is what
its loop takes for one, TRL's collation and our packing included. The process
keeps freed memory between steps (`modelhub.ml.allocator`), for both, except where peaks are taken.

How: after that search TRL's steps and ours alternate, one of theirs and as many of ours as about
fill its time, so that another job on the machine slows both alike; medians are reported. Peak
memory is the growth of the resident set at its peak in a forward and backward pass, over what the
process holds with weights, gradients and optimizer state in place; each in a fresh process, TRL's
at its fastest micro-batch. Scores and gradients are compared on the first step, where both have the
same weights and, for once, TRL has the pairs of the same rankings: the scores' largest
difference over their largest value, and the gradient's difference over its size (2-norms), of the
weight where that is worst.
"""

import argparse
import contextlib
import copy
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForSequenceClassification, PrinterCallback
from trl import RewardConfig as TrlRewardConfig
from trl import RewardTrainer

from alignment.ml.losses import better_mask, ranking_loss
from alignment.ml.shared_prefix import Group, answer_scores, attach, pack
from benchmarks.peers import (
    BARE_TRAINER,
    LLAMA_SHAPE,
    PAD,
    Stopwatch,
    smollm2_unpacked,
    tokenizer_make,
)
from modelhub.ml.allocator import memory_keep

STEPS = 7  # of an epoch; the first is not counted, as it allocates
ROW_TOKENS = (512, 1024, 2048)  # a longer ranking has a row to itself
PROMPT_TOKENS = (64, 192)
ANSWER_TOKENS = (32, 160)
LR = 1e-5
clock = time.perf_counter


@dataclass(frozen=True)
class Case:
    """One line of the report."""

    k: int
    model: str  # "llama-h256-l6" or "smollm2-135m"

    @property
    def rankings(self) -> int:
        """Rankings in a step."""
        return 2 if self.model == "smollm2-135m" else 4

    @property
    def pairs(self) -> int:
        return self.rankings * self.k * (self.k - 1) // 2

    @property
    def our_steps_for_one(self) -> int:
        """Steps of ours in a turn: a multiple of an epoch's in all, so that each batch counts."""
        return 2 * (self.k - 1)

    @property
    def micro_batches(self) -> list[int]:
        """Sizes in pairs that divide the step."""
        return [n for n in range(1, 37) if self.pairs % n == 0]


def rankings_draw(case: Case, steps: int = STEPS) -> list[Group]:
    """Random rankings for `steps` steps: a group's answers are in order, best first."""
    draw = random.Random(case.k)
    vocabulary = 8192 if case.model != "smollm2-135m" else 49152

    def tokens(bounds: tuple[int, int]) -> list[int]:
        # Never the padding: TRL's model finds an answer's end by looking for it.
        return [draw.randrange(PAD + 1, vocabulary) for _ in range(draw.randint(*bounds))]

    return [
        Group(tokens(PROMPT_TOKENS), [tokens(ANSWER_TOKENS) for _ in range(case.k)])
        for _ in range(case.rankings * steps)
    ]


def pairs_explode(groups: list[Group]) -> Dataset:
    """TRL's layout: every pair of every ranking, prompt and answer in one list of ids."""
    chosen, rejected = [], []
    for group in groups:
        sequences = [group.prompt_T + answer for answer in group.answers]
        for better in range(len(sequences)):
            for worse in range(better + 1, len(sequences)):
                chosen.append(sequences[better])
                rejected.append(sequences[worse])
    return Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected})


def model_make(case: Case, smollm2: Path | None) -> Any:
    torch.manual_seed(0)
    if case.model == "smollm2-135m":
        from modelhub.ml.checkpoint import model_load

        assert smollm2 is not None
        model = model_load(smollm2, dtype="float32", role="reward", new_head=True)
    else:
        model = LlamaForSequenceClassification(
            LlamaConfig(**LLAMA_SHAPE, max_position_embeddings=1024, num_labels=1)
        )
    model.config.pad_token_id = PAD
    return model


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────


class Ours:
    """A model, its optimizer, and steps on the rankings."""

    def __init__(self, case: Case, smollm2: Path | None, budget_tokens: int) -> None:
        self.model = model_make(case, smollm2)
        attach(self.model)
        self.model.train()
        self.budget_tokens = budget_tokens
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, fused=True)

    def gradients(self, groups: list[Group]) -> list[float]:
        """Add the gradient of the mean ranking loss, and return every answer's score."""
        found: list[list[float]] = [[] for _ in groups]
        for row in pack(groups, self.budget_tokens):
            scores = answer_scores(self.model, row)
            loss = torch.zeros(())
            for index, scores_K in zip(row.indices, scores, strict=True):
                order = [[place] for place in range(len(scores_K))]
                loss = loss + ranking_loss(scores_K, better_mask(order, len(scores_K)))
                found[index] = scores_K.tolist()
            (loss / len(groups)).backward()
        return [score for group in found for score in group]

    def step(self, groups: list[Group]) -> float:
        """One training step. Returns seconds."""
        started = clock()
        self.gradients(groups)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return clock() - started


# ── TRL ──────────────────────────────────────────────────────────────────────────────────────────


def trl_train(
    model: Any, groups: list[Group], *, micro_batch: int, pairs: int, steps: int, watch: Stopwatch
) -> None:
    """`steps` optimizer steps of RewardTrainer, each on `pairs` of the pairs of `groups`."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        settings = TrlRewardConfig(
            output_dir=folder,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=pairs // micro_batch,
            max_steps=steps,
            learning_rate=LR,
            pad_to_multiple_of=None,
            **BARE_TRAINER,
            max_length=None,
        )
        trainer = RewardTrainer(
            model=model,
            args=settings,
            train_dataset=pairs_explode(groups),
            processing_class=tokenizer_make(),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


# ── what is measured ─────────────────────────────────────────────────────────────────────────────


def differences(case: Case, smollm2: Path | None) -> tuple[float, float]:
    """(relative difference of the scores, of the gradients) on the first step."""
    ours = Ours(case, smollm2, budget_tokens=1 << 20)
    groups = rankings_draw(case, steps=1)
    theirs = copy.deepcopy(ours.model)
    theirs.set_attn_implementation("sdpa")
    scores = torch.tensor(ours.gradients(groups))
    with torch.no_grad():
        expected = torch.tensor(
            [
                float(theirs(input_ids=torch.tensor([group.prompt_T + answer])).logits[0, 0])
                for group in groups
                for answer in group.answers
            ]
        )
    score_difference = float((scores - expected).abs().max() / expected.abs().max())
    found: dict[str, torch.Tensor] = {}
    watch = Stopwatch()
    watch.before_update = lambda: found.update(
        {name: p.grad.clone() for name, p in theirs.named_parameters() if p.grad is not None}
    )
    micro_batch = max(n for n in case.micro_batches if n <= 12)
    trl_train(theirs, groups, micro_batch=micro_batch, pairs=case.pairs, steps=1, watch=watch)
    gradient_difference = max(
        float((p.grad - found[name]).norm() / found[name].norm())
        for name, p in ours.model.named_parameters()
    )
    return score_difference, gradient_difference


def trl_fastest(case: Case, smollm2: Path | None) -> int:
    """TRL's best micro-batch, by the faster of two steps; larger ones are tried while they help."""
    model = model_make(case, smollm2)
    groups = rankings_draw(case)
    found: dict[int, float] = {}
    for micro_batch in case.micro_batches:
        watch = Stopwatch()
        trl_train(model, groups, micro_batch=micro_batch, pairs=case.pairs, steps=2, watch=watch)
        found[micro_batch] = min(watch.seconds)
        tell(f"    TRL, micro-batch {micro_batch:2d}: {found[micro_batch]:.2f} s a step")
        if len(found) > 2 and min(list(found.values())[-2:]) > 1.1 * min(found.values()):
            break
    return min(found, key=lambda micro_batch: found[micro_batch])


def ours_fastest(case: Case, smollm2: Path | None) -> int:
    """Our best row size, by the fastest of four steps."""
    ours = Ours(case, smollm2, budget_tokens=1)
    groups = rankings_draw(case, steps=1)
    found = {}
    for budget_tokens in ROW_TOKENS:
        ours.budget_tokens = budget_tokens
        found[budget_tokens] = min(ours.step(groups) for _ in range(4))
        rows = len(pack(groups, budget_tokens))
        tell(f"    ours, rows of {budget_tokens:4d} tokens ({rows}): {found[budget_tokens]:.3f} s")
    return min(found, key=lambda budget: found[budget])


def timings(
    case: Case, smollm2: Path | None, *, micro_batch: int, budget_tokens: int
) -> tuple[list[float], list[float]]:
    """(our seconds, TRL's seconds) for the steps of an epoch, measured in turns."""
    ours = Ours(case, smollm2, budget_tokens)
    theirs = model_make(case, smollm2)
    groups = rankings_draw(case)
    batches = [
        groups[start : start + case.rankings] for start in range(0, len(groups), case.rankings)
    ]
    seconds: list[float] = []

    def between() -> None:
        for _ in range(case.our_steps_for_one):
            seconds.append(ours.step(batches[len(seconds) % len(batches)]))

    watch = Stopwatch(between)
    trl_train(theirs, groups, micro_batch=micro_batch, pairs=case.pairs, steps=STEPS, watch=watch)
    return seconds[case.our_steps_for_one :], watch.seconds[1:]


def peak_mb(case: Case, smollm2: Path | None, *, micro_batch: int, budget_tokens: int) -> float:
    """Growth of the resident set at its peak in a step, in MB. Call in a fresh process.

    micro_batch 0 measures ours.
    """
    ours = Ours(case, smollm2, budget_tokens)
    for parameter in ours.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    ours.optimizer.step()  # allocates its state; what TRL's own optimizer adds is not counted
    ours.optimizer.zero_grad(set_to_none=False)
    gc.collect()
    groups = rankings_draw(case, steps=1)
    if not micro_batch:
        before = resident_mb_restart()
        ours.gradients(groups)
        return resident_mb_peak() - before
    ours.model.set_attn_implementation("sdpa")
    held: list[float] = []
    watch = Stopwatch()
    watch.at_begin = lambda: held.append(resident_mb_restart())
    watch.before_update = lambda: held.append(resident_mb_peak())
    trl_train(ours.model, groups, micro_batch=micro_batch, pairs=case.pairs, steps=1, watch=watch)
    return held[1] - held[0]


def resident_mb_restart() -> float:
    """Forget the peak of the resident set, and return its size, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_mb("VmRSS")


def resident_mb_peak() -> float:
    """The peak of the resident set since the last restart, in MB."""
    return _status_mb("VmHWM")


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(field)


def peak_in_fresh_process(
    case: Case, smollm2: Path | None, micro_batch: int, budget_tokens: int
) -> float:
    command = [sys.executable, "-m", "benchmarks.bench_reward", "--peak"]
    command += [str(case.k), case.model, str(micro_batch), str(budget_tokens), str(smollm2 or "")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def ours_only(case: Case, smollm2: Path | None, seconds: float) -> dict[str, Any]:
    """Our steps alone for so long: to see what the threads' environment does to them."""
    ours = Ours(case, smollm2, budget_tokens=max(ROW_TOKENS))
    groups = rankings_draw(case)
    until = time.perf_counter() + seconds
    found: list[float] = []
    while time.perf_counter() < until:
        start = case.rankings * (len(found) % STEPS)
        found.append(ours.step(groups[start : start + case.rankings]))
    line = {"k": case.k, "model": case.model, "ours_s": round(median(found), 4)}
    return {**line, "steps": len(found), "threads": torch.get_num_threads()}


def case_measure(case: Case, smollm2: Path | None) -> dict[str, Any]:
    """Times and differences of a case, memory aside."""
    tell(f"  K = {case.k}, {case.model}: {case.pairs} pairs a step")
    micro_batch = trl_fastest(case, smollm2)
    budget_tokens = ours_fastest(case, smollm2)
    score_difference, gradient_difference = differences(case, smollm2)
    ours, theirs = timings(case, smollm2, micro_batch=micro_batch, budget_tokens=budget_tokens)
    return {
        "k": case.k,
        "model": case.model,
        "ours_s": round(median(ours), 4),
        "trl_s": round(median(theirs), 4),
        "ratio": round(median(theirs) / median(ours), 2),
        "max_score_diff": float(f"{score_difference:.2e}"),
        "max_grad_diff": float(f"{gradient_difference:.2e}"),
        "trl_micro_batch": micro_batch,
        "ours_row_tokens": budget_tokens,
        "steps": len(ours),
        "threads": torch.get_num_threads(),
        "clock": "cpu" if clock is time.process_time else "wall",
    }


def case_run(case: Case, smollm2: Path | None) -> dict[str, Any]:
    """A case with its memory, as a JSON line too."""
    line = case_measure(case, smollm2)
    micro_batch, budget_tokens = line["trl_micro_batch"], line["ours_row_tokens"]
    line |= {
        "ours_peak_mb": round(peak_in_fresh_process(case, smollm2, 0, budget_tokens), 1),
        "trl_peak_mb": round(peak_in_fresh_process(case, smollm2, micro_batch, budget_tokens), 1),
    }
    print(json.dumps(line), flush=True)
    return line


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(lines: list[dict[str, Any]]) -> str:
    head = (
        f"{'K':>2}  {'model':14}  {'ours s':>8}  {'TRL s':>8}  {'ratio':>6}  {'ours MB':>8}  "
        f"{'TRL MB':>8}  {'scores':>8}  {'grads':>8}"
    )
    rows = [
        f"{one['k']:>2}  {one['model']:14}  {one['ours_s']:8.3f}  {one['trl_s']:8.3f}  "
        f"{one['ratio']:5.1f}×  {one['ours_peak_mb']:8.0f}  {one['trl_peak_mb']:8.0f}  "
        f"{one['max_score_diff']:8.0e}  {one['max_grad_diff']:8.0e}"
        for one in lines
    ]
    return "\n".join([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds, not wall seconds")
    parser.add_argument("--k", type=int, action="append", help="this K only (may be repeated)")
    parser.add_argument("--model", choices=["llama-h256-l6", "smollm2-135m"], help="this one only")
    parser.add_argument("--ours-only", type=float, metavar="SECONDS", help="no TRL, no comparison")
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        k, model, micro_batch, budget, folder = arguments.peak
        print(
            peak_mb(
                Case(int(k), model),
                Path(folder) if folder else None,
                micro_batch=int(micro_batch),
                budget_tokens=int(budget),
            )
        )
        return
    if arguments.cpu_time:
        global clock
        clock = time.process_time
    memory_keep()
    cases = [*(Case(k, "llama-h256-l6") for k in (4, 6, 9)), Case(4, "smollm2-135m")]
    cases = [
        case
        for case in cases
        if (not arguments.k or case.k in arguments.k)
        and (not arguments.model or case.model == arguments.model)
    ]
    with smollm2_unpacked(any(case.model == "smollm2-135m" for case in cases)) as smollm2:
        if arguments.ours_only:
            for case in cases:
                print(json.dumps(ours_only(case, smollm2, arguments.ours_only)), flush=True)
            return
        lines = [case_run(case, smollm2) for case in cases]
    tell("\n" + table(lines))


if __name__ == "__main__":
    main()
