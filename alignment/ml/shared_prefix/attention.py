"""The attention of a row, registered with transformers under the name `IMPLEMENTATION`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from alignment.ml.shared_prefix.rows import Row
from alignment.ml.shared_prefix.support import UnsupportedModelError

IMPLEMENTATION = "shared_prefix"
ALIBI_ATTACHED = "_shared_prefix_alibi"  # set on a model that `alibi` lets run rows
IS_LAST = "_shared_prefix_is_last"  # set on the attention of a model's last layer


@dataclass(frozen=True)
class Pass:
    """What a forward pass tells every layer: the row, and the places that will be read."""

    row: Row
    read: list[Tensor] | None  # of each group, each once
    # Places whose keys and values an adapter has of its own, and those of every layer.
    virtual: tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]] | None = None


def row_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    shared_prefix: Pass | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a row, as transformers calls it: query (1, H, T, D), key and value (1, N, T, D).

    Returns (1, T, H, D). Without a row it is transformers' own SDPA.
    """
    if shared_prefix is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    row, read = shared_prefix.row, shared_prefix.read
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise UnsupportedModelError(f"attention with {name} is not computed on shared rows")
    if not getattr(module, "is_causal", True):
        raise UnsupportedModelError("attention that is not causal has no shared prefix")
    window = kwargs.get("sliding_window")
    if window is not None and window < row.longest:
        raise UnsupportedModelError(
            f"a sliding window of {window} tokens is shorter than prompt and answer ({row.longest})"
        )
    if shared_prefix.virtual is not None:
        key, value = _prefix_lay(key, value, *shared_prefix.virtual, layer=module.layer_idx)
    if torch.is_autocast_enabled(query.device.type):
        # Rotary positions are multiplied in float32; the products of attention are autocast's.
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if read is not None and getattr(module, IS_LAST, False):
        return _attention_read(query, key, value, row, read, dropout, scaling), None
    if dropout == 0.0 and query.shape[-1] == value.shape[-1]:
        if query.device.type == "cpu":
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            return SegmentAttention.apply(query, key, value, row, scale), None
        if query.device.type == "cuda" and query.shape[-1].bit_count() == 1:
            mask = row.block_mask(query.device)
            output, _ = flex_attention_forward(module, query, key, value, mask, scaling=scaling)
            return output, None
    return attention_by_answer(query, key, value, row, dropout, scaling), None


def _prefix_lay(
    key: Tensor,
    value: Tensor,
    places: Tensor,
    layers: tuple[tuple[Tensor, Tensor], ...],
    *,
    layer: int,
) -> tuple[Tensor, Tensor]:
    """Keys and values with a prefix's own at its places, the same in front of every prompt.

    Behind the rotation of positions: a prefix has none, as when it lies in a cache.
    """
    laid = []
    for computed, own in zip((key, value), layers[layer], strict=True):
        copies = len(places) // own.shape[2]
        repeated = own.to(computed.dtype).repeat(1, 1, copies, 1)
        laid.append(computed.index_copy(2, places, repeated))
    return laid[0], laid[1]


