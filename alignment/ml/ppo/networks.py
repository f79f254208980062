"""Actor, critic and reference, and what they say of the answer tokens of a row.

Legend: S answer tokens of a row, C width of a hidden state, V vocabulary.
"""

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import peft
import torch
import torch.nn.functional as F
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignment.ml.adapters import adapter_attach, quantised_load
from alignment.ml.configs import OnlineSettings
from alignment.ml.dropout import dropout_end
from alignment.ml.ppo.losses import entropies
from alignment.ml.rounding import stochastic_round
from alignment.ml.shared_prefix import Row, attach, hidden_states
from alignment.ml.shared_prefix.virtual import virtual_tokens
from modelhub.ml.adapter import ModelInput, model_input_load
from modelhub.ml.checkpoint import model_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.optimizers import optimizer_make
from modelhub.ml.parallel import ALONE, Processes, tensor_whole

_CHUNK_TOKENS = 256  # answer tokens whose logits exist at once


def device_choose() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(dtype: str) -> AbstractContextManager[Any]:
    """The context in which products have the asked dtype; weights stay float32."""
    return torch.autocast(device_choose().type, torch.bfloat16, enabled=dtype == "bfloat16")


# ── loading ──────────────────────────────────────────────────────────────────────────────────────
# Onto the CPU: `Processes.prepare` shards a model, and moves it to the device layer by layer.


def actor_load(folder: Path, config: OnlineSettings) -> Any:
    """The policy to improve: every weight, or an adapter around it."""
    if config.adapter == "qlora":
        model = quantised_load(folder)
    else:
        model = model_load(folder, dtype="float32")
    return _ready(adapter_attach(model, config), config)


def reference_load(folder: Path) -> Any:
    """A policy that only answers how likely it finds what others wrote."""
    model = model_load(folder, dtype="float32").requires_grad_(False)
    dropout_end(model)
    attach(model)
    return model


def critic_load(reward: Path | ModelInput | None, base: Path, config: OnlineSettings) -> Any:
    """The model of an answer's worth while it is being written.

    Started from the reward model, head included, so that it knows from its first step what an
    answer is going to be worth (Ouyang et al. 2022, appendix C.4). Its head gets a bias, and starts
    from the reward as PPO sees it, scaled and shifted. Without a reward model (a checker rewards)
    it starts from the policy, and from a value of 0. With an adapter it has one of its own kind.

    Raises RefusedError for a reward model that is virtual tokens in front of a base.
    """
    given = ModelInput(base) if reward is None else reward
    given = given if isinstance(given, ModelInput) else ModelInput(given)
    with torch.random.fork_rng(devices=[]):
        if given.base is None:
            model = model_load(given.folder, dtype="float32", role="reward", new_head=True)
        else:
            model = model_input_load(given, dtype="float32", role="reward")
    if hasattr(model, "peft_config"):
        raise RefusedError(
            "reward: a prefix or P-tuning adapter has no weights that a critic could start from: "
            "take a whole reward model or a LoRA, or a method without a critic (grpo, rloo)"
        )
    model.requires_grad_()
    old = model.score
    head = nn.Linear(old.in_features, 1, bias=True)
    with torch.no_grad():
        if given.base is not None or model_directory_check(given.folder).role == "reward":
            # Of several heads the mean; what training has noted as their shift is taken off.
            head.weight.copy_(old.weight.mean(0, keepdim=True) * config.reward_scale)
            shifts = getattr(model.config, "reward_shifts", None) or [0.0]
            head.bias.fill_(config.reward_shift - config.reward_scale * fmean(shifts))
        else:
            head.weight.zero_()
            head.bias.zero_()
    model.score = head
    return _ready(adapter_attach(model, config, role="reward"), config)


