"""One step against the last PPOTrainer that TRL had (`benchmarks/reference_ppo.py` made the files).

Same models, same prompts, same answers; ours computes each prompt once for its two answers, theirs
each answer with its prompt. Figures and all updated weights are compared.
"""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from alignment.ml.configs import PpoConfig
from alignment.ml.ppo.batch import batch_make
from alignment.ml.ppo.rewards import Answers, scores_shape
from alignment.ml.ppo.updates import Learner
from alignment.ml.shared_prefix import Group, answer_scores, attach, pack

pytestmark = pytest.mark.ml

FIXTURES = Path(__file__).parent.parent / "fixtures"
EOS = 1


def model_of(tensors, role):
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        pad_token_id=0,
        num_labels=1,
    )
    kind = LlamaForCausalLM if role in ("policy", "reference") else LlamaForSequenceClassification
    model = kind(config)
    own = {
        name.removeprefix(f"{role}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{role}.")
    }
    model.load_state_dict(own, strict=True)
    attach(model)
    return model.train()


@pytest.mark.parametrize("case", ["plain", "shaped"])
@pytest.mark.parametrize("budget_tokens", [20, 4096], ids=["a prompt a row", "one row"])
def test_a_step_equals_the_last_ppo_trainer_of_trl(case, budget_tokens):
    described = json.loads((FIXTURES / f"ppo_{case}.json").read_text())
    tensors = load_file(FIXTURES / f"ppo_{case}.safetensors")
    theirs, settings = described["figures"], described["settings"]
    config = PpoConfig(
        ppo_epochs=settings["num_ppo_epochs"],
        lr=settings["learning_rate"],
        critic_lr=settings["learning_rate"],
        adam_beta2=settings["adam_beta2"],
        adam_epsilon=settings["adam_epsilon"],
        weight_decay=settings["weight_decay"],
        max_grad_norm=0.0,
        missing_eos_penalty=settings["missing_eos_penalty"] or 0.0,
        whiten_rewards=settings["whiten_rewards"],
        budget_tokens=budget_tokens,
        **{
            name: settings[name]
            for name in ("kl_estimator", "kl_coef", "gamma", "lam", "cliprange", "cliprange_value")
        },
    )
    groups = [
        Group(prompt, answers)
        for prompt, answers in zip(
            tensors["prompts"].tolist(), tensors["answers"].tolist(), strict=True
        )
    ]
    answers = Answers(
        prompt_ids=list("abcd"),
        groups=groups,
        judged=groups,
        texts=[["", ""]] * 4,
        ended=[[answer[-1] == EOS for answer in group.answers] for group in groups],
    )
    policy, reference, reward, value = (
        model_of(tensors, role) for role in ("policy", "reference", "reward", "value")
    )
    with torch.no_grad():
        (row,) = pack(groups, 4096)
        raw_B = torch.cat(answer_scores(reward, row))
    scores_B = scores_shape(raw_B, answers.ended_B, config)
    batch, figures = batch_make(
        answers,
        scores_B,
        actor=policy,
        critic=value,
        reference=reference,
        kl_coef=config.kl_coef,
        config=config,
    )
    learner = Learner(policy, value, config)
    updates, _ = learner.update(batch, lambda count: [], step=0)
    assert updates["policy/updates"] == config.ppo_epochs
    found = {**figures, **updates, "objective/scores": float(scores_B.mean())}
    compared = theirs.keys() - {"val/ratio_var", "policy/entropy_avg"}  # over updates; at the draw
    assert len(compared) == 12
    for name in compared:
        assert found[name] == pytest.approx(theirs[name], rel=2e-5, abs=2e-6), name
    assert theirs["policy/clipfrac_avg"] > 0.1 and theirs["val/clipfrac_avg"] > 0.1
    for role, model in (("policy", policy), ("value", value)):
        for name, weight in model.state_dict().items():
            before, after = tensors[f"{role}.{name}"], tensors[f"after.{role}.{name}"]
            moved = (after - before).norm()
            assert (weight - after).norm() <= 2e-3 * moved, f"{role}.{name}"
