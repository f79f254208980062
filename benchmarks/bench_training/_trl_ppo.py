"""TRL's last PPOTrainer at work, a step at a time, for `bench_training.ppo` to time ours beside it.

Run by a Python that has TRL 1.12 (`make trl-ppo`) and nothing of this project:

    python _trl_ppo.py SETTINGS.json

It says "ready" and then, for every line it reads, takes one step and writes a JSON line with its
seconds. Between steps it waits, and uses no processor.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer


class Turns(TrainerCallback):
    """Waits for its turn before each step, and times it."""

    def __init__(self, say: Any) -> None:
        self.say = say
        self.started = 0.0

    def wait(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit(0)
        self.started = time.perf_counter()

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.say("ready")
        self.wait()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.say(json.dumps({"seconds": time.perf_counter() - self.started}))
        self.wait()


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    # What the libraries print would be read as an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(settings["threads"])
    policy, reward = settings["policy"], settings["reward"]

    def classifier() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(
            reward, num_labels=1, dtype=torch.float32
        )

    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    tokenizer.pad_token = "<|endoftext|>"  # not drawn as a prompt's token
    episodes = [tokens for prompt in settings["prompts"] for tokens in [prompt] * settings["k"]]
    batch = settings["prompts_per_step"] * settings["k"]
    with tempfile.TemporaryDirectory() as output:
        config = PPOConfig(
            output_dir=output,
            total_episodes=len(episodes),
            per_device_train_batch_size=settings["micro_batch"],
            gradient_accumulation_steps=batch // settings["micro_batch"],
            num_mini_batches=1,
            num_ppo_epochs=settings["ppo_epochs"],
            local_rollout_forward_batch_size=batch,
            response_length=settings["answer_tokens"],
            temperature=1.0,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            num_sample_generations=0,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
        )
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
            ref_model=AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
            reward_model=classifier(),
            value_model=classifier(),
            train_dataset=Dataset.from_dict({"input_ids": episodes}),
            eval_dataset=Dataset.from_dict({"input_ids": episodes[:1]}),
            callbacks=[Turns(lambda line: print(line, file=answers, flush=True))],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


if __name__ == "__main__":
    main()
