"""Sample answers to prompts.

    python -m modelhub.ml.generate RUN_DIR

Reads input `prompts` (prompts.jsonl) and, unless an endpoint is asked, `model`; writes output
`candidates` (candidates.jsonl): every prompt in its order, its samples by index. `model` may be an
adapter; its base is then input `model_base`.

The samples are cut into chunks of whole prompts. A chunk is drawn together and its records are
put in place as one file, so that a run killed at any point goes on with the first chunk that is
missing. Each chunk is drawn from the same state, each sample from a seed of its own: the
output of a resumed run equals that of one never interrupted.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modelhub.ml.adapter_directory import adapter_directory_check
from modelhub.ml.configs import GenerateConfig, RefusedError
from modelhub.ml.engines import Answer, Engine, Sample, engine_choose
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.records import (
    CandidateRecord,
    PromptRecord,
    RecordError,
    json_canonical,
    json_strict,
    record_load,
    records_read,
    records_write,
)
from modelhub.ml.rundir import RunDir, program_run

# Threads that wait for one another sleep rather than spin. Beside other busy processes (a site, a
# worker) spinning made sampling on two cores six times slower; alone it gains next to nothing.
# Read when torch is loaded, which the engines do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_ROLES = ("system", "user", "assistant")
_NAMED_AT_MOST = 50


class PromptsError(RefusedError):
    """Prompts were refused; the message names every bad line, up to fifty."""


def main(run: RunDir) -> None:
    config = run.config(GenerateConfig)
    prompts = prompts_read(run.input("prompts") / "prompts.jsonl")
    prompts = [prompt_prefix(prompt, config.pre_prompt) for prompt in prompts]
    engine_name, why = engine_choose(config.engine), ""
    if config.engine == "auto":
        why = f" (auto: vLLM is {'' if engine_name == 'vllm' else 'not '}installed)"
        if engine_name == "vllm" and _has_virtual_tokens(run):
            engine_name, why = "transformers", " (auto: vLLM serves LoRA adapters alone)"
    print(f"engine: {engine_name}{why}", flush=True)
    maker = _EngineMaker(run, config, engine_name)
    samples = samples_plan(prompts, config, maker.prompts_lay(prompts))
    chunks = chunks_cut(samples, config)
    parts = _Parts(run.path / "checkpoints" / "parts", chunks, config, engine_name)

    done = sum(len(chunk) for number, chunk in enumerate(chunks) if parts.has(number))
    if done:
        print(f"resuming: {done} of {len(samples)} answers are there already", flush=True)
    run.progress(done, len(samples), "answers")
    engine: Engine | None = None
    for number, chunk in enumerate(chunks):
        if parts.has(number):
            continue
        if engine is None:
            started = time.monotonic()
            engine = maker.engine_load()
            engine.load_s = time.monotonic() - started  # its libraries' import included
            print(f"{engine.name} {engine.version} loaded in {engine.load_s:.1f} s", flush=True)
        started = time.monotonic()
        answers = engine.generate(chunk, _progress_teller(run, done, len(samples)))
        seconds = time.monotonic() - started
        parts.write(number, answers, engine=engine, seconds=seconds)
        done += len(chunk)
        run.progress(done, len(samples), "answers")
        run.metric(number, chunk_metrics(answers, seconds))

    folder = run.output("candidates")
    records_write(folder / "candidates.jsonl", parts.records())
    run.succeed(outputs={"candidates": "candidates"}, result=parts.facts(prompts=len(prompts)))


def _has_virtual_tokens(run: RunDir) -> bool:
    """Whether the model is an adapter of that kind; a whole model is not read for it."""
    if not run.has_input("model_base"):
        return False
    return adapter_directory_check(run.input("model")).virtual_tokens > 0


def _progress_teller(run: RunDir, before: int, total: int) -> Callable[[int], None]:
    """A function that reports the answers done in a chunk, once a second at most."""
    last = time.monotonic()

    def tell(count: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 1.0:
            last = time.monotonic()
            run.progress(before + count, total, "answers")

    return tell


def prompts_read(path: Path) -> list[PromptRecord]:
    """The prompts of a file. Raises PromptsError naming each line that cannot be used."""
    prompts: list[PromptRecord] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                try:
                    value = json_strict(line)
                except ValueError as error:
                    raise RecordError(path.name, number, "", str(error)) from error
                prompt = record_load(PromptRecord, value, file=path.name, line=number)
                _prompt_check(prompt, path.name, number)
                if prompt.prompt_id in seen:
                    first = seen[prompt.prompt_id]
                    raise RecordError(path.name, number, "prompt_id", f"already on line {first}")
            except RecordError as error:
                problems.append(str(error))
                continue
            seen[prompt.prompt_id] = number
            prompts.append(prompt)
    if problems:
        raise PromptsError(_problems_text(problems))
    if not prompts:
        raise PromptsError(f"{path.name} holds no prompt")
    return prompts


def prompt_prefix(prompt: PromptRecord, pre_prompt: str) -> PromptRecord:
    """The prompt with words in front of its first question, where every chat template has room."""
    if not pre_prompt:
        return prompt
    first = next(i for i, one in enumerate(prompt.messages) if one["role"] == "user")
    asked = f"{pre_prompt}\n\n{prompt.messages[first]['content']}"
    messages = list(prompt.messages)
    messages[first] = {"role": "user", "content": asked}
    return PromptRecord(prompt_id=prompt.prompt_id, messages=messages)


def _prompt_check(prompt: PromptRecord, file: str, line: int) -> None:
    if not prompt.prompt_id:
        raise RecordError(file, line, "prompt_id", "empty")
    if not prompt.messages:
        raise RecordError(file, line, "messages", "no message")
    for place, message in enumerate(prompt.messages):
        where = f"messages[{place}]"
        if message.keys() != {"role", "content"}:
            raise RecordError(file, line, where, "wanted role and content")
        if message["role"] not in _ROLES:
            raise RecordError(file, line, f"{where}.role", f"unknown role {message['role']!r:.40}")
        if not message["content"].strip():
            raise RecordError(file, line, f"{where}.content", "empty")
    if prompt.messages[-1]["role"] != "user":
        raise RecordError(file, line, "messages", "the last message is not a user's")


def _problems_text(problems: Sequence[str]) -> str:
    more = len(problems) - _NAMED_AT_MOST
    shown = list(problems[:_NAMED_AT_MOST]) + ([f"… and {more} more"] if more > 0 else [])
    return "\n".join(shown)


def sample_seed(seed: int, prompt_id: str, index: int) -> int:
    """A sample's own seed, 0 to 2³¹ − 1: the same whatever is sampled beside it."""
    digest = hashlib.sha256(json_canonical([seed, prompt_id, index]).encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def samples_plan(
    prompts: Sequence[PromptRecord], config: GenerateConfig, laid: Sequence[tuple[int, ...]]
) -> list[Sample]:
    """Every answer to draw: prompts in order, `config.samples` of each. `laid`: their tokens."""
    ladder = config.temperatures
    return [
        Sample(
            prompt_id=prompt.prompt_id,
            index=index,
            messages=tuple(prompt.messages),
            prompt_tokens=tokens,
            seed=sample_seed(config.seed, prompt.prompt_id, index),
            temperature=ladder[index % len(ladder)],
        )
        for prompt, tokens in zip(prompts, laid, strict=True)
        for index in range(config.samples)
    ]


def chunks_cut(samples: Sequence[Sample], config: GenerateConfig) -> list[list[Sample]]:
    """Chunks of whole prompts, at most `chunk_samples` answers each but at least one prompt."""
    size = max(1, config.chunk_samples // config.samples) * config.samples
    return [list(samples[start : start + size]) for start in range(0, len(samples), size)]


def chunk_metrics(answers: Sequence[Answer], seconds: float) -> dict[str, float]:
    """What a chunk shows on the run's curves."""
    tokens = sum(answer.token_count for answer in answers)
    told = [answer.mean_logprob for answer in answers if answer.mean_logprob is not None]
    metrics = {
        "tokens_per_s": tokens / max(seconds, 1e-9),
        "mean_tokens": tokens / len(answers),
        "finished_share": sum(one.finish_reason == "stop" for one in answers) / len(answers),
    }
    if told:
        metrics["mean_logprob"] = sum(told) / len(told)
    return metrics


class _EngineMaker:
    """Lays the prompts for an engine at once, and loads it only when there is something to draw."""

    def __init__(self, run: RunDir, config: GenerateConfig, name: str) -> None:
        self._run, self._config, self._name = run, config, name
        self._model: Any = None  # modelhub.ml.adapter.ModelInput
        self._tokenizer: Any = None
        self._longest = 0

    def prompts_lay(self, prompts: Sequence[PromptRecord]) -> list[tuple[int, ...]]:
        """Each prompt's tokens; empty ones for an endpoint, which lays prompts by itself.

        Raises PromptsError naming each prompt that is too long for the model or the configuration.
        """
        if self._name == "openai":
            return [() for _ in prompts]
        from modelhub.ml.adapter import model_context, model_input
        from modelhub.ml.chat import ChatTemplateError, prompt_render
        from modelhub.ml.checkpoint import tokenizer_load

        self._model = model_input(self._run, "model")
        facts = model_directory_check(self._model.whole, quantised=True)
        if facts.role != "causal":
            raise RefusedError(f"a {facts.architecture} scores answers, it writes none")
        self._tokenizer = tokenizer_load(self._model.whole)
        context = model_context(self._model, quantised=True)
        limit = min(self._config.max_context_tokens, context)
        room = limit - self._config.max_tokens
        laid, problems = [], []
        for prompt in prompts:
            try:
                tokens = prompt_render(self._tokenizer, prompt.messages)
            except ChatTemplateError as error:
                problems.append(f"prompt {prompt.prompt_id}: {error}")
                continue
            if len(tokens) > room:
                problems.append(
                    f"prompt {prompt.prompt_id}: {len(tokens)} tokens; with answers of "
                    f"{self._config.max_tokens} there is room for {room} of {limit}"
                )
            laid.append(tuple(tokens))
        if problems:
            raise PromptsError(_problems_text(problems))
        self._longest = max(map(len, laid))
        return laid

    def engine_load(self) -> Engine:
        if self._name == "openai":
            from modelhub.ml.engines.openai import OpenAIEngine

            return OpenAIEngine(
                self._config, journal=self._run.path / "checkpoints" / "parts" / "answers.jsonl"
            )
        if self._model is None:
            raise RuntimeError("the prompts are laid before the engine is loaded")
        return local_engine_load(
            self._name,
            self._model,
            self._config,
            tokenizer=self._tokenizer,
            context_tokens=self._longest + self._config.max_tokens,
        )


def local_engine_load(
    name: str, model: Any, config: GenerateConfig, *, tokenizer: Any, context_tokens: int
) -> Engine:
    """An engine of this process, for a `modelhub.ml.adapter.ModelInput`. name: as `engine_choose`.

    context_tokens: the longest prompt and answer together that will be asked.
    """
    from modelhub.ml.chat import stop_ids

    settings: dict[str, Any] = {
        "tokenizer": tokenizer,
        "stop_ids": stop_ids(tokenizer, model_eos(model.whole)),
        "context_tokens": context_tokens,
        "base": model.base,
    }
    if name == "vllm":
        try:
            from modelhub.ml.engines.vllm import VllmEngine
        except ImportError as error:
            raise RefusedError(f"engine vllm: it cannot be imported here: {error}") from error
        return VllmEngine(model.folder, config, **settings)
    from modelhub.ml.engines.transformers import TransformersEngine

    return TransformersEngine(model.folder, config, **settings)


def model_eos(folder: Path) -> list[int]:
    """The ending tokens named in the model's own generation settings."""
    path = folder / "generation_config.json"
    named = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
    return [named] if isinstance(named, int) else list(named or [])


class _Parts:
    """The chunks drawn so far, a file each: part-00000.jsonl with its records, and part-00000.json
    with how long that took."""

    def __init__(
        self,
        folder: Path,
        chunks: Sequence[Sequence[Sample]],
        config: GenerateConfig,
        engine_name: str,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._chunks, self._config = folder, chunks, config
        self._engine_name = engine_name
        self._whole = {number for number in range(len(chunks)) if self._check(number)}

    def has(self, number: int) -> bool:
        return number in self._whole

    def write(
        self, number: int, answers: Sequence[Answer], *, engine: Engine, seconds: float
    ) -> None:
        """Keep a chunk. Its records come last: with them it counts as drawn."""
        times = {"seconds": seconds, "load_s": engine.load_s, "version": engine.version}
        self._path(number, "json").write_text(json_canonical(times))
        records = [
            CandidateRecord(
                prompt_id=sample.prompt_id,
                index=sample.index,
                text=answer.text,
                token_count=answer.token_count,
                finish_reason=answer.finish_reason,
                mean_logprob=answer.mean_logprob,
                seed=sample.seed,
                temperature=sample.temperature,
                top_p=self._config.top_p,
                top_k=self._config.top_k,
                max_tokens=self._config.max_tokens,
                engine=self._engine_name,
            )
            for sample, answer in zip(self._chunks[number], answers, strict=True)
        ]
        records_write(self._path(number, "jsonl"), records)
        self._whole.add(number)

    def records(self) -> list[CandidateRecord]:
        return [
            record
            for number in range(len(self._chunks))
            for record in records_read(self._path(number, "jsonl"), CandidateRecord)
        ]

    def facts(self, *, prompts: int) -> dict[str, Any]:
        """The run's result: what was drawn, by what, how fast. Loading is not part of seconds."""
        records = self.records()
        times = [
            json.loads(self._path(number, "json").read_text())
            for number in range(len(self._chunks))
        ]
        tokens = sum(record.token_count for record in records)
        seconds = sum(one["seconds"] for one in times)
        finished = sum(record.finish_reason == "stop" for record in records)
        return {
            "engine": self._engine_name,
            "engine_version": times[-1]["version"],
            "prompts": prompts,
            "answers": len(records),
            "tokens": tokens,
            "seconds": round(seconds, 3),
            "tokens_per_s": round(tokens / max(seconds, 1e-9), 1),
            "load_s": round(times[-1]["load_s"], 3),
            "mean_tokens": round(tokens / len(records), 2),
            "finished_share": round(finished / len(records), 4),
        }

    def _path(self, number: int, suffix: str) -> Path:
        return self._folder / f"part-{number:05d}.{suffix}"

    def _check(self, number: int) -> bool:
        """Whether a chunk is there whole, drawn as it would be drawn now."""
        path = self._path(number, "jsonl")
        if not path.exists() or not self._path(number, "json").exists():
            return False
        try:
            records = list(records_read(path, CandidateRecord))
        except RecordError as error:
            print(f"drawn again: {error}", flush=True)
            return False
        config = self._config
        expected = [
            (one.prompt_id, one.index, one.seed, one.temperature) for one in self._chunks[number]
        ]
        found = [(one.prompt_id, one.index, one.seed, one.temperature) for one in records]
        settings = (config.top_p, config.top_k, config.max_tokens, self._engine_name)
        same = all((r.top_p, r.top_k, r.max_tokens, r.engine) == settings for r in records)
        if found != expected or not same:
            print(f"drawn again: {path.name} was drawn with other settings", flush=True)
            return False
        return True


if __name__ == "__main__":
    program_run(main)
