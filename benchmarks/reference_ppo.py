"""One step of the last PPOTrainer that TRL had (1.12.0), kept as the reference of our own.

    python benchmarks/reference_ppo.py tests/alignment/ml/fixtures

Run it by a Python that has that TRL, `make trl-ppo` makes one: TRL took PPO out in 1.13. It writes
ppo_CASE.safetensors (the models and answers it began from, the weights it ended with) and
ppo_CASE.json (its settings and figures) for two cases. `tests/alignment/ml/ppo/test_reference.py`
takes the same step from the same files with our code.

What the trainer is given: random Llamas of 5,000 weights (policy, another as the reference, reward
model, another as the critic), four prompts, two answers to each. The answers are fixed beforehand:
the trainer's generation is replaced by them and by the policy's own logits. All have the full
length, because on shorter ones the trainer puts the score on a token of padding (trl issue 3750),
which ours does not. Every update sees the whole batch, so that its shuffle is of no consequence.
Its critic's losses are not scaled down (vf_coef 1), for ours has an optimizer of its own.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

VOCABULARY, PAD, EOS = 32, 0, 1
PROMPTS, SAMPLES, PROMPT_TOKENS, ANSWER_TOKENS = 4, 2, 7, 5
CASES: dict[str, dict[str, Any]] = {
    "plain": {"num_ppo_epochs": 4, "learning_rate": 2e-3},
    "shaped": {
        "num_ppo_epochs": 3,
        "learning_rate": 2e-3,
        "whiten_rewards": True,
        "kl_estimator": "k3",
        "kl_coef": 0.2,
        "missing_eos_penalty": 1.5,
        "gamma": 0.98,
        "lam": 0.9,
        "cliprange": 0.1,
        "cliprange_value": 0.3,
    },
}


def config_make() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        initializer_range=0.3,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
        num_labels=1,
    )


def models_make() -> dict[str, Any]:
    torch.manual_seed(20261129)
    return {
        "policy": LlamaForCausalLM(config_make()),
        "reference": LlamaForCausalLM(config_make()),
        "reward": LlamaForSequenceClassification(config_make()),
        "value": LlamaForSequenceClassification(config_make()),
    }


def tokenizer_make() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": PAD, "<end>": EOS} | {f"t{i}": i for i in range(2, VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t2")),
        pad_token="<pad>",
        eos_token="<end>",
    )


def case_run(name: str, settings: dict[str, Any], folder: Path) -> None:
    import trl
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    found = models_make()
    generator = torch.Generator().manual_seed(7)
    prompts = torch.randint(2, VOCABULARY, (PROMPTS, PROMPT_TOKENS), generator=generator)
    answers = torch.randint(2, VOCABULARY, (PROMPTS, SAMPLES, ANSWER_TOKENS), generator=generator)
    answers[:, 0, -1] = EOS  # the first answer to each prompt ends, the second is cut off
    before = {
        f"{role}.{key}": tensor.detach().clone()
        for role, model in found.items()
        for key, tensor in model.state_dict().items()
    }
    taken = [0] * PROMPTS

    def generation(model: Any, queries: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rows = []
        for query in queries:
            (place,) = [i for i in range(PROMPTS) if torch.equal(prompts[i], query)]
            rows.append(torch.cat([query, answers[place, taken[place]]]))
            taken[place] += 1
        ids = torch.stack(rows)
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        return ids, logits[:, PROMPT_TOKENS - 1 : -1].clone()

    ppo_trainer.batch_generation = generation
    with tempfile.TemporaryDirectory() as output:
        batch = PROMPTS * SAMPLES
        config = PPOConfig(
            output_dir=output,
            total_episodes=batch,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=1,
            num_mini_batches=1,
            local_rollout_forward_batch_size=batch,
            response_length=ANSWER_TOKENS,
            temperature=1.0,
            vf_coef=1.0,
            lr_scheduler_type="constant",
            optim="adamw_torch",
            num_sample_generations=0,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            **settings,
        )
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer_make(),
            model=found["policy"],
            ref_model=found["reference"],
            reward_model=found["reward"],
            value_model=found["value"],
            train_dataset=Dataset.from_dict(
                {"input_ids": prompts.repeat_interleave(SAMPLES, 0).tolist()}
            ),
            eval_dataset=Dataset.from_dict({"input_ids": prompts.tolist()}),
        )
        trainer.train()
    after = {
        f"after.{role}.{key}": tensor.detach().clone()
        for role in ("policy", "value")
        for key, tensor in found[role].state_dict().items()
    }
    save_file(
        {**before, **after, "prompts": prompts, "answers": answers},
        folder / f"ppo_{name}.safetensors",
    )
    figures = {
        key: value
        for entry in trainer.state.log_history
        for key, value in entry.items()
        if key.startswith(("objective/", "policy/", "loss/", "val/"))
    }
    kept = (
        "num_ppo_epochs",
        "learning_rate",
        "whiten_rewards",
        "kl_estimator",
        "kl_coef",
        "missing_eos_penalty",
        "gamma",
        "lam",
        "cliprange",
        "cliprange_value",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "weight_decay",
    )
    described = {
        "trl": trl.__version__,
        "torch": torch.__version__.split("+")[0],
        "settings": {key: getattr(config, key) for key in kept},
        "figures": figures,
    }
    (folder / f"ppo_{name}.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    print(name, json.dumps(figures, indent=2))


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python benchmarks/reference_ppo.py FOLDER")
    torch.set_num_threads(1)
    for name, settings in CASES.items():
        case_run(name, settings, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
