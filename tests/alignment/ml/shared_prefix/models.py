"""Small models of many kinds, and the separate computation that a shared row must equal."""

import copy
import random

import torch
import transformers
from torch.nn import functional as F

from alignment.ml.shared_prefix import Group, attach

VOCABULARY = 61
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "num_labels": 1,
    "pad_token_id": 0,
}


def config_of(name):
    if name == "gpt2":
        return transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=24,
            n_layer=2,
            n_head=4,
            n_positions=128,
            num_labels=1,
            pad_token_id=0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
        )
    if name == "bloom":
        return transformers.BloomConfig(
            vocab_size=VOCABULARY,
            hidden_size=24,
            n_layer=2,
            n_head=3,  # whose slopes are not all powers of one number
            num_labels=1,
            pad_token_id=0,
        )
    extra, cls = {
        "llama": ({"num_key_value_heads": 4}, transformers.LlamaConfig),
        "llama_gqa": ({"num_key_value_heads": 2}, transformers.LlamaConfig),
        "llama_mqa": (
            {"num_key_value_heads": 1, "tie_word_embeddings": True},
            transformers.LlamaConfig,
        ),
        "qwen2": ({"num_key_value_heads": 2}, transformers.Qwen2Config),
        "qwen3": ({"num_key_value_heads": 2, "head_dim": 8}, transformers.Qwen3Config),
        "mixtral": (
            {"num_key_value_heads": 2, "num_local_experts": 4, "sliding_window": None},
            transformers.MixtralConfig,
        ),
        "mistral_window": (
            {"num_key_value_heads": 2, "sliding_window": 80},
            transformers.MistralConfig,
        ),
    }[name]
    return cls(**{**SMALL, **extra})


ARCHITECTURES = [
    "llama",
    "llama_gqa",
    "llama_mqa",
    "qwen2",
    "qwen3",
    "gpt2",
    "bloom",
    "mixtral",
    "mistral_window",
]
_models = {}


def fresh(name, role):
    """(a model that runs rows, the same weights untouched)."""
    if (name, role) not in _models:
        torch.manual_seed(0)
        cls = {
            "reward": transformers.AutoModelForSequenceClassification,
            "causal": transformers.AutoModelForCausalLM,
        }[role]
        plain = cls.from_config(config_of(name)).eval()
        with torch.no_grad():
            for parameter in plain.parameters():  # large enough for attention to matter
                parameter.add_(torch.randn_like(parameter) * 0.1)
        shared = copy.deepcopy(plain)
        attach(shared)
        _models[name, role] = (shared, plain)
    shared, plain = _models[name, role]
    shared.zero_grad()
    plain.zero_grad()
    return shared, plain


def random_groups(seed, sizes):
    """Groups of random tokens; `sizes` is a list of (prompt length, answer lengths)."""
    rng = random.Random(seed)

    def tokens(count):
        return [rng.randrange(1, VOCABULARY) for _ in range(count)]

    return [Group(tokens(p), [tokens(a) for a in answers]) for p, answers in sizes]


def separate_scores(model, group):
    """One answer at a time, no batch, no padding, transformers' own attention."""
    backbone = getattr(model, model.base_model_prefix)
    scores = []
    for answer in group.answers:
        ids = torch.tensor([group.prompt_T + answer])
        hidden_TC = backbone(input_ids=ids, use_cache=False).last_hidden_state[0]
        scores.append(model.score(hidden_TC[-1])[0])
    return torch.stack(scores)


def separate_logprobs(model, group):
    found = []
    for answer in group.answers:
        ids = torch.tensor([group.prompt_T + answer])
        logits_TV = model(input_ids=ids, use_cache=False).logits[0]
        start = len(group.prompt_T) - 1
        logprobs_TV = F.log_softmax(logits_TV[start : start + len(answer)], dim=-1)
        found.append(logprobs_TV.gather(1, torch.tensor(answer).long()[:, None])[:, 0])
    return found


def gradients_of(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def assert_close(found, expected, relative=1e-5):
    """Within `relative` of the size of the whole, and no empty comparison."""
    assert found.shape == expected.shape
    error = (found - expected).norm().detach()
    assert error <= relative * expected.norm() + 1e-12, float(error / expected.norm())
