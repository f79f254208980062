"""Asking an endpoint for one answer, as it is written: what people talk to live.

The chat-completions protocol with `stream`. Sampling in bulk is a run (modelhub.ml.engines.openai).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from modelhub.models import Endpoint

# A model that says nothing for so long has failed; the whole answer may take longer.
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_MAX_LINE_CHARS = 1 << 20
_MAX_ANSWER_CHARS = 1 << 18


class EndpointFailedError(RuntimeError):
    """The endpoint gave no answer; the text says why, and holds no key."""


def answer_stream(
    *,
    endpoint: Endpoint,
    messages: Sequence[Mapping[str, str]],
    temperature: float,
    max_tokens: int,
) -> Iterator[str]:
    """Yield the parts of an answer as they come. Raises EndpointFailedError.

    The connection ends when the iterator is closed. Asks no database.
    """
    headers = {}
    if endpoint.api_key_variable:
        key = os.environ.get(endpoint.api_key_variable)
        if not key:
            raise EndpointFailedError(f"{endpoint.api_key_variable} is not set where Rondo runs")
        headers["Authorization"] = f"Bearer {key}"
    body: dict[str, Any] = {
        "model": endpoint.served_model,
        "messages": [dict(one) for one in messages],
        "temperature": temperature,
        "max_tokens": max_tokens,
        "stream": True,
    }
    url = endpoint.base_url.rstrip("/") + "/chat/completions"
    try:
        # No redirects, no proxy from the environment: the key goes where the hub says.
        with (
            httpx.Client(
                headers=headers, timeout=_TIMEOUT, follow_redirects=False, trust_env=False
            ) as client,
            client.stream("POST", url, json=body) as reply,
        ):
            if reply.status_code != 200:
                raise EndpointFailedError(f"{endpoint} answered with status {reply.status_code}")
            yield from _deltas(reply.iter_lines(), endpoint)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EndpointFailedError(f"{endpoint} did not answer: {type(error).__name__}") from error


def _deltas(lines: Iterator[str], endpoint: Endpoint) -> Iterator[str]:
    size = 0
    for line in lines:
        if len(line) > _MAX_LINE_CHARS:
            raise EndpointFailedError(f"{endpoint} sent a line that is too long")
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
            choices = event["choices"]
            part = choices[0]["delta"].get("content") if choices else None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise EndpointFailedError(f"{endpoint} sent what does not read") from error
        if not part:
            continue
        if not isinstance(part, str):
            raise EndpointFailedError(f"{endpoint} sent what does not read")
        size += len(part)
        if size > _MAX_ANSWER_CHARS:
            raise EndpointFailedError(f"{endpoint} does not stop")
        # JSON can name half a surrogate pair, and PostgreSQL's text holds no NUL.
        yield (
            part.encode("utf-16", "surrogatepass")
            .decode("utf-16", "replace")
            .replace("\0", "\ufffd")
        )
    raise EndpointFailedError(f"{endpoint} broke off")
