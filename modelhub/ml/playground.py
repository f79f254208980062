"""One prompt, several models, several ways to decode, token by token.

    python -m modelhub.ml.playground RUN_DIR

Reads inputs `model_0`, `model_1`, … (an adapter's base as `model_0_base`). Each pair of model and
strategy is a cell. `trial.json` in the run directory holds every cell written so far, renamed into
place a few times a second: a page follows it, and a run that was killed goes on with the first cell
that is not whole. The last state of it is the run's result.

A model that vLLM serves is asked there, by the same tokens, if the settings name its server.

How a model writes: `modelhub/ml/writer.py`, what it remembers `writing_models.py`; one that is
served: `served_writer.py`.
"""

import time
from collections.abc import Sequence
from typing import Any

from modelhub.ml.adapter import model_context, model_input
from modelhub.ml.chat import prompt_text
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import json_canonical, json_strict
from modelhub.ml.rundir import RunDir, program_run
from modelhub.ml.served_writer import ServedWriter
from modelhub.ml.trials import FEW_SHOT, TRIAL_NAME, PlaygroundConfig
from modelhub.ml.writer import Token, Writer
from modelhub.ml.writing_models import Read

_TELL_EVERY_S = 0.25


def main(run: RunDir) -> None:
    config = run.config(PlaygroundConfig)
    trial = _Trial(run, config)
    for place, name in enumerate(config.models):
        waiting = [n for n in range(len(config.decodings)) if not trial.has(place, n)]
        if not waiting:
            continue
        started = time.monotonic()
        given = model_input(run, f"model_{place}")
        tokenizer = tokenizer_load(given.whole)
        text, prompt_tokens = prompt_lay(tokenizer, config)
        room = model_context(given, any_writer=True) - config.max_tokens
        if len(prompt_tokens) > room:
            raise RefusedError(
                f"{name}: the prompt has {len(prompt_tokens)} tokens; with answers of "
                f"{config.max_tokens} there is room for {room}"
            )
        server = config.servers[place] if config.servers else ""
        if server:
            named = config.served_names[place]
            writer: Writer = ServedWriter(server, named, given, tokenizer, config)
        else:
            writer = Writer(given, tokenizer, config)
        load_s = time.monotonic() - started
        print(f"{name} loaded in {load_s:.1f} s", flush=True)
        started = time.monotonic()
        read = writer.prompt_read(prompt_tokens)
        facts = {
            "laid": text if read.tokens == prompt_tokens else tokenizer.decode(read.tokens),
            "prompt_tokens": len(read.tokens),
            "load_s": round(load_s, 3),
            "prefill_s": round(time.monotonic() - started, 4),
        }
        trial.model_tell(place, facts)
        for number in waiting:
            trial.cell_write(place, number, writer, read)
    run.succeed(outputs={}, result=trial.whole())


def prompt_lay(tokenizer: Any, config: PlaygroundConfig) -> tuple[str, list[int]]:
    """What a model is given: (text, tokens). Raises ChatTemplateError where "chat" is asked of a
    model without a template."""
    if config.layout == "chat":
        system = [{"role": "system", "content": config.system}] if config.system else []
        text = prompt_text(tokenizer, [*system, {"role": "user", "content": config.prompt}])
        # The template writes the beginning-of-text token itself.
        return text, list(tokenizer(text, add_special_tokens=False)["input_ids"])
    text = config.prompt
    if config.layout == "few_shot":
        text = FEW_SHOT[config.few_shot].text.replace("{prompt}", config.prompt.strip())
    tokens = list(tokenizer(text)["input_ids"])
    if tokens and tokens[-1] == tokenizer.eos_token_id:
        tokens.pop()  # some tokenizers end every text
    return text, tokens


class _Trial:
    """The cells of a run, in trial.json."""

    def __init__(self, run: RunDir, config: PlaygroundConfig) -> None:
        self._run, self._config = run, config
        self._models: list[dict[str, Any]] = [{} for _ in config.models]
        self._cells: dict[tuple[int, int], dict[str, Any]] = {}
        self._told = 0.0
        path = run.path / TRIAL_NAME
        if path.exists():
            try:
                kept = json_strict(path.read_bytes())
                self._models = kept["models"]
                cells = {(one["model"], one["strategy"]): one for one in kept["cells"]}
            except (ValueError, KeyError, TypeError) as error:
                print(f"{TRIAL_NAME} passed over: {error}", flush=True)
            else:
                self._cells = {at: one for at, one in cells.items() if one["finish_reason"]}
                print(f"resuming: {len(self._cells)} answers are there already", flush=True)
        self._tell()

    def has(self, place: int, number: int) -> bool:
        return (place, number) in self._cells

    def model_tell(self, place: int, facts: dict[str, Any]) -> None:
        self._models[place] = facts
        self._tell()

    def cell_write(self, place: int, number: int, writer: Writer, read: Read) -> None:
        """Let a model write in a strategy, and keep the answer."""
        prefill_s = self._models[place]["prefill_s"]
        first_s = seconds = 0.0

        def keep(written: Sequence[Token]) -> None:
            self._cells[place, number] = {
                "model": place,
                "strategy": number,
                **writer.cell(read, written),
                "first_token_s": round(prefill_s + first_s, 4),
                "seconds": round(seconds, 4),
                "tokens_per_s": round(len(written) / max(seconds, 1e-9), 2),
            }

        answer: Sequence[Token] = ()
        mark = time.monotonic()
        for answer in writer.write(read, self._config.decodings[number]):
            seconds += time.monotonic() - mark
            first_s = first_s or seconds
            if time.monotonic() - self._told > _TELL_EVERY_S:
                keep(answer)
                self._cells[place, number]["finish_reason"] = ""
                self._tell()
            mark = time.monotonic()  # telling is no part of writing
        keep(answer)
        self._tell()
        done = len(self._cells)
        self._run.progress(done, len(self._models) * len(self._config.decodings), "answers")

    def whole(self) -> dict[str, Any]:
        return {"models": self._models, "cells": [one for _, one in sorted(self._cells.items())]}

    def _tell(self) -> None:
        self._told = time.monotonic()
        temporary = self._run.path / f".{TRIAL_NAME}.tmp"
        temporary.write_text(json_canonical(self.whole()), encoding="utf-8")
        temporary.replace(self._run.path / TRIAL_NAME)


if __name__ == "__main__":
    program_run(main)
