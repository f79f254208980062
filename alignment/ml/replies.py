"""Ask a model, or an endpoint, and keep what it said: for the programs that read replies.

Questions are cut into chunks as `modelhub.ml.generate` cuts its samples: a chunk is drawn from one
state, each reply from a seed of its own, and its replies are put in place as one file. Killed and
started again, a program asks for the missing chunks alone and is told the same.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelhub.ml.adapter import model_context, model_input
from modelhub.ml.chat import prompt_render
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import GenerateConfig, RefusedError
from modelhub.ml.engines import Engine, Sample, engine_choose
from modelhub.ml.engines.openai import OpenAIEngine
from modelhub.ml.generate import local_engine_load, sample_seed
from modelhub.ml.records import json_canonical, records_read, records_write
from modelhub.ml.rundir import RunDir

MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class Question:
    """Something to ask. `name` and `attempt` give it a seed of its own."""

    name: str
    messages: tuple[dict[str, str], ...]
    temperature: float
    attempt: int = 0


@dataclass(frozen=True, kw_only=True)
class ReplyRecord:
    """What was said to a question: a line of a chunk's file."""

    question: str  # SHA-256 of all that decides the reply
    text: str
    finish_reason: str  # "stop", "length"; "too_long": the question had no room, and was not asked


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a question came to in the end."""

    text: str
    finish_reason: str
    attempts: int


class Asker:
    """The run's input `model`, or the configuration's endpoint, loaded when it is first asked."""

    def __init__(self, run: RunDir, config: GenerateConfig) -> None:
        self._run, self._config = run, config
        self._name = engine_choose(config.engine)
        self._engine: Engine | None = None
        self._folder = run.path / "checkpoints" / "replies"
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._name != "openai":
            if not run.has_input(MODEL):
                raise RefusedError("there is nobody to ask: no input model, and no endpoint")
            self._model = model_input(run, MODEL)
            self._tokenizer = tokenizer_load(self._model.whole)
            self._limit = min(config.max_context_tokens, model_context(self._model))

    def ask(self, part: str, questions: Sequence[Question]) -> list[ReplyRecord]:
        """A reply to each question, in order. part: a name of these questions' own in the run."""
        replies: list[ReplyRecord] = []
        size = self._config.chunk_samples
        for number, start in enumerate(range(0, len(questions), size)):
            chunk = questions[start : start + size]
            keys = [self._key(one) for one in chunk]
            path = self._folder / f"{part}-{number:05d}.jsonl"
            found = list(records_read(path, ReplyRecord)) if path.exists() else []
            if [one.question for one in found] != keys:
                found = self._draw(chunk, keys)
                records_write(path, found)
            replies += found
        return replies

    def ask_until(
        self,
        part: str,
        questions: Mapping[str, tuple[dict[str, str], ...]],
        *,
        reads: Callable[[ReplyRecord], bool],
    ) -> list[Told]:
        """A reply to each question (name → messages), in order.

        One that does not read is asked for again, at the next of the configuration's temperatures,
        while there is one; a question without room for a reply is not.
        """
        names = list(questions)
        found: dict[str, Told] = {}
        for attempt, temperature in enumerate(self._config.temperatures):
            asked = [
                Question(
                    name=name,
                    messages=questions[name],
                    temperature=temperature,
                    attempt=attempt,
                )
                for name in names
            ]
            replies = dict(zip(names, self.ask(f"{part}-{attempt}", asked), strict=True))
            for name, reply in replies.items():
                found[name] = Told(
                    text=reply.text, finish_reason=reply.finish_reason, attempts=attempt + 1
                )
            names = [
                name
                for name, reply in replies.items()
                if reply.finish_reason != "too_long" and not reads(reply)
            ]
        return [found[name] for name in questions]

    def _draw(self, chunk: Sequence[Question], keys: Sequence[str]) -> list[ReplyRecord]:
        samples = {place: self._sample(one) for place, one in enumerate(chunk)}
        fitting = {place: one for place, one in samples.items() if one is not None}
        answers = self._load().generate(list(fitting.values()), lambda _: None) if fitting else []
        said = dict(zip(fitting, answers, strict=True))
        return [
            ReplyRecord(
                question=key,
                text=said[place].text if place in said else "",
                finish_reason=said[place].finish_reason if place in said else "too_long",
            )
            for place, key in enumerate(keys)
        ]

    def _sample(self, question: Question) -> Sample | None:
        """The question as an engine is asked it; None if it leaves no room for a reply."""
        tokens: tuple[int, ...] = ()
        if self._name != "openai":
            tokens = tuple(prompt_render(self._tokenizer, list(question.messages)))
            if len(tokens) + self._config.max_tokens > self._limit:
                return None
        return Sample(
            prompt_id=question.name,
            index=question.attempt,
            messages=question.messages,
            prompt_tokens=tokens,
            seed=sample_seed(self._config.seed, question.name, question.attempt),
            temperature=question.temperature,
        )

    def _load(self) -> Engine:
        if self._engine is None and self._name == "openai":
            journal = self._run.path / "checkpoints" / "replies" / "answers.journal"
            self._engine = OpenAIEngine(self._config, journal=journal)
        elif self._engine is None:
            self._engine = local_engine_load(
                self._name,
                self._model,
                self._config,
                tokenizer=self._tokenizer,
                context_tokens=self._limit,
            )
        return self._engine

    def _key(self, question: Question) -> str:
        asked: list[Any] = [question.name, question.attempt, question.temperature]
        asked += [list(question.messages), self._config.seed, self._config.max_tokens, self._name]
        return hashlib.sha256(json_canonical(asked).encode()).hexdigest()
