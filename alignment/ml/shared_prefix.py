"""The prompt is paid once: a prompt and its K answers in one row, exactly.

A row holds each prompt's tokens once, followed by its answers. The positions of every answer
continue the prompt's, and an answer sees the prompt and itself only, so every hidden state is what
it would be were the answer alone behind its prompt. Several groups are packed into a row with no
padding: the projections and the MLP run over the packed tokens once, attention by segments.

    tokens     p0 p1 p2 | a0 a1 | b0 b1 b2 | c0      one group, K = 3
    positions   0  1  2 |  3  4 |  3  4  5 |  3

Where softmax runs over two sets of keys, the prompt and the answer itself, each part is computed
by the fused kernel and the two are joined by their log-sum-exps. Given the joined output and the
joined log-sum-exp, the kernel's backward of one part yields that part's exact gradients (as in
ring attention, Liu et al. 2023, arXiv:2310.01889). So nothing of size T × T is ever built, the
prompt's keys are never copied, and no mask is read. That is the CPU's way; on CUDA the same pattern
is a FlexAttention block mask.

Legend: T tokens of a row, K answers of a prompt, H query heads, N key heads, R query heads per key
head, D head width, V vocabulary, C width of a hidden state.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from modelhub.ml.configs import RefusedError

IMPLEMENTATION = "shared_prefix"
_LOGPROB_CHUNK_TOKENS = 256
_PROBE_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative; of halves, see below
_PROBE_TOLERANCE_HALF = 0.1


class UnsupportedModelError(RefusedError):
    """This model's numbers on a shared row would not be the separate ones; the message says why."""


@dataclass(frozen=True)
class Group:
    """One prompt and its answers, as token ids.

    An answer may be empty: its score is read at the prompt's last token. Raises ValueError for an
    empty prompt, which would leave nothing to read.
    """

    prompt_T: list[int]
    answers: list[list[int]]

    def __post_init__(self) -> None:
        if not self.prompt_T:
            raise ValueError("a group needs a prompt of one token or more")
        if not self.answers:
            raise ValueError("a group needs an answer")

    @property
    def tokens(self) -> int:
        """Tokens the group takes in a row."""
        return len(self.prompt_T) + sum(map(len, self.answers))

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest answer: what the model's context must hold."""
        return len(self.prompt_T) + max(map(len, self.answers))


@dataclass(frozen=True)
class Span:
    """Where a group lies in its row, in tokens: prompt at `start`, then the answers in order."""

    start: int
    prompt: int
    answers: tuple[int, ...]

    @property
    def answers_start(self) -> int:
        return self.start + self.prompt

    @property
    def end(self) -> int:
        return self.answers_start + sum(self.answers)

    def answer_bounds(self) -> Iterator[tuple[int, int]]:
        """Yield (first token, token after the last) of each answer."""
        start = self.answers_start
        for length in self.answers:
            yield start, start + length
            start += length


