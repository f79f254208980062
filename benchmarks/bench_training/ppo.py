"""One PPO step against the last PPOTrainer of TRL (1.12.0): same models, prompts, lengths, machine.

    python -m benchmarks.bench_training.ppo                 a Llama, 256 wide, 6 layers
    python -m benchmarks.bench_training.ppo --trl PYTHON    a Python with TRL 1.12 (make trl-ppo)
    python -m benchmarks.bench_training.ppo --micro-batch 16 --row-tokens 2048   known sizes

One JSON line on standard output. Without such a Python the line says why it was skipped.

What is compared: whole steps, sampling included, in float32 on all cores: four prompts of 96 to 160
tokens, four answers to each of exactly 64 (prompts twice as long as answers; no answer may end
before), four passes over them with one update each (TRL's default), actor, critic, reference and
reward model of the same size. TRL is given each prompt four times, as its trainer has no other way;
it samples by transformers' generate, ours by its engine of transformers, weights refreshed and the
canary asked at every step. TRL updates in the micro-batch that was fastest for it, ours in the row
size that was fastest.

How: TRL works in a process of its own and waits between its steps; its steps and ours take turns,
so that another job on the machine slows both alike. Medians are reported. The first step of each is
not counted.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from alignment.ml.configs import PpoConfig
from alignment.ml.ppo.batch import batch_make
from alignment.ml.ppo.networks import actor_load, critic_load, reference_load
from alignment.ml.ppo.rewards import ModelReward
from alignment.ml.ppo.sampling import Drawing, LaidPrompt
from alignment.ml.ppo.updates import Learner
from benchmarks.byte_tokenizer import byte_tokenizer
from benchmarks.peers import LLAMA_SHAPE
from modelhub.ml.allocator import memory_keep
from modelhub.ml.checkpoint import model_save
from modelhub.ml.configs import GenerateConfig
from modelhub.ml.engines.transformers import TransformersEngine
from modelhub.ml.parallel import ALONE

K, PROMPTS_PER_STEP, PPO_EPOCHS, STEPS = 4, 4, 4, 4  # of the steps the first is not counted
PROMPT_TOKENS, ANSWER_TOKENS = (96, 160), 64
VOCABULARY = 8192
MICRO_BATCHES = (4, 16)
ROW_TOKENS = (512, 1024, 2048)
TRL_PYTHON = Path(".venv-trl-ppo/bin/python")
AIMED_AT = 1.5


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def models_write(folder: Path) -> tuple[Path, Path]:
    """A policy and a reward model with random weights, as directories."""
    shape = LlamaConfig(
        **{**LLAMA_SHAPE, "vocab_size": VOCABULARY},
        max_position_embeddings=1024,
        num_labels=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    for name, kind in (("policy", LlamaForCausalLM), ("reward", LlamaForSequenceClassification)):
        model_save(kind(shape), tokenizer, folder / name, dtype="float32")
    return folder / "policy", folder / "reward"


def prompts_draw() -> list[LaidPrompt]:
    draw = random.Random(0)
    return [
        LaidPrompt(
            prompt_id=f"p{number}",
            messages=({"role": "user", "content": f"prompt {number}"},),
            tokens=tuple(
                draw.randrange(259, VOCABULARY) for _ in range(draw.randint(*PROMPT_TOKENS))
            ),
        )
        for number in range(PROMPTS_PER_STEP * STEPS)
    ]


class Ours:
    """All of our side, and one step at a time."""

    def __init__(self, policy: Path, reward: Path, prompts: list[LaidPrompt]) -> None:
        self.config = PpoConfig(
            engine="transformers",
            samples=K,
            prompts_per_step=PROMPTS_PER_STEP,
            max_tokens=ANSWER_TOKENS,
            ppo_epochs=PPO_EPOCHS,
            minibatches=1,
            max_grad_norm=0.0,
        )
        tokenizer = byte_tokenizer()
        engine = TransformersEngine(
            policy,
            GenerateConfig(max_tokens=ANSWER_TOKENS, dtype="float32"),
            tokenizer=tokenizer,
            stop_ids=(),  # no answer ends before its length
            context_tokens=max(PROMPT_TOKENS) + ANSWER_TOKENS + 1,
        )
        self.drawing = Drawing(policy, tokenizer, prompts, self.config, engine)
        self.reward = ModelReward(reward, self.config)
        self.reference = reference_load(policy).to(ALONE.device)
        self.learner = Learner(
            actor_load(policy, self.config).to(ALONE.device),
            critic_load(reward, policy, self.config).to(ALONE.device),
            self.config,
        )
        self.prompts = prompts
        self.taken = 0

    def budget(self, tokens: int) -> None:
        object.__setattr__(self.config, "budget_tokens", tokens)
        self.reward._budget_tokens = tokens

    def step(self) -> tuple[float, float]:
        """One step. Returns (seconds, seconds of sampling, refresh and canary included)."""
        started = time.perf_counter()
        first = PROMPTS_PER_STEP * (self.taken % STEPS)
        self.drawing.refresh(self.learner.actor, step=self.taken)
        answers = self.drawing.draw(
            self.prompts[first : first + PROMPTS_PER_STEP], samples=K, salt=str(self.taken)
        )
        drawn = time.perf_counter()
        batch, _ = batch_make(
            answers,
            self.reward.scores(answers),
            actor=self.learner.actor,
            critic=self.learner.critic,
            reference=self.reference,
            kl_coef=0.05,
            config=self.config,
        )
        self.learner.update(batch, lambda count: [], step=self.taken)
        self.taken += 1
        assert {len(a) for group in answers.groups for a in group.answers} == {ANSWER_TOKENS}
        return time.perf_counter() - started, drawn - started


class Theirs:
    """TRL's trainer in its own process, waiting for its turns."""

    def __init__(self, python: Path, settings: dict[str, Any], folder: Path) -> None:
        path = folder / f"settings-{settings['micro_batch']}.json"
        path.write_text(json.dumps(settings))
        script = Path(__file__).with_name("_trl_ppo.py")
        self.process = subprocess.Popen(
            [str(python), str(script), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not os.environ.get("BENCH_VERBOSE") else None,
            text=True,
        )
        if self._read() != "ready":
            raise SystemExit("TRL's trainer did not start: run with BENCH_VERBOSE=1")

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def step(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return float(json.loads(self._read())["seconds"])

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def fastest(what: str, sizes: tuple[int, ...], seconds_with: Callable[[int], float]) -> int:
    """The size at which a step is done soonest. One alone is not tried."""
    if len(sizes) == 1:
        return sizes[0]
    found = {size: seconds_with(size) for size in sizes}
    tell(f"    seconds a step by {what}: {found}")
    return min(sizes, key=lambda size: found[size])


def measure(
    python: Path, folder: Path, micro_batches: tuple[int, ...], row_sizes: tuple[int, ...]
) -> dict[str, Any]:
    policy, reward = models_write(folder)
    prompts = prompts_draw()
    settings = {
        "policy": str(policy),
        "reward": str(reward),
        "prompts": [list(prompt.tokens) for prompt in prompts],
        "k": K,
        "prompts_per_step": PROMPTS_PER_STEP,
        "ppo_epochs": PPO_EPOCHS,
        "answer_tokens": ANSWER_TOKENS,
        "threads": torch.get_num_threads(),
    }

    def trl_seconds(micro_batch: int) -> float:
        theirs = Theirs(python, {**settings, "micro_batch": micro_batch}, folder)
        seconds = theirs.step()
        theirs.end()
        return seconds

    def our_seconds_with(tokens: int) -> float:
        ours.budget(tokens)
        return ours.step()[0]

    micro_batch = fastest("TRL's micro-batch", micro_batches, trl_seconds)
    ours = Ours(policy, reward, prompts)
    ours.step()
    row_tokens = fastest("tokens of our rows", row_sizes, our_seconds_with)
    ours.budget(row_tokens)

    theirs = Theirs(python, {**settings, "micro_batch": micro_batch}, folder)
    our_seconds, their_seconds = [], []
    for _ in range(STEPS):
        their_seconds.append(theirs.step())
        our_seconds.append(ours.step())
    theirs.end()
    ours_s, trl_s = median(one for one, _ in our_seconds[1:]), median(their_seconds[1:])
    return {
        "method": "ppo",
        "model": "llama-h256-l6",
        "k": K,
        "prompt_tokens": sum(PROMPT_TOKENS) / 2,
        "answer_tokens": ANSWER_TOKENS,
        "ours_s": round(ours_s, 3),
        "ours_sampling_s": round(median(one for _, one in our_seconds[1:]), 3),
        "trl_s": round(trl_s, 3),
        "ratio": round(trl_s / ours_s, 2),
        "aimed_at": AIMED_AT,
        "trl_micro_batch": micro_batch,
        "ours_row_tokens": row_tokens,
        "steps": STEPS - 1,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trl", type=Path, default=TRL_PYTHON, help="a Python with TRL 1.12")
    parser.add_argument("--micro-batch", type=int, nargs="+", default=MICRO_BATCHES)
    parser.add_argument("--row-tokens", type=int, nargs="+", default=ROW_TOKENS)
    given = parser.parse_args()
    python = given.trl
    if not python.exists():
        skipped = f"{python} is not there: TRL took PPO out in 1.13; `make trl-ppo` installs 1.12"
        print(json.dumps({"method": "ppo", "skipped": skipped}))
        return
    memory_keep()
    with tempfile.TemporaryDirectory() as name:
        line = measure(python, Path(name), tuple(given.micro_batch), tuple(given.row_tokens))
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
