"""Puts the shared row's attention into a model, and tries it before anybody relies on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from alignment.ml.shared_prefix.alibi import alibi_attach
from alignment.ml.shared_prefix.attention import IMPLEMENTATION
from alignment.ml.shared_prefix.forward import hidden_states, is_attached
from alignment.ml.shared_prefix.last_layer import LastLayer
from alignment.ml.shared_prefix.rows import Group, Row, pack
from alignment.ml.shared_prefix.support import (
    UnsupportedModelError,
    base_model,
    configuration_check,
)
from modelhub.ml.alibi import has_alibi

_PROBE_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative; of halves, see below
_PROBE_TOLERANCE_HALF = 0.1
_NUDGE = 1e-6  # relative


def attach(model: Any) -> None:
    """Let `model`, a transformers decoder or a PEFT model around one, run shared rows.

    The model works as before for everybody else. Raises UnsupportedModelError where rows would not
    be exact: known cases by their configuration, all others by a short forward on which the shared
    row is compared with the separate computation.
    """
    base = base_model(model)
    configuration_check(base)
    if is_attached(base):
        return
    before = base.config._attn_implementation
    if has_alibi(base):
        alibi_attach(base)  # it takes no attention function from outside
    else:
        base.set_attn_implementation(IMPLEMENTATION)
    last_layer = LastLayer(base)
    try:
        _probe(base)
        if not _probe_read(base):
            last_layer.release()
    except Exception:
        last_layer.release()
        if not has_alibi(base):
            base.set_attn_implementation(before)
        raise


@torch.no_grad()
def _probe(base: PreTrainedModel) -> None:
    """Compare a small shared row with the separate computation; raise UnsupportedModelError."""
    row = _probe_row(base)
    with _evaluating(base):
        hidden_TC = hidden_states(base, row)
        backbone = getattr(base, base.base_model_prefix)
        head = base.get_output_embeddings()
        tolerance = _PROBE_TOLERANCE.get(hidden_TC.dtype, _PROBE_TOLERANCE_HALF)
        for group, span in zip(row.groups, row.spans, strict=True):
            for answer, (start, stop) in zip(group.answers, span.answer_bounds(), strict=True):
                ids = torch.tensor([group.prompt_T + answer], device=hidden_TC.device)
                alone_TC = backbone(input_ids=ids, use_cache=False).last_hidden_state[0]
                expected = alone_TC[len(group.prompt_T) :].float()
                if not expected.isfinite().all():
                    raise UnsupportedModelError(
                        f"{type(base).__name__}: hidden states are NaN or infinite"
                    )
                error = (hidden_TC[start:stop].float() - expected).norm() / expected.norm()
                if not error <= tolerance and not error <= _own_rounding(backbone, ids):
                    raise UnsupportedModelError(
                        f"{type(base).__name__}: hidden states on a shared row are off by "
                        f"{float(error):.1e} of their size, so its scores would be wrong"
                    )
        if head is not None:
            last = alone_TC[-1:]
            logits_V = base(input_ids=ids, use_cache=False).logits[0, -1].float()
            plain_V = head(last)[0].float()
            error = (plain_V - logits_V).norm() / logits_V.norm()
            if not error <= tolerance:
                raise UnsupportedModelError(
                    f"{type(base).__name__} changes its logits behind the LM head "
                    f"(by {float(error):.1e} of their size)"
                )


def _own_rounding(backbone: Any, ids: torch.Tensor) -> float:
    """How far a shared row may be off in a model that rounds its activations, to int8 say.

    Sums in another order end now and then on the other side of a rounding, and layers carry that
    on: a nudge of the embeddings tells how far. Three times that, and no more than of halves; about
    nothing in a model that does not round.
    """
    embeds_BTC = backbone.get_input_embeddings()(ids)
    sign_C = torch.ones_like(embeds_BTC[0, 0])
    sign_C[::2] = -1
    plain, nudged = (
        backbone(inputs_embeds=one, use_cache=False).last_hidden_state.float()
        for one in (embeds_BTC, embeds_BTC * (1 + _NUDGE * sign_C))
    )
    return min(_PROBE_TOLERANCE_HALF, 3 * float((nudged - plain).norm() / plain.norm()))


@torch.no_grad()
def _probe_read(base: PreTrainedModel) -> bool:
    """Whether the places that are read come out right where the last layer computes only those."""
    row = _probe_row(base)
    with _evaluating(base):
        hidden_TC = hidden_states(base, row)
        index_S = torch.cat(row.score_indices()).to(hidden_TC.device)
        found_SC = hidden_states(base, row, row.score_indices()).float()
        expected_SC = hidden_TC[index_S].float()
        tolerance = _PROBE_TOLERANCE.get(hidden_TC.dtype, _PROBE_TOLERANCE_HALF)
        return bool((found_SC - expected_SC).norm() <= tolerance * expected_SC.norm())


def _probe_row(base: PreTrainedModel) -> Row:
    """Two small groups of arbitrary tokens."""
    vocabulary = base.get_input_embeddings().num_embeddings

    def tokens(count: int, salt: int) -> list[int]:
        return [(7 * i * i + 13 * i + salt) % vocabulary for i in range(count)]

    groups = [
        Group(tokens(5, 1), [tokens(4, 2), tokens(2, 3), tokens(6, 4)]),
        Group(tokens(3, 5), [tokens(3, 6), tokens(5, 7)]),
    ]
    return pack(groups, budget_tokens=64)[0]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