AttentionInterface.register(IMPLEMENTATION, row_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def attention_by_answer(
    query: Tensor, key: Tensor, value: Tensor, row: Row, dropout: float, scaling: float | None
) -> Tensor:
    """The same by one SDPA for each prompt and each answer: any device, dropout, any head width."""
    lengths = [length for span in row.spans for length in (span.prompt, *span.answers)]
    queries, keys, values = (x.split(lengths, dim=2) for x in (query, key, value))
    repeated = query.shape[1] != key.shape[1]
    outputs, at = [], 0
    for span in row.spans:
        prompt = at
        outputs.append(
            F.scaled_dot_product_attention(
                queries[prompt],
                keys[prompt],
                values[prompt],
                dropout_p=dropout,
                is_causal=True,
                scale=scaling,
                enable_gqa=repeated,
            )
        )
        for number, length in enumerate(span.answers, start=prompt + 1):
            seen = torch.ones(length, span.prompt + length, dtype=torch.bool, device=query.device)
            outputs.append(
                F.scaled_dot_product_attention(
                    queries[number],
                    torch.cat([keys[prompt], keys[number]], dim=2),
                    torch.cat([values[prompt], values[number]], dim=2),
                    attn_mask=seen.tril(span.prompt),
                    dropout_p=dropout,
                    scale=scaling,
                    enable_gqa=repeated,
                )
            )
        at += 1 + len(span.answers)
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _attention_read(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row: Row,
    read: Sequence[Tensor],
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Attention at a few places of each group, given by their index in the row; 0 at all others.

    One small product for each place, over exactly the keys it sees, so that not even the rounding
    of an answer's score depends on its neighbours.
    """
    lengths = [length for span in row.spans for length in (span.prompt, *span.answers)]
    keys, values = key.split(lengths, dim=2), value.split(lengths, dim=2)
    queries = query.index_select(2, torch.cat(list(read))).split(1, dim=2)
    outputs: list[Tensor] = []
    at = 0
    for span, read_K in zip(row.spans, read, strict=True):
        bounds = [(span.start, span.answers_start), *span.answer_bounds()]
        for place in read_K.tolist():
            own = next(n for n, (start, stop) in enumerate(bounds) if start <= place < stop)
            seen = place + 1 - bounds[own][0]
            own_key, own_value = keys[at + own][:, :, :seen], values[at + own][:, :, :seen]
            if own:
                own_key = torch.cat([keys[at], own_key], dim=2)
                own_value = torch.cat([values[at], own_value], dim=2)
            outputs.append(
                F.scaled_dot_product_attention(
                    queries[len(outputs)],
                    own_key,
                    own_value,
                    dropout_p=dropout,
                    scale=scaling,
                    enable_gqa=query.shape[1] != key.shape[1],
                )
            )
        at += len(bounds)
    everywhere = query.new_zeros((1, row.tokens, query.shape[1], value.shape[-1]))
    return everywhere.index_copy(1, torch.cat(list(read)), torch.cat(outputs, 2).transpose(1, 2))


_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class SegmentAttention(torch.autograd.Function):
    """Attention of a row on the CPU, by parts joined through their log-sum-exps.

    Inside, tensors are (N, R, T, D): key heads take the batch's place and the R query heads that
    share a key head see it through a stride of 0, so grouped-query attention copies nothing either.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, row: Row, scale: float
    ) -> Tensor:
        folded = _heads_fold(query, key, value)
        # Each prompt with its first answer, and every other answer on itself. In memory the
        # kernel's output is (T, N, R, D).
        own = [
            _flash(*part, 0.0, True, scale=scale)
            for part in zip(*(x.split(row.segments, 2) for x in folded), strict=True)
        ]
        output = torch.cat([part.permute(2, 0, 1, 3) for part, _ in own]).permute(1, 2, 0, 3)
        lse = torch.cat([part for _, part in own], dim=2)
        query_, key_, value_ = folded
        for prompt, answers in _prompts(row):
            seen, seen_lse = _flash(
                query_[:, :, answers],
                key_[:, :, prompt],
                value_[:, :, prompt],
                0.0,
                False,
                scale=scale,
            )
            own_lse = lse[:, :, answers]
            joined = torch.logaddexp(own_lse, seen_lse)
            share = torch.exp(seen_lse - joined)[..., None].to(seen.dtype)
            output[:, :, answers].lerp_(seen, share)
            own_lse.copy_(joined)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.row, ctx.scale = row, scale
        return output.flatten(0, 1).transpose(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, output, lse = ctx.saved_tensors
        dtype = query.dtype
        if dtype in (torch.bfloat16, torch.float16):
            # The kernel's backward of halves is 5 to 9 times slower than float32 on short segments.
            query, key, value, output, grad = (x.float() for x in (query, key, value, output, grad))
        query_, key_, value_ = _heads_fold(query, key, value)
        grad_ = grad[0].transpose(0, 1).unflatten(0, query_.shape[:2])
        rows = (grad_, query_, key_, value_, output, lse)
        own = [
            _flash_backward(*part, 0.0, True, scale=ctx.scale)
            for part in zip(*(x.split(ctx.row.segments, 2) for x in rows), strict=True)
        ]
        # (T, heads, D) in memory, as the projections' outputs are.
        query_grad = torch.cat([part.permute(2, 0, 1, 3) for part, _, _ in own])
        key_grad = torch.cat([_heads_sum(part) for _, part, _ in own])
        value_grad = torch.cat([_heads_sum(part) for _, _, part in own])
        for prompt, answers in _prompts(ctx.row):
            of_query, of_key, of_value = _flash_backward(
                grad_[:, :, answers],
                query_[:, :, answers],
                key_[:, :, prompt],
                value_[:, :, prompt],
                output[:, :, answers],
                lse[:, :, answers],
                0.0,
                False,
                scale=ctx.scale,
            )
            query_grad[answers] += of_query.permute(2, 0, 1, 3)
            key_grad[prompt] += _heads_sum(of_key)
            value_grad[prompt] += _heads_sum(of_value)
        of_query, of_key, of_value = (
            x.to(dtype).transpose(0, 1)[None]
            for x in (query_grad.flatten(1, 2), key_grad, value_grad)
        )
        return of_query, of_key, of_value, None, None


def _heads_fold(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(1, H, T, D) and (1, N, T, D) as three views of (N, R, T, D)."""
    n = key.shape[1]
    r = query.shape[1] // n
    folded = query[0].unflatten(0, (n, r))
    return folded, key[0][:, None].expand(folded.shape), value[0][:, None].expand(folded.shape)


def _heads_sum(grad: Tensor) -> Tensor:
    """(N, R, T, D) to (T, N, D): a key head's gradient is the sum over those that share it."""
    summed = grad[:, 0] if grad.shape[1] == 1 else grad.sum(1)
    return summed.transpose(0, 1)


def _prompts(row: Row) -> Iterator[tuple[slice, slice]]:
    """(a prompt's tokens, those of all answers but the first), where it has more than one.

    The first lies right behind the prompt: one causal segment of both is all it needs.
    """
    for span in row.spans:
        others = span.answers_start + span.answers[0]
        if span.end > others:
            yield slice(span.start, span.answers_start), slice(others, span.end)
