"""A row through a model: its hidden states, its answers' scores, its tokens' log-probabilities."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from alignment.ml.ensemble import members_combine
from alignment.ml.shared_prefix.attention import ALIBI_ATTACHED, IMPLEMENTATION, Pass
from alignment.ml.shared_prefix.rows import Row
from alignment.ml.shared_prefix.support import base_model, length_check
from alignment.ml.shared_prefix.virtual import places_of, virtual_tokens

_LOGPROB_CHUNK_TOKENS = 256


def is_attached(base: PreTrainedModel) -> bool:
    """Whether `attach` has let the model run rows."""
    return base.config._attn_implementation == IMPLEMENTATION or hasattr(base, ALIBI_ATTACHED)


def hidden_states(model: Any, row: Row, read: Sequence[Tensor] | None = None) -> Tensor:
    """The backbone's last hidden states of a row, shape (T, C); the LM head is not run.

    read: for each group the only places of the row that are wanted, few of them, shape (R,) each,
    and in a group's order. Then the states of those alone come back, in the same order, shape
    (sum of R, C), and the last layer does little else than they need.

    With an adapter that has tokens of its own (`virtual`) each prompt is computed behind them.
    """
    base = base_model(model)
    if not is_attached(base):
        raise ValueError("call attach(model) before running rows through it")
    device = base.get_input_embeddings().weight.device
    virtual = virtual_tokens(model)
    if virtual is None:
        length_check(base, row.longest)
        states_TC = _backbone(base, row, read, {"input_ids": row.input_ids().to(device)})
        return states_TC if read is None else states_TC[torch.cat(list(read)).to(device)]
    laid = row.behind(virtual.tokens)
    length_check(base, laid.longest)
    own, others = (places.to(device) for places in places_of(laid, virtual.tokens))
    ids = laid.input_ids().to(device)
    if read is not None:
        read = [others[places.to(device)] for places in read]
    if virtual.embeddings_WC is None:
        prefix = (own, virtual.layers)
        states_TC = _backbone(base, laid, read, {"input_ids": ids}, prefix)
    else:
        embedded = base.get_input_embeddings()(ids)
        repeated = virtual.embeddings_WC.to(embedded.dtype).repeat(len(laid.groups), 1)
        embedded = embedded.index_copy(1, own, repeated[None])
        states_TC = _backbone(base, laid, read, {"inputs_embeds": embedded})
    return states_TC[others] if read is None else states_TC[torch.cat(list(read))]


def _backbone(
    base: PreTrainedModel,
    row: Row,
    read: Sequence[Tensor] | None,
    inputs: dict[str, Tensor],
    virtual: tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]] | None = None,
) -> Tensor:
    device = base.get_input_embeddings().weight.device
    output = getattr(base, base.base_model_prefix)(
        **inputs,
        position_ids=row.position_ids().to(device),
        # Four dimensions are how transformers knows a mask that is not to be touched; without one
        # it would build a T × T mask from the positions.
        attention_mask=torch.empty((1, 1, 0, 0), device=device),
        use_cache=False,
        shared_prefix=Pass(
            row, None if read is None else [x.unique().to(device) for x in read], virtual
        ),
    )
    states_TC: Tensor = output.last_hidden_state[0]
    return states_TC


def answer_scores(model: Any, row: Row) -> list[Tensor]:
    """The reward model's scores, for each group of the row a tensor (K,), float32 or wider.

    A score is read at the answer's last token by its index, never by looking for padding. A model
    of several heads has one score all the same, combined as its configuration says.
    """
    config = base_model(model).config
    how = getattr(config, "reward_combine", "mean")
    weight = getattr(config, "reward_uncertainty_weight", 0.0)
    return [
        members_combine(scores_KM, how, uncertainty_weight=weight)
        for scores_KM in member_scores(model, row)
    ]


def member_scores(model: Any, row: Row) -> list[Tensor]:
    """The scores of each head of the reward model, by group, (K, M); most models have one head.

    From each head's score its shift is taken, which training notes in the model's configuration.
    """
    hidden_SC = hidden_states(model, row, row.score_indices())
    base = base_model(model)
    with torch.autocast(hidden_SC.device.type, enabled=False):
        # bfloat16's eight bits would make ties of answers that are close.
        hidden_SC = hidden_SC.to(next(base.score.parameters()).dtype)
        scores_SM = _at_least_float32(base.score(hidden_SC))
    shifts = getattr(base.config, "reward_shifts", None)
    if shifts:
        scores_SM = scores_SM - scores_SM.new_tensor(shifts)
    return list(scores_SM.split([len(group.answers) for group in row.groups]))


def answer_logprobs(model: Any, row: Row) -> list[list[Tensor]]:
    """log p(token | what is before it) of every answer token, by group and answer, shape (T,).

    Nats, float32 or wider. The LM head runs at answer positions only, a few at a time; with
    gradients, a chunk's logits are computed again in backward rather than kept.
    """
    hidden_TC = hidden_states(model, row)
    head = base_model(model).get_output_embeddings()
    if head is None:
        raise ValueError("the model has no LM head")
    source_S, target_S = (place.to(hidden_TC.device) for place in row.answer_places())
    if not len(target_S):
        flat = _at_least_float32(hidden_TC.new_zeros(0))
    else:
        chunks = [
            _chunk_logprobs(head, hidden_TC[source], target)
            for source, target in zip(
                source_S.split(_LOGPROB_CHUNK_TOKENS),
                target_S.split(_LOGPROB_CHUNK_TOKENS),
                strict=True,
            )
        ]
        flat = torch.cat(chunks)
    parts = iter(flat.split([len(a) for group in row.groups for a in group.answers]))
    return [[next(parts) for _ in group.answers] for group in row.groups]


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _chunk_logprobs(head: nn.Module, hidden_SC: Tensor, target_S: Tensor) -> Tensor:
    def compute(hidden_SC: Tensor, target_S: Tensor) -> Tensor:
        logits_SV = _at_least_float32(head(hidden_SC))
        return -F.cross_entropy(logits_SV, target_S, reduction="none")

    if torch.is_grad_enabled():
        return checkpoint(compute, hidden_SC, target_S, use_reentrant=False)
    return compute(hidden_SC, target_S)
