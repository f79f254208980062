"""Sample from a server that speaks the chat-completions protocol: vLLM's own, or a provider's.

The server lays the prompt by its own chat template. Log-probabilities are the ones it reports;
vLLM's server reports those of the model's own distribution, others may not say.

Answers are paid for: each is noted down as it arrives, so that a run that is killed, or fails on
one request, asks only for the others when it goes on.
"""

import asyncio
import json
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from modelhub.ml.configs import GenerateConfig, RefusedError
from modelhub.ml.engines import Answer, Sample
from modelhub.ml.records import json_canonical

_CONCURRENT = 32
_ATTEMPTS = 10  # at 30 % failures, one request in 170,000 uses them up
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 60.0
_TIMEOUT = httpx.Timeout(600.0, connect=10.0)
_MAX_REPLY_BYTES = 16 << 20
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})


class EndpointError(RuntimeError):
    """The endpoint failed for so long that the run gives up; started again, it goes on."""


class _PassingError(Exception):
    """Worth another try, after `wait_s` if the server named a time."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class OpenAIEngine:
    """An endpoint. See the Engine protocol."""

    name = "openai"
    load_s = 0.0

    def __init__(self, config: GenerateConfig, *, journal: Path) -> None:
        """journal: the file in which answers are noted as they arrive.

        Raises RefusedError if the environment variable that should hold the key does not.
        """
        self.version = config.endpoint_model
        self._config, self._journal = config, journal
        self._headers = {}
        if config.endpoint_key_variable:
            key = os.environ.get(config.endpoint_key_variable)
            if not key:
                raise RefusedError(
                    f"the environment variable {config.endpoint_key_variable} holds no key"
                )
            self._headers["Authorization"] = f"Bearer {key}"
        self._url = config.endpoint_url.rstrip("/") + "/chat/completions"
        if journal.exists() and not journal.read_bytes().endswith(b"\n"):
            with journal.open("ab") as file:
                file.write(b"\n")  # an earlier attempt was killed inside a line
        self._wants_logprobs = True
        # Waits differ from run to run, on purpose; answers do not depend on them.
        self._jitter = random.Random()  # noqa: S311

    def generate(self, samples: Sequence[Sample], finished: Callable[[int], None]) -> list[Answer]:
        return asyncio.run(self._generate(samples, finished))

    async def _generate(
        self, samples: Sequence[Sample], finished: Callable[[int], None]
    ) -> list[Answer]:
        answers = self._noted(samples)
        gate = asyncio.Semaphore(_CONCURRENT)
        # No redirects, no proxy from the environment: the key goes where the configuration says.
        async with httpx.AsyncClient(
            headers=self._headers,
            timeout=_TIMEOUT,
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=_CONCURRENT),
        ) as client:

            async def ask(place: int, sample: Sample) -> None:
                async with gate:
                    answers[place] = await self._ask(client, sample)
                self._note(sample, answers[place])
                finished(len(answers))

            results = await asyncio.gather(
                *(ask(i, one) for i, one in enumerate(samples) if i not in answers),
                return_exceptions=True,  # those that did answer are kept
            )
        failures = [one for one in results if isinstance(one, BaseException)]
        if failures:
            print(f"{len(failures)} of {len(samples)} answers did not come", flush=True)
            raise failures[0]
        return [answers[place] for place in range(len(samples))]

    async def _ask(self, client: httpx.AsyncClient, sample: Sample) -> Answer:
        for attempt in range(_ATTEMPTS):
            try:
                return await self._ask_once(client, sample)
            except (httpx.TransportError, _PassingError) as error:
                reason = str(error) or type(error).__name__
                wait_s = getattr(error, "wait_s", None)
            if attempt == _ATTEMPTS - 1:
                break
            longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
            # Jittered, so that requests that failed together do not come back together.
            await asyncio.sleep(max(wait_s or 0.0, longest * self._jitter.uniform(0.5, 1.0)))
        raise EndpointError(
            f"prompt {sample.prompt_id}, sample {sample.index}: no answer in {_ATTEMPTS} attempts; "
            f"the last: {reason}"
        )

    async def _ask_once(self, client: httpx.AsyncClient, sample: Sample) -> Answer:
        body: dict[str, Any] = {
            "model": self._config.endpoint_model,
            "messages": list(sample.messages),
            "n": 1,
            "seed": sample.seed,
            "temperature": sample.temperature,
            "top_p": self._config.top_p,
            "max_tokens": self._config.max_tokens,
        }
        if self._config.top_k:
            body["top_k"] = self._config.top_k  # vLLM's; providers without it refuse it
        asks_logprobs = self._wants_logprobs
        if asks_logprobs:
            body["logprobs"] = True
        async with client.stream("POST", self._url, json=body) as reply:
            text = await _read(reply)
            status, headers = reply.status_code, reply.headers
        if status == 200:
            return _answer(text)
        said = " ".join(text.decode(errors="replace").split())[:300]
        if status in _PASSING:
            raise _PassingError(f"status {status}: {said}", _retry_after(headers))
        if status in (400, 422) and asks_logprobs and "logprobs" in said:
            if self._wants_logprobs:
                print("the endpoint gives no log-probabilities; going on without", flush=True)
            self._wants_logprobs = False
            raise _PassingError(f"status {status}: {said}")
        if 300 <= status < 400:
            raise RefusedError(f"the endpoint redirects (status {status}); name the place itself")
        raise RefusedError(f"prompt {sample.prompt_id}: the endpoint says {status}: {said}")

    def _note(self, sample: Sample, answer: Answer) -> None:
        line = json_canonical({"sample": _key(sample), "answer": asdict(answer)})
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _noted(self, samples: Sequence[Sample]) -> dict[int, Answer]:
        """Answers that an earlier attempt was given: place in the chunk → answer."""
        if not self._journal.exists():
            return {}
        places = {json_canonical(_key(sample)): place for place, sample in enumerate(samples)}
        found: dict[int, Answer] = {}
        with self._journal.open("rb") as file:
            for line in file:
                try:
                    noted = json.loads(line)
                    place = places.get(json_canonical(noted["sample"]))
                    if place is not None:
                        found[place] = Answer(**noted["answer"])
                except (ValueError, KeyError, TypeError):
                    continue  # the line on which the earlier attempt was killed
        return found


def _key(sample: Sample) -> list[Any]:
    return [sample.prompt_id, sample.index, sample.seed, sample.temperature]


async def _read(reply: httpx.Response) -> bytes:
    parts, size = [], 0
    async for part in reply.aiter_bytes():
        size += len(part)
        if size > _MAX_REPLY_BYTES:
            raise RefusedError(f"the endpoint's reply is longer than {_MAX_REPLY_BYTES >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def _answer(text: bytes) -> Answer:
    """Read a reply. Raises _PassingError for one that does not read: servers send such when ill."""
    try:
        reply = json.loads(text)
        choice = reply["choices"][0]
        content = choice["message"].get("content") or ""
        told = (choice.get("logprobs") or {}).get("content") or []
        logprobs = [float(one["logprob"]) for one in told]
        count = (reply.get("usage") or {}).get("completion_tokens", len(logprobs) or None)
        reason = choice.get("finish_reason") or "unknown"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _PassingError(f"a reply that does not read: {text[:200]!r}") from error
    if not isinstance(content, str) or not isinstance(reason, str):
        raise _PassingError(f"a reply that does not read: {text[:200]!r}")
    if not isinstance(count, int) or count < 0:
        raise RefusedError(
            "the endpoint tells neither usage nor log-probabilities: how long is it?"
        )
    mean = sum(logprobs) / len(logprobs) if logprobs else math.nan
    # JSON can name half a surrogate pair, which no UTF-8 file can hold.
    whole = content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Answer(
        text=whole.replace("\0", "\ufffd"),
        token_count=count,
        finish_reason=reason[:20],
        # NaN and infinity are no log-probabilities, and no JSON: the endpoint has not told.
        mean_logprob=mean if math.isfinite(mean) else None,
    )


def _retry_after(headers: httpx.Headers) -> float | None:
    try:
        return min(_LONGEST_WAIT_S, max(0.0, float(headers.get("Retry-After", ""))))
    except ValueError:
        return None
