"""Engines: what turns prompts into answers. One protocol, three ways.

vllm            fastest where it is installed; continuous batching on CPU and CUDA
transformers    needs nothing more than training does; continuous batching of our own
openai          a server that speaks the chat-completions protocol

An engine gets the samples of one chunk at a time and starts each chunk from the same state, so that
a chunk drawn again after a kill comes out equal.

The first two are samplers too: they stay alive beside a training loop, take its new weights in
place, and give answers as tokens.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer to draw."""

    prompt_id: str
    index: int  # among the prompt's samples, from 0
    messages: tuple[dict[str, str], ...]
    prompt_tokens: tuple[int, ...]  # empty for an endpoint, which lays the prompt itself
    seed: int  # 0 to 2³¹ − 1, the sample's own
    temperature: float  # 0 takes the likeliest token


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one sample."""

    text: str
    token_count: int  # tokens the model wrote, the one that ended its turn included
    finish_reason: str  # "stop", "length"; an endpoint may give others
    # Nats per written token under the model's own distribution: of the logits as they are, before
    # temperature, top-k and top-p. None where an endpoint does not tell.
    mean_logprob: float | None


class Engine(Protocol):
    """A loaded engine."""

    name: str
    version: str
    load_s: float  # seconds from nothing to ready; set by who loads it

    def generate(self, samples: Sequence[Sample], finished: Callable[[int], None]) -> list[Answer]:
        """One answer for each sample, in order.

        `finished(n)` is called now and then with the number of samples done so far.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One answer as its tokens, the one that ended it included."""

    tokens: tuple[int, ...]
    # Nats of each token under the model's own distribution, before temperature, top-k and top-p.
    logprobs: tuple[float, ...]
    finish_reason: str  # "stop", "length"


class Sampler(Engine, Protocol):
    """An engine that follows a model in training."""

    def draw(self, samples: Sequence[Sample], finished: Callable[[int], None]) -> list[Drawn]:
        """One answer for each sample, in order, as `generate` draws them."""
        ...

    def refresh(self, weights: Mapping[str, Any]) -> None:
        """Take new weights in place: every tensor of the model, by transformers' name for it.

        Converted to the engine's own dtype. What was cached under the old weights is dropped.
        """
        ...

    def virtual_set(self, embeddings_WC: Any | None, layers: Sequence[tuple[Any, Any]]) -> None:
        """Take an adapter's W own tokens, in front of every prompt: as embeddings (W, C), or as
        keys and values (1, G, W, D) by layer. Behind `refresh`, whose weights embeddings go
        through. An engine that has no place for them raises RefusedError.
        """
        ...

    def logprobs(self, sequences: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """log p of every answer token of (prompt, answer) pairs, nats, computed by the engine.

        Neither part may be empty, and together they are shorter than the engine's context.
        """
        ...


def engine_choose(wanted: str) -> str:
    """The engine to use: "auto" is vllm where it is installed, otherwise transformers."""
    if wanted != "auto":
        return wanted
    return "vllm" if importlib.util.find_spec("vllm") is not None else "transformers"
