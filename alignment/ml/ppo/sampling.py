"""Answers from an engine that takes the actor's weights at every step, and what watches over it.

Legend: K answers of a prompt.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from alignment.ml.configs import OnlineSettings
from alignment.ml.ppo.networks import (
    autocast,
    plain_weights,
    rounded_weights,
    token_logprobs,
    virtual_tensors,
)
from alignment.ml.ppo.rewards import Answers
from alignment.ml.shared_prefix import Group, pack
from modelhub.ml.chat import (
    ChatTemplateError,
    answer_decode,
    end_of_turn_id,
    prompt_render,
    stop_ids,
)
from modelhub.ml.configs import GenerateConfig, RefusedError
from modelhub.ml.engines import Drawn, Sample, Sampler, engine_choose
from modelhub.ml.generate import PromptsError, model_eos, prompts_read, sample_seed
from modelhub.ml.model_directory import FUSED_EXPERTS, model_directory_check
from modelhub.ml.parallel import ALONE, Processes, objects_gather

_CANARY_PROMPTS = 8
_CANARY_TOKENS = 32  # of each
# Nats a token, mean. Engines in bfloat16 differ from float32 by 0.07 on SmolLM2 when they are
# fresh; one with a stale output layer by 0.44.
_TOLERANCE = {"float32": 2e-3, "bfloat16": 0.15}
_MOVED = 1e-4  # nats, the least move of the trainer's mean that an engine must follow


@dataclass(frozen=True)
class LaidPrompt:
    """A prompt in tokens."""

    prompt_id: str
    messages: tuple[dict[str, str], ...]
    tokens: tuple[int, ...]


def prompts_lay(path: Path, tokenizer: Any, *, room_tokens: int) -> list[LaidPrompt]:
    """Read prompts.jsonl and lay each out in tokens. Raises PromptsError naming each that is longer
    than `room_tokens`, or that the chat template refuses."""
    laid, problems = [], []
    for prompt in prompts_read(path):
        try:
            tokens = prompt_render(tokenizer, prompt.messages)
        except ChatTemplateError as error:
            problems.append(f"prompt {prompt.prompt_id}: {error}")
            continue
        if len(tokens) > room_tokens:
            problems.append(
                f"prompt {prompt.prompt_id}: {len(tokens)} tokens; beside an answer there is room "
                f"for {room_tokens}"
            )
        laid.append(LaidPrompt(prompt.prompt_id, tuple(prompt.messages), tuple(tokens)))
    if problems:
        raise PromptsError("\n".join(problems[:50]))
    return laid


class CanaryError(RefusedError):
    """Engine and trainer do not have the same policy; the message says how far they are apart."""


class Canary:
    """Fixed answers whose log-probabilities engine and trainer must agree on after each refresh.

    An engine that went on with old weights, or with a part of them, would draw answers of another
    policy than the one that learns from them, and nothing else would tell.
    """

    def __init__(self, sequences: Sequence[tuple[list[int], list[int]]], tolerance: float) -> None:
        """sequences: (prompt, answer) tokens. tolerance: mean nats a token."""
        self._sequences, self._tolerance = list(sequences), tolerance
        self._groups = [Group(prompt, [answer]) for prompt, answer in sequences]
        self._before: tuple[list[float], list[float]] | None = None  # (trainer's, engine's)

    def check(
        self,
        sampler: Sampler,
        actor: Any,
        config: OnlineSettings,
        *,
        step: int,
        processes: Processes = ALONE,
    ) -> float:
        """How far engine and trainer are apart, mean nats a token. Every process watches its own.

        Raises CanaryError if that is more than the tolerance, or if the trainer's log-probabilities
        have moved since the last check and the engine's have not at all, however little that is.
        """
        found = sampler.logprobs(self._sequences)
        ours, theirs = [], []
        for row in pack(self._groups, config.budget_tokens):
            with torch.no_grad(), autocast(config.dtype):
                ours += processes.forward(token_logprobs, actor, row)[0].tolist()
            theirs += [logprob for place in row.indices for logprob in found[place]]
        apart = fmean(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        if not apart <= self._tolerance:  # NaN is refused too
            raise CanaryError(
                f"step {step}: {sampler.name} and the trainer disagree on the same answers by "
                f"{apart:.3g} nats a token, more than {self._tolerance:g}: the engine does not "
                "have the weights that are trained, so the run stops before it learns from "
                "answers of another policy"
            )
        if self._before is not None:
            moved = fmean(abs(a - b) for a, b in zip(ours, self._before[0], strict=True))
            if moved > _MOVED and theirs == self._before[1]:
                raise CanaryError(
                    f"step {step}: the trainer's log-probabilities have moved by {moved:.3g} nats "
                    f"a token since the last step, {sampler.name}'s by nothing: it has kept its "
                    "old weights, so the run stops before it learns from answers of another policy"
                )
        self._before = (ours, theirs)
        return apart


def canary_make(prompts: Sequence[LaidPrompt], tokenizer: Any, config: OnlineSettings) -> Canary:
    """A canary on the first prompts, each "answered" with its own words."""
    length = min(_CANARY_TOKENS, config.max_tokens)
    sequences = []
    for prompt in prompts[:_CANARY_PROMPTS]:
        words = tokenizer(prompt.messages[-1]["content"], add_special_tokens=False)["input_ids"]
        sequences.append((list(prompt.tokens), list(words[:length]) or [prompt.tokens[-1]]))
    products = "bfloat16" if config.adapter == "qlora" else config.dtype
    tolerance = config.canary_tolerance or max(
        _TOLERANCE[config.sampler_dtype], _TOLERANCE[products]
    )
    return Canary(sequences, tolerance)


class Drawing:
    """An engine beside the actor: refreshed, watched, and asked for answers.

    Of several processes each has an engine of its own with the whole policy, and draws the answers
    to a share of the prompts; an answer's seed is its own, so that it comes out the same.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: Any,
        prompts: Sequence[LaidPrompt],
        config: OnlineSettings,
        sampler: Sampler | None = None,
        processes: Processes = ALONE,
    ) -> None:
        """prompts: all that will be asked, for the room they need. sampler: given in tests.

        Raises RefusedError for an engine that there is none of, or none of on several processes.
        """
        self._config, self._tokenizer, self._processes = config, tokenizer, processes
        self._ending = end_of_turn_id(tokenizer)
        self._stop_ids = stop_ids(tokenizer, model_eos(folder))
        longest = max(len(prompt.tokens) for prompt in prompts)
        # One more: vLLM's canary asks for a token behind its answer.
        context_tokens = longest + config.max_tokens + 1
        self._sampler = sampler or self._load(folder, context_tokens)
        self._canary = canary_make(prompts, tokenizer, config)
        self.name, self.version = self._sampler.name, self._sampler.version

    def _load(self, folder: Path, context_tokens: int) -> Sampler:
        config = self._config
        engine = GenerateConfig(
            temperatures=(config.temperature,),
            samples=config.samples,
            max_tokens=config.max_tokens,
            max_context_tokens=context_tokens,
            chunk_samples=config.prompts_per_step * config.samples,
            dtype=config.sampler_dtype,
            seed=config.seed,
        )
        settings: dict[str, Any] = {
            "tokenizer": self._tokenizer,
            "stop_ids": self._stop_ids,
            "context_tokens": context_tokens,
        }
        if self._processes.world > 1 and config.engine == "vllm":
            raise RefusedError(
                "engine vllm makes process groups of its own, and this process is one of "
                f"{self._processes.world}: take engine transformers, or one process"
            )
        if self._processes.world == 1 and self._engine(folder) == "vllm":
            try:
                from modelhub.ml.engines.vllm import VllmEngine
            except ImportError as error:
                raise RefusedError(f"engine vllm: it cannot be imported here: {error}") from error
            return VllmEngine(folder, engine, **settings)
        from modelhub.ml.engines.transformers import TransformersEngine

        # Its layers must reach back over the adapter's own tokens too.
        settings["context_tokens"] += config.own_tokens
        return TransformersEngine(folder, engine, **settings)

    def _engine(self, folder: Path) -> str:
        """vllm where it can take this policy's weights as they are trained, else transformers."""
        config = self._config
        if config.own_tokens:
            return "transformers"  # vLLM serves no adapter that puts tokens in front
        if model_directory_check(folder).architecture in FUSED_EXPERTS:
            if config.engine == "vllm":
                raise RefusedError(
                    "engine vllm does not take a mixture of experts' weights while it is trained, "
                    "which are laid otherwise there: take engine transformers"
                )
            return "transformers"
        return engine_choose(config.engine)

    def refresh(self, actor: Any, *, step: int) -> float:
        """Give the engine the actor's weights; how far they are apart then, nats a token.

        Raises CanaryError if that is too far.
        """
        weights = rounded_weights(
            plain_weights(actor), dtype=self._config.sampler_dtype, seed=self._config.seed + step
        )
        self._sampler.refresh(weights)
        if self._config.own_tokens:
            with torch.no_grad():
                embeddings_WC, layers = self._processes.forward(virtual_tensors, actor)
            self._sampler.virtual_set(embeddings_WC, layers)
        return self._canary.check(
            self._sampler, actor, self._config, step=step, processes=self._processes
        )

    def draw(
        self,
        prompts: Sequence[LaidPrompt],
        *,
        samples: int,
        salt: str,
        finished: Callable[[int], None] = lambda _: None,
    ) -> Answers:
        """`samples` answers to each prompt. The same salt, seed and weights give the same ones.

        finished: called with the number of this process's answers that are done.
        """
        seed = random.Random(f"{self._config.seed}:{salt}").getrandbits(31)  # noqa: S311
        shared = self._processes.share(range(len(prompts)), cost=lambda at: len(prompts[at].tokens))
        own = [place for place, weight in shared if weight]
        asked = [
            Sample(
                prompt_id=prompts[place].prompt_id,
                index=index,
                messages=prompts[place].messages,
                prompt_tokens=prompts[place].tokens,
                seed=sample_seed(seed, prompts[place].prompt_id, index),
                temperature=self._config.temperature,
            )
            for place in own
            for index in range(samples)
        ]
        drawn = self._sampler.draw(asked, finished) if asked else []
        by_prompt = _drawn_gather(
            {place: drawn[at * samples : (at + 1) * samples] for at, place in enumerate(own)}
        )
        return Answers(
            prompt_ids=[prompt.prompt_id for prompt in prompts],
            groups=[
                Group(list(prompt.tokens), [list(one.tokens) for one in own])
                for prompt, own in zip(prompts, by_prompt, strict=True)
            ],
            judged=[
                Group(list(prompt.tokens), [self._judged(one) for one in own])
                for prompt, own in zip(prompts, by_prompt, strict=True)
            ],
            texts=[[self._text(one) for one in own] for own in by_prompt],
            ended=[[one.finish_reason == "stop" for one in own] for own in by_prompt],
        )

    def _judged(self, drawn: Drawn) -> list[int]:
        """The tokens as reward models have learnt to read them: a policy may end its turn by
        another token than the chat template's."""
        if drawn.finish_reason == "stop":
            return [*drawn.tokens[:-1], self._ending]
        return list(drawn.tokens)

    def _text(self, drawn: Drawn) -> str:
        written = drawn.tokens[:-1] if drawn.finish_reason == "stop" else drawn.tokens
        return answer_decode(self._tokenizer, written)


def _drawn_gather(own: dict[int, list[Drawn]]) -> list[list[Drawn]]:
    """Every process's answers, by the place of their prompt."""
    told = [(place, [asdict(one) for one in drawn]) for place, drawn in own.items()]
    found = {place: drawn for rank in objects_gather(told) for place, drawn in rank}
    return [[Drawn(**one) for one in found[place]] for place in range(len(found))]


def room_tokens(folder: Path, config: OnlineSettings) -> int:
    """Tokens a prompt may have, so that an answer fits behind it."""
    room = model_directory_check(folder).context_tokens - 1 - config.own_tokens
    return min(config.max_context_tokens, room) - config.max_tokens
