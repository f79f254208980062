"""The reward model itself: a policy with a score head, and what is set on it before it is saved."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignment.ml.adapters import adapter_attach, quantised_load
from alignment.ml.configs import RewardConfig
from alignment.ml.conversations import Conversation
from alignment.ml.dropout import dropout_end
from alignment.ml.ensemble import shifts_common
from alignment.ml.shared_prefix import Group, attach
from alignment.ml.shared_prefix.support import base_model
from alignment.ml.vocabulary import session_end_add, token_rows_start
from modelhub.ml.adapter import ModelInput, model_input_load
from modelhub.ml.adapter_directory import adapter_directory_check
from modelhub.ml.chat import (
    end_of_turn_id,
    prompt_render,
    reward_token_add,
    reward_token_id,
    scored_encode,
)
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check


def reward_tokenizer_make(folder: Path, config: RewardConfig) -> Any:
    """The base's tokenizer, with a session's end and a reward token if they are asked for.

    In this order, which gives the session's end the number that fine-tuning gives it.
    """
    tokenizer = tokenizer_load(folder)
    session_end_add(tokenizer, config)
    if config.reward_token:
        reward_token_add(tokenizer)
    return tokenizer


def reward_model_make(given: Path | ModelInput, config: RewardConfig, tokenizer: Any = None) -> Any:
    """The base with a score head, ready for shared rows: float32, dropout off, lower layers frozen.

    A head that is already there (the base is a reward model) is kept. A new one starts from 0, so
    that all answers score the same; several start from small numbers, or they would stay the same.
    tokenizer: wanted where it has tokens that the base has not; their embeddings start as the mean
    of all others.
    With an adapter a PEFT model around it, whose adapter and head alone are trained. Raises
    RefusedError for a base that shared rows cannot serve, one of another number of heads, one with
    fewer layers than are to be frozen, or an adapter that is not a reward model's LoRA.
    """
    torch.manual_seed(config.seed)
    given = given if isinstance(given, ModelInput) else ModelInput(given)
    folder = given.whole
    model, is_new = _scorer_load(given, config)
    heads = model.score.weight.shape[0]
    if heads != config.heads:
        raise RefusedError(f"reward.heads: the base has {heads}, got {config.heads}")
    if is_new:
        _head_start(model.score, config)
    if config.heads > 1:
        model.config.reward_heads = config.heads
        model.config.reward_combine = config.combine
        model.config.reward_uncertainty_weight = config.uncertainty_weight
    if config.reward_token or config.end_of_session:
        token_rows_start(model, tokenizer, known=len(tokenizer_load(folder)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.adapter != "qlora":  # whose 4-bit weights are there already
        model.to(device)
    model = adapter_attach(model, config, role="reward")
    attach(model)
    dropout_end(model)  # a ranking's answers must be judged by one and the same model
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.frozen_layers:
        layers = _layers(model)
        if config.frozen_layers > len(layers):
            raise RefusedError(
                f"reward.frozen_layers: the base has {len(layers)}, got {config.frozen_layers}"
            )
        backbone = getattr(model, model.base_model_prefix)
        frozen = [c for c in backbone.children() if isinstance(c, nn.Embedding)]
        for module in [*frozen, *layers[: config.frozen_layers]]:
            module.requires_grad_(False)
    return model


def _scorer_load(given: ModelInput, config: RewardConfig) -> tuple[Any, bool]:
    """(the model with a score head, whether that is new), before anything is set on it."""
    if given.base is not None:
        facts = adapter_directory_check(given.folder)
        if (facts.role, facts.kind) != ("reward", "lora"):
            raise RefusedError(
                f"the base is a {facts.kind} adapter of a {facts.role} model: a reward model goes "
                "on from a whole model, or from another's LoRA; merge it (program merge_adapter)"
            )
        return model_input_load(given, dtype="float32", role="reward").requires_grad_(), False
    is_new = model_directory_check(given.folder).role != "reward"
    if config.adapter == "qlora":
        if config.heads > 1 or not is_new:
            raise RefusedError(
                "qlora trains a new head, and one: take adapter lora to go on from a reward model, "
                "or for several heads"
            )
        return quantised_load(given.folder, role="reward"), True
    model = model_load(
        given.folder, dtype="float32", role="reward", new_head=True, heads=config.heads
    )
    return model, is_new


def _head_start(head: nn.Linear, config: RewardConfig) -> None:
    if config.heads == 1:
        nn.init.zeros_(head.weight)
    else:
        nn.init.normal_(head.weight, std=0.1 * head.in_features**-0.5)


def _layers(model: Any) -> nn.ModuleList:
    """The decoder's layers, whatever the architecture calls them."""
    backbone = getattr(model, model.base_model_prefix)
    (layers,) = [child for child in backbone.children() if isinstance(child, nn.ModuleList)]
    return layers


