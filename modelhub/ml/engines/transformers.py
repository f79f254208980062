"""Sample with transformers: continuous batching of our own.

transformers has batched generation and a continuous batcher, but neither takes a seed for each
sample. Here a fixed number of rows decode together, one token a step; a row whose answer has ended
takes the next sample at once, and when none is left the batch shrinks. A prompt is prefilled once
for all its samples.

A sample draws one uniform number a token from a generator of its own and takes the token at that
place of the cumulative distribution, so its draws do not depend on what is sampled beside it.

Log-probabilities are log-softmax, in float32, of the logits before temperature, top-k and top-p.

Shapes: B rows decoding, H heads, G heads of keys, L tokens in the longest row, D numbers a head,
V vocabulary.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from modelhub.ml.adapter import ModelInput, model_input_load, virtual_cache
from modelhub.ml.alibi import has_alibi
from modelhub.ml.chat import answer_decode
from modelhub.ml.configs import GenerateConfig, RefusedError
from modelhub.ml.engines import Answer, Drawn, Sample

_ATTENTION = "rondo_grouped_decode"
_MAX_ROWS = 64


def grouped_decode_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one new token a row, without copying the keys for each head that shares them.

    query (B, H, 1, D), key and value (B, G, L, D), attention_mask (B, 1, 1, L) added to the scores.
    The H/G heads that share keys are laid where the query's tokens usually are. Longer queries
    (prefill) go the ordinary way. Returns (B, 1, H, D) and no weights.
    """
    rows, heads, tokens, size = query.shape
    if tokens != 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    groups = key.shape[1]
    grouped = query.reshape(rows, groups, heads // groups, size)
    out = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=scaling
    )
    return out.reshape(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(_ATTENTION, grouped_decode_attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


@dataclass
class _Row:
    """One answer being written."""

    place: int  # in the chunk
    sample: Sample
    uniforms: Tensor  # one number a token, (max_tokens,)
    length: int  # tokens whose keys are in the cache
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class _RowsLayer(CacheLayerMixin):
    """Keys and values of one layer for all rows, in place: row i has written lengths[i] tokens."""

    is_sliding = False

    def __init__(self, rows: "_Rows") -> None:
        super().__init__()
        self._rows = rows

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        shape = (self._rows.count, key_states.shape[1], self._rows.capacity)
        # Zeros, not whatever the memory held: a masked NaN is still NaN.
        self.keys = key_states.new_zeros((*shape, key_states.shape[-1]))
        self.values = value_states.new_zeros((*shape, value_states.shape[-1]))
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one token for each of the first B rows; return their keys and values so far."""
        places, length = self._rows.places_B, self._rows.length
        active = key_states.shape[0]
        index = torch.arange(active, device=places.device)
        self.keys[index, :, places] = key_states[:, :, 0]
        self.values[index, :, places] = value_states[:, :, 0]
        return self.keys[:active, :, :length], self.values[:active, :, :length]

    def row_fill(self, row: int, key_states: Tensor, value_states: Tensor) -> None:
        """Put a prefilled prompt, (1, G, tokens, D), into a row."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys[row, :, : key_states.shape[2]] = key_states[0]
        self.values[row, :, : value_states.shape[2]] = value_states[0]

    def row_move(self, source: int, target: int, length: int) -> None:
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._rows.length, 0

    def get_seq_length(self) -> int:
        return self._rows.length - 1

    def get_max_length(self) -> int:
        return self._rows.capacity


class _Rows(Cache):
    """The cache of one chunk: `count` rows of at most `capacity` tokens."""

    def __init__(self, *, count: int, capacity: int, layers: int, device: torch.device) -> None:
        self.count, self.capacity = count, capacity
        self.places_B = torch.zeros(0, dtype=torch.long, device=device)
        self.length = 0
        super().__init__(layers=[_RowsLayer(self) for _ in range(layers)])

    def step_begin(self, lengths: Sequence[int]) -> None:
        """The next update writes row i at lengths[i]."""
        self.places_B = torch.tensor(lengths, device=self.places_B.device)
        self.length = max(lengths) + 1


class TransformersEngine:
    """One model in transformers. See the protocols Engine and Sampler."""

    name = "transformers"
    load_s = 0.0

    def __init__(
        self,
        folder: Path,
        config: GenerateConfig,
        *,
        tokenizer: Any,
        stop_ids: tuple[int, ...],
        context_tokens: int,
        base: Path | None = None,
    ) -> None:
        """context_tokens: the longest prompt and answer together that will be asked. base: the
        model under `folder`, if that is an adapter.

        Raises RefusedError for a model whose layers look back less far than that.
        """
        self.version = transformers.__version__
        self._config, self._tokenizer, self._stop_ids = config, tokenizer, set(stop_ids)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        given = ModelInput(folder, base)
        model = model_input_load(given, dtype=config.dtype, quantised=True).to(self._device)
        # An adapter's own tokens lie in front of every prompt, as if they were its beginning.
        self._virtual = virtual_cache(model)
        self._virtual_tokens = 0 if self._virtual is None else self._virtual.get_seq_length()
        self._model = model.get_base_model() if hasattr(model, "peft_config") else model
        if not has_alibi(self._model):  # which takes no attention function from outside
            self._model.set_attn_implementation(_ATTENTION)
        settings = self._model.config
        window = getattr(settings, "sliding_window", None)
        if window is not None and window < context_tokens:
            raise RefusedError(
                f"the model's layers look back {window} tokens, less than prompt and answer "
                f"({context_tokens}): take engine vllm, or fewer tokens"
            )
        self._layers = settings.num_hidden_layers
        self._rows_at_most = _rows_at_most(settings, config.dtype, context_tokens)

    def generate(self, samples: Sequence[Sample], finished: Callable[[int], None]) -> list[Answer]:
        return [self._answer(one) for one in self.draw(samples, finished)]

    @torch.no_grad()
    def refresh(self, weights: Mapping[str, Tensor]) -> None:
        own = self._model.state_dict()
        if own.keys() != weights.keys():
            other = sorted(own.keys() ^ weights.keys())
            raise ValueError(f"the engine's model and the new weights differ: {other[0]}")
        for name, tensor in weights.items():
            own[name].copy_(tensor)

    @torch.no_grad()
    def virtual_set(
        self, embeddings_WC: Tensor | None, layers: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        self._virtual = DynamicCache()
        dtype, device = self._model.dtype, self._device
        if embeddings_WC is not None:
            self._model(
                inputs_embeds=embeddings_WC[None].to(device, dtype),
                past_key_values=self._virtual,
                use_cache=True,
            )
        for number, (keys, values) in enumerate(layers):
            self._virtual.update(keys.to(device, dtype), values.to(device, dtype), number)
        self._virtual_tokens = self._virtual.get_seq_length()

    @torch.inference_mode()
    def logprobs(self, sequences: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        found = []
        for prompt, answer in sequences:
            ids = torch.tensor([prompt + answer], device=self._device)
            out = self._model(input_ids=ids, past_key_values=self._cache_begin())
            logits = out.logits[0, len(prompt) - 1 : -1]
            logs = torch.log_softmax(logits.float(), dim=-1)
            found.append(logs.gather(1, ids[0, len(prompt) :, None])[:, 0].tolist())
        return found

    @torch.inference_mode()
    def draw(self, samples: Sequence[Sample], finished: Callable[[int], None]) -> list[Drawn]:
        drawn: dict[int, Drawn] = {}
        longest = max(len(sample.prompt_tokens) for sample in samples)
        cache = _Rows(
            count=min(self._rows_at_most, len(samples)),
            capacity=self._virtual_tokens + longest + self._config.max_tokens,
            layers=self._layers,
            device=self._device,
        )
        waiting = list(enumerate(samples))[::-1]  # taken from the end
        prefilled: tuple[tuple[int, ...], DynamicCache, Tensor] | None = None
        rows: list[_Row] = []

        def record(row: int, token: int, logprob: float) -> bool:
            """Add a token to a row. Returns whether that ended its answer."""
            one = rows[row]
            one.tokens.append(token)
            one.logprobs.append(logprob)
            if token not in self._stop_ids and len(one.tokens) < self._config.max_tokens:
                return False
            stopped = token in self._stop_ids
            drawn[one.place] = Drawn(
                tokens=tuple(one.tokens),
                logprobs=tuple(one.logprobs),
                finish_reason="stop" if stopped else "length",
            )
            return True

        while waiting or rows:
            begun: list[Tensor] = []
            while waiting and len(rows) < cache.count:
                place, sample = waiting.pop()
                if prefilled is None or prefilled[0] != sample.prompt_tokens:
                    prefilled = (sample.prompt_tokens, *self._prefill(sample.prompt_tokens))
                for layer, done in zip(cache.layers, prefilled[1].layers, strict=True):
                    layer.row_fill(len(rows), done.keys, done.values)
                begun.append(prefilled[2])
                generator = torch.Generator().manual_seed(sample.seed)
                uniforms = torch.rand(self._config.max_tokens, generator=generator)
                length = self._virtual_tokens + len(sample.prompt_tokens)
                rows.append(_Row(place, sample, uniforms, length=length))
            if begun:
                fresh = list(range(len(rows) - len(begun), len(rows)))
                logits = torch.stack(begun)
            else:
                fresh = list(range(len(rows)))
                logits = self._step(rows, cache)
            tokens, logprobs = self._draw(logits, [rows[row] for row in fresh])
            ended = [
                row
                for row, token, logprob in zip(fresh, tokens, logprobs, strict=True)
                if record(row, token, logprob)
            ]
            for row in reversed(ended):
                # The last row takes the place of the ended one: no row decodes for nothing.
                last = rows.pop()
                if row < len(rows):
                    rows[row] = last
                    for layer in cache.layers:
                        layer.row_move(len(rows), row, last.length)
            if ended:
                finished(len(drawn))
        return [drawn[place] for place in range(len(samples))]

    def _prefill(self, prompt: tuple[int, ...]) -> tuple[DynamicCache, Tensor]:
        """The prompt's keys and values, and the logits (V,) of the token after it."""
        cache = self._cache_begin()
        out = self._model(
            input_ids=torch.tensor([prompt], device=self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cache, out.logits[0, -1]

    def _cache_begin(self) -> DynamicCache:
        """Keys and values before a prompt: none, or those of the adapter's own tokens."""
        cache = DynamicCache()
        for number, layer in enumerate(self._virtual.layers if self._virtual else ()):
            cache.update(layer.keys, layer.values, number)
        return cache

    def _step(self, rows: Sequence[_Row], cache: _Rows) -> Tensor:
        """Feed each row its newest token. Returns the logits of the next, (B, V)."""
        lengths = [row.length for row in rows]
        cache.step_begin(lengths)
        behind = torch.arange(cache.length, device=self._device) <= cache.places_B[:, None]
        mask = torch.zeros(behind.shape, dtype=self._model.dtype, device=self._device)
        mask.masked_fill_(~behind, float("-inf"))
        out = self._model(
            input_ids=torch.tensor([[row.tokens[-1]] for row in rows], device=self._device),
            attention_mask=mask[:, None, None],
            position_ids=cache.places_B[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        for row in rows:
            row.length += 1
        return out.logits[:, -1]

    def _draw(self, logits: Tensor, rows: Sequence[_Row]) -> tuple[list[int], list[float]]:
        """One token for each row from logits (B, V): (tokens, their own log-probabilities)."""
        uniforms = torch.stack([row.uniforms[len(row.tokens)] for row in rows])
        tokens = tokens_draw(
            logits,
            temperatures_B=torch.tensor([row.sample.temperature for row in rows]).to(logits.device),
            uniforms_B=uniforms.to(logits.device),
            top_k=self._config.top_k,
            top_p=self._config.top_p,
        )
        logprobs = torch.log_softmax(logits.float(), dim=-1).gather(1, tokens[:, None])[:, 0]
        return tokens.tolist(), logprobs.tolist()

    def _answer(self, drawn: Drawn) -> Answer:
        stopped = drawn.finish_reason == "stop"
        written = drawn.tokens[:-1] if stopped else drawn.tokens
        return Answer(
            text=answer_decode(self._tokenizer, written),
            token_count=len(drawn.tokens),
            finish_reason=drawn.finish_reason,
            mean_logprob=sum(drawn.logprobs) / len(drawn.tokens),
        )


def tokens_draw(
    logits_BV: Tensor,
    *,
    temperatures_B: Tensor,
    uniforms_B: Tensor,
    top_k: int,
    top_p: float,
) -> Tensor:
    """One token a row by inverse transform: the first whose cumulative probability passes u.

    Temperature first, then the top_k likeliest (0: all), then the fewest likeliest tokens whose
    probability reaches top_p. Temperature 0 takes the likeliest token. Returns tokens, (B,).
    """
    greedy_B = temperatures_B == 0
    scaled_BV = logits_BV.float() / torch.where(greedy_B, 1.0, temperatures_B)[:, None]
    if 0 < top_k < scaled_BV.shape[1]:
        least_B1 = scaled_BV.topk(top_k, dim=-1).values[:, -1:]
        scaled_BV = scaled_BV.masked_fill(scaled_BV < least_B1, float("-inf"))
    probabilities_BV = scaled_BV.softmax(dim=-1)
    if top_p < 1:
        ordered_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True, stable=True)
        before_BV = ordered_BV.double().cumsum(dim=-1) - ordered_BV
        ordered_BV = ordered_BV.masked_fill(before_BV >= top_p, 0.0)
        probabilities_BV = torch.zeros_like(ordered_BV).scatter_(1, order_BV, ordered_BV)
    cumulative_BV = probabilities_BV.cumsum(dim=-1, dtype=torch.float64)
    # u is a multiple of 2⁻²⁴ below 1, so the product stays below the total.
    wanted_B1 = uniforms_B.double()[:, None] * cumulative_BV[:, -1:]
    drawn_B = torch.searchsorted(cumulative_BV, wanted_B1, right=True)[:, 0]
    if not bool(greedy_B.any()):
        return drawn_B
    return torch.where(greedy_B, logits_BV.argmax(dim=-1), drawn_B)


def _rows_at_most(settings: Any, dtype: str, context_tokens: int) -> int:
    """Rows that decode together: as many as help, and fit in a quarter of the memory."""
    heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
    size = getattr(settings, "head_dim", None) or settings.hidden_size // (
        settings.num_attention_heads
    )
    number_bytes = 4 if dtype == "float32" else 2
    row_bytes = 2 * settings.num_hidden_layers * heads * size * number_bytes * context_tokens
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(_MAX_ROWS, memory // 4 // row_bytes))