@dataclass(frozen=True)
class Row:
    """Groups packed into one sequence. `indices` are their places in the list given to `pack`."""

    groups: tuple[Group, ...]
    indices: tuple[int, ...]

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        spans, start = [], 0
        for group in self.groups:
            span = Span(start, len(group.prompt_T), tuple(map(len, group.answers)))
            spans.append(span)
            start = span.end
        return tuple(spans)

    @property
    def tokens(self) -> int:
        return self.spans[-1].end

    @cached_property
    def segments(self) -> list[int]:
        """Lengths of every prompt and every answer that is not empty, in the row's order."""
        return [length for span in self.spans for length in (span.prompt, *span.answers) if length]

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest prompt + answer in the row."""
        return max(group.longest for group in self.groups)

    def input_ids(self) -> Tensor:
        """Token ids, shape (1, T)."""
        ids: list[int] = []
        for group in self.groups:
            ids += group.prompt_T
            for answer in group.answers:
                ids += answer
        return torch.tensor([ids], dtype=torch.long)

    def position_ids(self) -> Tensor:
        """Each token's place behind its own prompt, shape (1, T)."""
        parts = []
        for span in self.spans:
            parts.append(torch.arange(span.prompt))
            parts += [torch.arange(span.prompt, span.prompt + length) for length in span.answers]
        return torch.cat(parts)[None]

    def score_indices(self) -> list[Tensor]:
        """For each group the index of every answer's last token in the row, shape (K,)."""
        return [
            torch.tensor(
                [
                    stop - 1 if stop > start else span.answers_start - 1
                    for start, stop in span.answer_bounds()
                ]
            )
            for span in self.spans
        ]

    def answer_places(self) -> tuple[Tensor, Tensor]:
        """(place in the row whose hidden state predicts it, token id) of all answer tokens, (S,).

        Groups, answers and tokens in their order; the LM head is needed at these places alone.
        """
        sources: list[int] = []
        targets: list[int] = []
        for group, span in zip(self.groups, self.spans, strict=True):
            for answer, (start, stop) in zip(group.answers, span.answer_bounds(), strict=True):
                if answer:
                    sources += [span.answers_start - 1, *range(start, stop - 1)]
                    targets += answer
        return torch.tensor(sources, dtype=torch.long), torch.tensor(targets, dtype=torch.long)

    @cached_property
    def _block_masks(self) -> dict[torch.device, Any]:
        return {}

    def segment_ids(self) -> tuple[Tensor, Tensor]:
        """(group of each token, its segment: 0 in a prompt, k + 1 in answer k), each (T,)."""
        lengths: list[int] = []
        groups: list[int] = []
        segments: list[int] = []
        for number, span in enumerate(self.spans):
            lengths += [span.prompt, *span.answers]
            groups += [number] * (1 + len(span.answers))
            segments += range(1 + len(span.answers))
        repeats = torch.tensor(lengths)
        return (
            torch.tensor(groups).repeat_interleave(repeats),
            torch.tensor(segments).repeat_interleave(repeats),
        )

    def block_mask(self, device: torch.device) -> Any:
        """FlexAttention's block mask of the row, made once for a device."""
        if device not in self._block_masks:
            from torch.nn.attention.flex_attention import create_block_mask

            group_T, segment_T = (ids.to(device) for ids in self.segment_ids())

            def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                own_or_prompt = (segment_T[key] == 0) | (segment_T[key] == segment_T[query])
                return (query >= key) & (group_T[query] == group_T[key]) & own_or_prompt

            self._block_masks[device] = create_block_mask(
                visible, None, None, self.tokens, self.tokens, device=device
            )
        return self._block_masks[device]


