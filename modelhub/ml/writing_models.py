"""Models that write one token behind the other, and what each remembers of what it has read.

    a decoder with attention (Llama, GPT-2, Mixtral, BLOOM, …)   keys and values
    RWKV                                                         a state of one size
    T5                                                           the encoder's output, keys, values

All three read a prompt once, and go on from any number of copies of what they remember, several
side by side.

Shapes: B beams or candidates, T tokens, S of the encoder, D hidden size, L layers, V vocabulary.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from modelhub.ml.adapter import ModelInput, model_input_load, virtual_cache
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check

_SENTINEL = re.compile(r"<extra_id_\d+>")


class Memory(Protocol):
    """What a model remembers, a row for each of B. copy.deepcopy copies it."""

    def batch_repeat_interleave(self, repeats: int) -> None: ...

    def batch_select_indices(self, indices: Tensor) -> None: ...


@dataclass
class Read:
    """A prompt that a model has read."""

    tokens: list[int]  # what was read
    said: list[int]  # what stands before the answer: of an encoder-decoder, its own beginning alone
    memory: Memory
    logits_V: Tensor
    hidden_TD: Tensor  # of the last layer at what stands before, for contrastive search


class WritingModel(Protocol):
    """A model that writes. `ends`: tokens that end its answers beside those of its vocabulary."""

    ends: frozenset[int]

    def read(self, tokens: list[int]) -> Read: ...

    def step(self, tokens_BT: Tensor, memory: Any) -> tuple[Tensor, Tensor]:
        """Feed tokens behind what is remembered: (logits of the next (B, V), hidden (B, T, D))."""


def writing_model(given: ModelInput, tokenizer: Any, *, dtype: str) -> WritingModel:
    """The model of an input, on the accelerator if there is one.

    Raises RefusedError for one that scores.
    """
    facts = model_directory_check(given.whole, any_writer=True)
    if facts.role == "reward":
        raise RefusedError(f"a {facts.architecture} scores answers, it writes none")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model_input_load(given, dtype=dtype, any_writer=True).to(device)
    if facts.role == "encoder-decoder":
        return EncoderDecoder(model, tokenizer)
    if facts.role == "recurrent":
        return RecurrentDecoder(model)
    return AttentionDecoder(model)


class AttentionDecoder:
    """A decoder that looks back at the keys and values of all before; an adapter's too."""

    ends: frozenset[int] = frozenset()

    def __init__(self, model: Any) -> None:
        self._virtual = virtual_cache(model)
        self._model = model.get_base_model() if hasattr(model, "peft_config") else model

    def read(self, tokens: list[int]) -> Read:
        cache = DynamicCache()
        for number, layer in enumerate(self._virtual.layers if self._virtual else ()):
            cache.update(layer.keys, layer.values, number)
        row = torch.tensor([tokens], device=self._model.device)
        logits_1V, hidden_1TD = self.step(row, cache)
        return Read(tokens, tokens, cache, logits_1V[0], hidden_1TD[0])

    def step(self, tokens_BT: Tensor, memory: Any) -> tuple[Tensor, Tensor]:
        out = self._model(
            input_ids=tokens_BT,
            past_key_values=memory,
            use_cache=True,
            logits_to_keep=1,
            output_hidden_states=True,
        )
        return out.logits[:, -1], out.hidden_states[-1]


@dataclass
class State:
    """RWKV's state of each layer, tensors of (B, D, L)."""

    parts: list[Tensor] | None = None  # None before anything is read

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.parts = [one.repeat_interleave(repeats, dim=0) for one in self.parts or ()]

    def batch_select_indices(self, indices: Tensor) -> None:
        self.parts = [one[indices] for one in self.parts or ()]


class RecurrentDecoder:
    """RWKV (Peng et al. 2023, arXiv:2305.13048): all that was read is in a state of one size."""

    ends: frozenset[int] = frozenset()

    def __init__(self, model: Any) -> None:
        self._model = model

    def read(self, tokens: list[int]) -> Read:
        state = State()
        row = torch.tensor([tokens], device=self._model.device)
        logits_1V, hidden_1TD = self.step(row, state)
        return Read(tokens, tokens, state, logits_1V[0], hidden_1TD[0])

    def step(self, tokens_BT: Tensor, memory: Any) -> tuple[Tensor, Tensor]:
        # Row by row: of one token and several rows, transformers (5.19) mixes each row with the
        # last tokens of all (a state of (B, D) spreads over (B, 1, D) to (B, B, D)).
        rows = [
            self._row(row_1T, [one[place : place + 1] for one in memory.parts or ()])
            for place, row_1T in enumerate(tokens_BT.split(1))
        ]
        memory.parts = [
            torch.cat(parts) for parts in zip(*(state for *_, state in rows), strict=True)
        ]
        return torch.cat([logits for logits, *_ in rows]), torch.cat([one for _, one, _ in rows])

    def _row(self, row_1T: Tensor, state: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        out = self._model(
            input_ids=row_1T,
            state=[one.clone() for one in state] or None,  # which the model writes into
            use_cache=True,
            logits_to_keep=1,
            output_hidden_states=True,
        )
        return out.logits[:, -1], out.hidden_states[-1], list(out.state)


@dataclass
class EncodedMemory:
    """What T5's encoder made of the prompt, the decoder's keys and values, and its keys and values
    of the prompt."""

    encoded_1SD: Tensor
    cache: EncoderDecoderCache

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.cache.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.cache.batch_select_indices(indices)


class EncoderDecoder:
    """T5 (Raffel et al. 2020, arXiv:1910.10683), trained to write what stands where a text has a
    sentinel, <extra_id_0>.

    A prompt without one has it at its end: the model goes on with the text. The decoder begins with
    its own first token and the prompt's first sentinel; the next sentinel, like the end of the
    text, ends the answer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._sentinels = [
            number for name, number in tokenizer.get_vocab().items() if _SENTINEL.fullmatch(name)
        ]
        self._first = tokenizer.convert_tokens_to_ids("<extra_id_0>") if self._sentinels else None
        self._end: int | None = tokenizer.eos_token_id
        self.ends = frozenset(self._sentinels)

    def read(self, tokens: list[int]) -> Read:
        source, first = self._lay(tokens)
        begin = [self._model.config.decoder_start_token_id]
        begin += [] if first is None else [first]
        device = self._model.device
        encoded = self._model.get_encoder()(input_ids=torch.tensor([source], device=device))
        memory = EncodedMemory(
            encoded.last_hidden_state, EncoderDecoderCache(DynamicCache(), DynamicCache())
        )
        logits_1V, hidden_1TD = self.step(torch.tensor([begin], device=device), memory)
        return Read(source, begin, memory, logits_1V[0], hidden_1TD[0])

    def _lay(self, tokens: Sequence[int]) -> tuple[list[int], int | None]:
        """(what the encoder reads, the sentinel whose place the decoder fills)."""
        source = list(tokens)
        first = next((one for one in source if one in self.ends), None)
        if first is None and self._first is not None:
            first = self._first
            source.append(first)
        if self._end is not None and source[-1:] != [self._end]:
            source.append(self._end)
        return source, first

    def step(self, tokens_BT: Tensor, memory: Any) -> tuple[Tensor, Tensor]:
        out = self._model(
            encoder_outputs=(memory.encoded_1SD.expand(len(tokens_BT), -1, -1),),
            decoder_input_ids=tokens_BT,
            past_key_values=memory.cache,
            use_cache=True,
            output_hidden_states=True,
        )
        return out.logits[:, -1], out.decoder_hidden_states[-1]
