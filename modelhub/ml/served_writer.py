"""The same of a model that vLLM serves: it is asked there, by the same tokens."""

import math
from collections.abc import Iterator
from typing import Any

import httpx
import torch
from transformers import DynamicCache

from modelhub.ml.adapter import ModelInput
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import json_strict
from modelhub.ml.trials import PlaygroundConfig, Strategy
from modelhub.ml.writer import Token, Writer, endings, probability_short
from modelhub.ml.writing_models import Read

_SERVER_TIMEOUT = httpx.Timeout(120.0, connect=5.0)


class ServedWriter(Writer):
    """The same of a model that vLLM serves: given the same tokens, it answers by its own draws.

    Servers tell probabilities in the model's own distribution alone: `q` is 0 throughout.
    """

    def __init__(
        self,
        server: str,
        name: str,
        given: ModelInput,
        tokenizer: Any,
        config: PlaygroundConfig,
    ) -> None:
        self.tokenizer, self._config = tokenizer, config
        self._server, self._name_there = server, name
        self._stop_ids = endings(given, tokenizer, config)

    def prompt_read(self, tokens: list[int]) -> Read:
        return Read(tokens, tokens, DynamicCache(), torch.empty(0), torch.empty(0))

    def write(self, read: Read, strategy: Strategy) -> Iterator[list[Token]]:
        try:
            yield from self._stream(read, strategy)
        except httpx.TransportError as error:
            raise RefusedError(
                f"{self._name_there} does not answer: serve it again, or take the tick away"
            ) from error

    def _stream(self, read: Read, strategy: Strategy) -> Iterator[list[Token]]:
        drawn = strategy.kind == "sample"
        body = {
            "model": self._name_there,
            "prompt": read.tokens,
            "max_tokens": self._config.max_tokens,
            "seed": self._config.seed,
            "temperature": strategy.temperature if drawn else 0.0,
            "repetition_penalty": strategy.repetition_penalty,
            "stop_token_ids": sorted(self._stop_ids),
            "logprobs": self._config.alternatives,
            "return_tokens_as_token_ids": True,
            "stream": True,
        }
        if drawn:
            body |= {"top_p": strategy.top_p, "min_p": strategy.min_p}
            body |= {"top_k": strategy.top_k} if strategy.top_k else {}
        written = list[Token]()
        url = self._server.rstrip("/") + "/completions"
        with (
            httpx.Client(timeout=_SERVER_TIMEOUT, trust_env=False) as client,
            client.stream("POST", url, json=body) as reply,
        ):
            if reply.status_code != 200:
                said = f"{reply.status_code}: {reply.read()[:300].decode('utf-8', 'replace')}"
                raise RefusedError(f"{self._name_there}: its server says {said}")
            for line in reply.iter_lines():
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:") or data == "[DONE]":
                    continue
                for token in served_tokens(json_strict(data.encode())):
                    written.append(token)
                    yield written
                    if self._is_ended(written):
                        return  # a stop word: the server goes on no further for nobody
        if not written or not self._is_ended(written):
            raise RuntimeError(f"{self._name_there}: its server broke off")


def served_tokens(event: dict[str, Any]) -> list[Token]:
    """The tokens of one event of a completion that streams, as vLLM names them: "token_id:17"."""
    found = list[Token]()
    for choice in event.get("choices") or ():
        told = choice.get("logprobs") or {}
        for name, nats, top in zip(
            told.get("tokens") or (),
            told.get("token_logprobs") or (),
            told.get("top_logprobs") or (),
            strict=True,
        ):
            likeliest = sorted(top.items(), key=lambda one: -one[1])
            others = [
                (_served_id(one), probability_short(math.exp(logp)), 0.0) for one, logp in likeliest
            ]
            found.append(Token(_served_id(name), probability_short(math.exp(nats)), 0.0, others))
    return found


def _served_id(name: str) -> int:
    return int(name.removeprefix("token_id:"))