def pack(groups: Sequence[Group], budget_tokens: int) -> list[Row]:
    """Lay groups into rows of at most `budget_tokens`, largest first into the first row with room.

    A group is never split: one larger than the budget has a row to itself. The answer depends on
    the groups and their order alone; `Row.indices` leads back to it.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(groups)), key=lambda i: -groups[i].tokens):
        tokens = groups[index].tokens
        for number, free in enumerate(room):
            if tokens <= free:
                bins[number].append(index)
                room[number] -= tokens
                break
        else:
            bins.append([index])
            room.append(budget_tokens - tokens)
    rows = sorted(sorted(indices) for indices in bins)
    return [Row(tuple(groups[i] for i in indices), tuple(indices)) for indices in rows]


def attach(model: Any) -> None:
    """Let `model`, a transformers decoder or a PEFT model around one, run shared rows.

    The model works as before for everybody else. Raises UnsupportedModelError where rows would not
    be exact: known cases by their configuration, all others by a short forward on which the shared
    row is compared with the separate computation.
    """
    base = _base_model(model)
    _configuration_check(base)
    before = base.config._attn_implementation
    if before == IMPLEMENTATION:
        return
    base.set_attn_implementation(IMPLEMENTATION)
    last_layer = _LastLayer(base)
    try:
        _probe(base)
        if not _probe_read(base):
            last_layer.release()
    except Exception:
        last_layer.release()
        base.set_attn_implementation(before)
        raise


def hidden_states(model: Any, row: Row, read: Sequence[Tensor] | None = None) -> Tensor:
    """The backbone's last hidden states of a row, shape (T, C); the LM head is not run.

    read: for each group the only places of the row that will be read, few of them. The last layer
    then does little else than those need, and the states of all other places mean nothing.
    """
    base = _base_model(model)
    if base.config._attn_implementation != IMPLEMENTATION:
        raise ValueError("call attach(model) before running rows through it")
    _length_check(base, row.longest)
    device = base.get_input_embeddings().weight.device
    backbone = getattr(base, base.base_model_prefix)
    output = backbone(
        input_ids=row.input_ids().to(device),
        position_ids=row.position_ids().to(device),
        # Four dimensions are how transformers knows a mask that is not to be touched; without one
        # it would build a T × T mask from the positions.
        attention_mask=torch.empty((1, 1, 0, 0), device=device),
        use_cache=False,
        shared_prefix=_Pass(row, None if read is None else [x.unique().to(device) for x in read]),
    )
    return output.last_hidden_state[0]


def answer_scores(model: Any, row: Row) -> list[Tensor]:
    """The reward model's scores, for each group of the row a tensor (K,), float32 or wider.

    A score is read at the answer's last token by its index, never by looking for padding.
    """
    indices = row.score_indices()
    hidden_TC = hidden_states(model, row, indices)
    index_S = torch.cat(indices).to(hidden_TC.device)
    head = _base_model(model).score
    with torch.autocast(hidden_TC.device.type, enabled=False):
        # bfloat16's eight bits would make ties of answers that are close.
        hidden_SC = hidden_TC[index_S].to(next(head.parameters()).dtype)
        scores_S = _at_least_float32(head(hidden_SC)[:, 0])
    return list(scores_S.split([len(group.answers) for group in row.groups]))


def answer_logprobs(model: Any, row: Row) -> list[list[Tensor]]:
    """log p(token | what is before it) of every answer token, by group and answer, shape (T,).

    Nats, float32 or wider. The LM head runs at answer positions only, a few at a time; with
    gradients, a chunk's logits are computed again in backward rather than kept.
    """
    hidden_TC = hidden_states(model, row)
    head = _base_model(model).get_output_embeddings()
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


# ── attention ────────────────────────────────────────────────────────────────────────────────────


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    shared_prefix: "_Pass | None" = None,
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
    if torch.is_autocast_enabled(query.device.type):
        # Rotary positions are multiplied in float32; the products of attention are autocast's.
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if read is not None and getattr(module, _IS_LAST, False):
        return _attention_read(query, key, value, row, read, dropout, scaling), None
    if dropout == 0.0 and query.shape[-1] == value.shape[-1]:
        if query.device.type == "cpu":
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            return _SegmentAttention.apply(query, key, value, row, scale), None
        if query.device.type == "cuda":
            mask = row.block_mask(query.device)
            output, _ = flex_attention_forward(module, query, key, value, mask, scaling=scaling)
            return output, None
    return _attention_by_answer(query, key, value, row, dropout, scaling), None


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def _attention_by_answer(
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


class _SegmentAttention(torch.autograd.Function):
    """Attention of a row on the CPU, by parts joined through their log-sum-exps.

    Inside, tensors are (N, R, T, D): key heads take the batch's place and the R query heads that
    share a key head see it through a stride of 0, so grouped-query attention copies nothing either.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, row: Row, scale: float
    ) -> Tensor:
        folded = _heads_fold(query, key, value)
        # Every prompt and every answer on itself. In memory the kernel's output is (T, N, R, D).
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
    """(a prompt's tokens, all its answers' tokens), where it has any."""
    for span in row.spans:
        if span.end > span.answers_start:
            yield slice(span.start, span.answers_start), slice(span.answers_start, span.end)


# ── the last layer ───────────────────────────────────────────────────────────────────────────────

_IS_LAST = "_shared_prefix_is_last"
# What works on each token by itself, and whose result nobody sees but the token: all of a layer but
# its keys and values. Other names are computed everywhere, which costs time only.
_BY_TOKEN = ("mlp", "self_attn.q_proj", "self_attn.o_proj", "attn.c_proj")


@dataclass(frozen=True)
class _Pass:
    """What a forward pass tells every layer: the row, and the places that will be read."""

    row: Row
    read: list[Tensor] | None  # of each group, each once