def parameter_groups(model: Any, config: RewardConfig) -> list[dict[str, Any]]:
    """What is trained: decay on matrices alone, the head with a rate of its own ("peak")."""
    head = [p for p in base_model(model).score.parameters() if p.requires_grad]
    own = set(head)
    body = [p for p in model.parameters() if p.requires_grad and p not in own]
    matrices = [p for p in body if p.ndim >= 2]
    others = [p for p in body if p.ndim < 2]
    return [
        {"params": matrices, "peak": config.lr, "weight_decay": config.weight_decay},
        {"params": others, "peak": config.lr, "weight_decay": 0.0},
        {"params": head, "peak": config.head_lr or config.lr, "weight_decay": 0.0},
    ]


def padding_set(model: Any, tokenizer: Any) -> None:
    """Name a padding token that is not the end of a turn, for other tools that load the model.

    transformers' own scoring reads the last token that is not padding: where padding and the end
    of a turn are one token, as in SmolLM2, it could not see whether an answer was finished.
    """
    read = (end_of_turn_id(tokenizer), reward_token_id(tokenizer))
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in read:
        others = [i for i in tokenizer.all_special_ids if i not in (*read, tokenizer.bos_token_id)]
        tokenizer.pad_token_id = others[0] if others else None
    model.config.pad_token_id = tokenizer.pad_token_id


def bootstrap_weights(prompt_id: str, config: RewardConfig) -> list[float]:
    """How much each head learns from a prompt: all of one head; of several, twice or not at all.

    Double or nothing, an online bootstrap over prompts (Owen & Eckles 2012, arXiv:1106.2125):
    heads that saw the same would agree about everything they were not shown as well.
    """
    if config.heads == 1:
        return [1.0]
    words = hashlib.sha256(f"{config.seed} {prompt_id}".encode()).digest()
    return [2.0 * (words[head] & 1) for head in range(config.heads)]


def zero_set(model: Any, member_scores: Sequence[Tensor]) -> list[float]:
    """Shift the model's scores so that these answers have mean 0, each head by itself.

    InstructGPT's bias (Ouyang et al. 2022, section 3.5) where the answers are demonstrations. It is
    kept in config.json as `reward_shifts`, for transformers' score head has no bias; other tools
    that load the model read the same scores but for this constant. member_scores: of each group,
    (K, M), with the shifts so far taken off. Returns all that is shifted now, by head.
    """
    settings = base_model(model).config
    before = getattr(settings, "reward_shifts", None) or [0.0] * member_scores[0].shape[1]
    shifts = [old + new for old, new in zip(before, shifts_common(member_scores), strict=True)]
    settings.reward_shifts = shifts
    return shifts


def demonstrations_lay(
    conversations: Iterable[Conversation], tokenizer: Any, *, max_tokens: int
) -> list[Group]:
    """Prompt and answer of each demonstration of the training split that fits.

    Raises RefusedError if none is left.
    """
    laid, read = [], 0
    for one in conversations:
        read += 1
        if one.split != "train" or len(one.messages) != one.written_from + 1:
            continue  # a reward model scores a single answer; of a talk there are several
        prompt_T = prompt_render(tokenizer, one.messages[:-1])
        answer_T = scored_encode(tokenizer, one.messages[-1]["content"], one.finish_reason)
        if len(prompt_T) + len(answer_T) <= max_tokens:
            laid.append(Group(prompt_T, [answer_T]))
    if not laid:
        raise RefusedError(
            f"none of {read} demonstrations is a single answer of the training split with at most "
            f"{max_tokens} tokens: there is nothing whose mean score could become 0"
        )
    return laid