def _ready(model: Any, config: OnlineSettings) -> Any:
    # The ratio of an update to the draw must be 1 where nothing was learnt: no dropout.
    dropout_end(model)
    attach(model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def optimizer_of(model: Any, lr: float, config: OnlineSettings) -> torch.optim.Optimizer:
    """AdamW over what is trained; decay on matrices alone."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return optimizer_make(
        [
            {
                "params": [one for one in weights if one.ndim >= 2],
                "weight_decay": config.weight_decay,
            },
            {"params": [one for one in weights if one.ndim < 2]},
        ],
        kind=config.optimizer,
        lr=lr,
        betas=(0.9, config.adam_beta2),
        eps=config.adam_epsilon,
    )


# ── what they say ────────────────────────────────────────────────────────────────────────────────


def token_logprobs(
    model: Any, row: Row, *, temperature: float = 1.0, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """(log p of each answer token, entropy of its distribution if asked for), (S,), nats, float32.

    Of the distribution at `temperature`, from which the token was drawn. A chunk's logits are
    computed again in backward rather than kept.
    """
    hidden_TC = hidden_states(model, row)
    head = model.get_output_embeddings()
    source_S, target_S = (place.to(hidden_TC.device) for place in row.answer_places())

    def compute(hidden_SC: Tensor, target_S: Tensor) -> tuple[Tensor, Tensor | None]:
        logits_SV = head(hidden_SC).float() / temperature
        spread_S = entropies(logits_SV) if entropy else None
        return -F.cross_entropy(logits_SV, target_S, reduction="none"), spread_S

    found = []
    for source, target in zip(
        source_S.split(_CHUNK_TOKENS), target_S.split(_CHUNK_TOKENS), strict=True
    ):
        if torch.is_grad_enabled():
            found.append(checkpoint(compute, hidden_TC[source], target, use_reentrant=False))
        else:
            found.append(compute(hidden_TC[source], target))
    logprobs_S = torch.cat([logprobs for logprobs, _ in found])
    return logprobs_S, torch.cat([spread for _, spread in found]) if entropy else None


def token_values(critic: Any, row: Row) -> Tensor:
    """The critic's value before each answer token, (S,), float32: token t has V(prompt, y_<t)."""
    hidden_TC = hidden_states(critic, row)
    source_S, _ = row.answer_places()
    head = critic.get_base_model().score if hasattr(critic, "peft_config") else critic.score
    with torch.autocast(hidden_TC.device.type, enabled=False):
        return head(hidden_TC[source_S.to(hidden_TC.device)].float())[:, 0]


@torch.no_grad()
def reference_logprobs(
    reference: Any | None, actor: Any, row: Row, temperature: float, processes: Processes = ALONE
) -> Tensor:
    """The reference's log-probabilities, (S,); without one it is the actor, its adapter off."""
    logprobs = partial(token_logprobs, temperature=temperature)
    if reference is not None:
        return processes.forward(logprobs, reference, row)[0]
    with actor.disable_adapter():
        return processes.forward(logprobs, actor, row)[0]


def virtual_tensors(model: Any) -> tuple[Tensor | None, tuple[tuple[Tensor, Tensor], ...]]:
    """What the policy's adapter puts in front of a prompt: (embeddings (W, C) of P-tuning, keys and
    values by layer of prefix tuning). One of the two is empty. Called as a forward."""
    virtual = virtual_tokens(model)
    if virtual is None:
        return None, ()
    embeddings_WC = virtual.embeddings_WC
    return (
        None if embeddings_WC is None else embeddings_WC.detach().clone(),
        tuple((keys.detach().clone(), values.detach().clone()) for keys, values in virtual.layers),
    )


# ── what others load ─────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def plain_weights(model: Any) -> dict[str, Tensor]:
    """Every tensor of the policy by transformers' name, whole, an adapter merged into copies, 4-bit
    weights as the numbers they stand for.

    Collective where the policy is sharded: every process gets all of it, a layer at a time.
    """
    is_adapted = hasattr(model, "peft_config")
    base = model.get_base_model() if is_adapted else model
    whole: dict[int, Tensor] = {}  # tied weights are one tensor under two names, and stay one
    weights = {}
    for name, tensor in base.state_dict(keep_vars=True).items():
        if not is_adapted or ".lora_" not in name:
            if id(tensor) not in whole:
                whole[id(tensor)] = tensor_whole(tensor.detach())
            weights[name.replace(".base_layer.", ".")] = whole[id(tensor)]
    if is_adapted:
        for name, module in base.named_modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                if getattr(base, "is_loaded_in_4bit", False):
                    packed = [one for one in weights if one.startswith(f"{name}.weight.")]
                    for one in packed:
                        del weights[one]
                    whole_weight = dequantize_module_weight(module.get_base_layer())
                    weights[f"{name}.weight"] = whole_weight.detach().float()
                delta = tensor_whole(module.get_delta_weight("default"))
                weights[f"{name}.weight"] = weights[f"{name}.weight"] + delta
    return weights


def policy_publish(actor: Any, base: Path) -> Any:
    """The improved policy as a plain model on the CPU, every weight of it counted as trained."""
    model = model_load(base, dtype="float32")
    model.load_state_dict(plain_weights(actor))
    return model.requires_grad_()


def rounded_weights(weights: dict[str, Tensor], *, dtype: str, seed: int) -> dict[str, Tensor]:
    """Weights as an engine of `dtype` shall hold them.

    To bfloat16 they are rounded up or down at random: rounded to nearest, a step's small updates
    would not reach the engine, and the answers would come from a policy of some steps ago.
    """
    if dtype == "float32":
        return weights
    generator = torch.Generator().manual_seed(seed)
    done: dict[int, Tensor] = {}  # tied weights are one tensor under two names, and stay equal
    for tensor in weights.values():
        if tensor.dtype == torch.float32 and tensor.data_ptr() not in done:
            done[tensor.data_ptr()] = stochastic_round(tensor, generator)
    return {name: done.get(tensor.data_ptr(), tensor) for name, tensor in weights.items()}