class _LastLayer:
    """Keeps the last layer from computing, beside keys and values, what nobody reads.

    A score is read at one place an answer, so nearly all of the last layer's work would be thrown
    away: a sixth of a model with six layers, and the same share of its backward pass.
    """

    def __init__(self, base: PreTrainedModel) -> None:
        self.read_S: Tensor | None = None
        self.tokens = 0
        self._handles: list[Any] = []
        self._attention: list[nn.Module] = []
        stacks = [
            child
            for child in getattr(base, base.base_model_prefix).children()
            if isinstance(child, nn.ModuleList)
        ]
        if len(stacks) != 1 or not len(stacks[0]):
            return
        layer = stacks[0][-1]
        self._handles += [
            layer.register_forward_pre_hook(self._enter, with_kwargs=True),
            layer.register_forward_hook(self._leave, always_call=True),
        ]
        for name, module in layer.named_modules():
            if name in _BY_TOKEN:
                self._handles += [
                    module.register_forward_pre_hook(self._gather),
                    module.register_forward_hook(self._scatter),
                ]
            elif name in ("self_attn", "attn"):
                setattr(module, _IS_LAST, True)
                self._attention.append(module)

    def release(self) -> None:
        for handle in self._handles:
            handle.remove()
        for module in self._attention:
            delattr(module, _IS_LAST)

    def _enter(self, _layer: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        # Here and not where the pass begins: checkpointing runs the layer again in backward.
        shared_prefix: _Pass | None = kwargs.get("shared_prefix")
        if shared_prefix is not None and shared_prefix.read is not None:
            self.read_S = torch.cat(shared_prefix.read)
            self.tokens = shared_prefix.row.tokens

    def _leave(self, _layer: nn.Module, _args: Any, _output: Any) -> None:
        self.read_S = None

    def _gather(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.read_S is None:
            return None
        values_TX, *rest = args
        return values_TX.index_select(1, self.read_S), *rest

    def _scatter(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        if self.read_S is None:
            return None
        everywhere = output.new_zeros((1, self.tokens, output.shape[-1]))
        return everywhere.index_copy(1, self.read_S, output)


# ── what it can serve ────────────────────────────────────────────────────────────────────────────


def _base_model(model: Any) -> PreTrainedModel:
    """The transformers model inside; LoRA layers have taken their places in it."""
    if isinstance(model, PreTrainedModel):
        return model
    if hasattr(model, "peft_config"):
        for config in model.peft_config.values():
            if config.is_prompt_learning:
                raise UnsupportedModelError(
                    f"{config.peft_type} adds tokens of its own: a shared row has no place for them"
                )
        return model.get_base_model()
    raise UnsupportedModelError(f"{type(model).__name__} is not a transformers model")


def _configuration_check(base: PreTrainedModel) -> None:
    """Raise UnsupportedModelError for what the configuration already tells."""
    config = base.config
    name = type(base).__name__
    if config.is_encoder_decoder:
        raise UnsupportedModelError(f"{name} is an encoder and a decoder: a row has one sequence")
    alibi = getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt")
    if alibi:
        raise UnsupportedModelError(
            f"{name} has ALiBi: it measures distances in the row, not behind the prompt"
        )
    if not base._supports_attention_backend:
        raise UnsupportedModelError(
            f"{name} takes no attention function from outside (transformers' AttentionInterface)"
        )
    text = config.get_text_config()
    kinds = {"full_attention", "sliding_attention", "chunked_attention"}
    others = set(getattr(text, "layer_types", None) or ()) - kinds
    if others:
        raise UnsupportedModelError(
            f"{name} has {', '.join(sorted(others))} layers, whose state runs through the whole row"
        )


def _length_check(base: PreTrainedModel, longest: int) -> None:
    """Raise UnsupportedModelError if a window or a scaling of positions would act on the row."""
    text = base.config.get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    if context is not None and longest > context:
        raise UnsupportedModelError(
            f"prompt and answer have {longest} tokens, the model's context {context}"
        )
    kinds = getattr(text, "layer_types", None)
    for kind, field in (
        ("sliding_attention", "sliding_window"),
        ("chunked_attention", "attention_chunk_size"),
    ):
        window = getattr(text, field, None)
        if window is not None and window < longest and (kinds is None or kind in kinds):
            raise UnsupportedModelError(
                f"{field} of {window} tokens is shorter than prompt and answer ({longest})"
            )
    rope = getattr(text, "rope_parameters", None) or {}
    for one in rope.values() if all(isinstance(v, dict) for v in rope.values()) else (rope,):
        if one.get("rope_type") in ("dynamic", "longrope"):
            limit = one.get("original_max_position_embeddings") or context
            if limit is not None and longest > limit:
                raise UnsupportedModelError(
                    f"{one['rope_type']} rotary positions change with the longest answer of a row"
                )


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
                if not error <= tolerance:
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


@torch.no_grad()
def _probe_read(base: PreTrainedModel) -> bool:
    """Whether the places that are read come out right where the last layer computes only those."""
    row = _probe_row(base)
    with _evaluating(base):
        hidden_TC = hidden_states(base, row)
        index_S = torch.cat(row.score_indices()).to(hidden_TC.device)
        found_SC = hidden_states(base, row, row.score_indices())[index_S].float()
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
