"""One prompt, several models, several ways to decode, token by token.

    python -m modelhub.ml.playground RUN_DIR

Reads inputs `model_0`, `model_1`, … (an adapter's base as `model_0_base`). Each pair of model and
strategy is a cell. `trial.json` in the run directory holds every cell written so far, renamed into
place a few times a second: a page follows it, and a run that was killed goes on with the first cell
that is not whole. The last state of it is the run's result.

A model that vLLM serves is asked there, by the same tokens, if the settings name its server.

The prompt is read once for each model; every strategy goes on from a copy of its keys and values.
Beside each token stand its probability in the model's own distribution (`p`), in the distribution
the strategy drew from (`q`), and the same of the likeliest others.

Shapes: B beams or candidates, T tokens before the next, D hidden size, V vocabulary.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from modelhub.ml.adapter import (
    ModelInput,
    model_context,
    model_input,
    model_input_load,
    virtual_cache,
)
from modelhub.ml.chat import prompt_text, stop_ids
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.generate import model_eos
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.records import json_canonical, json_strict
from modelhub.ml.rundir import RunDir, program_run
from modelhub.ml.trials import FEW_SHOT, TRIAL_NAME, PlaygroundConfig, Strategy

_TELL_EVERY_S = 0.25
_SERVER_TIMEOUT = httpx.Timeout(120.0, connect=5.0)


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
        room = model_context(given) - config.max_tokens
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
            "laid": text,
            "prompt_tokens": len(prompt_tokens),
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


@dataclass
class Token:
    """A token written: its probabilities, and those of the likeliest at its place."""

    id: int
    p: float  # in the model's distribution
    q: float  # in the distribution it was drawn from
    others: list[tuple[int, float, float]]  # (id, p, q), likeliest first, itself among them


@dataclass
class Read:
    """A prompt that a model has read."""

    tokens: list[int]
    cache: DynamicCache
    logits_V: Tensor
    hidden_TD: Tensor  # of the last layer, for contrastive search


@dataclass
class _Beam:
    score: float  # log-probability of its tokens
    tokens: list[Token] = field(default_factory=list)


class Writer:
    """One model that writes an answer in any strategy, telling each token as it comes."""

    def __init__(self, given: ModelInput, tokenizer: Any, config: PlaygroundConfig) -> None:
        facts = model_directory_check(given.whole)
        if facts.role != "causal":
            raise RefusedError(f"a {facts.architecture} scores answers, it writes none")
        self.tokenizer, self._config = tokenizer, config
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = model_input_load(given, dtype=config.dtype).to(self._device)
        self._virtual = virtual_cache(model)
        self._model = model.get_base_model() if hasattr(model, "peft_config") else model
        self._stop_ids = endings(given, tokenizer, config)

    @torch.inference_mode()
    def prompt_read(self, tokens: list[int]) -> Read:
        cache = DynamicCache()
        for number, layer in enumerate(self._virtual.layers if self._virtual else ()):
            cache.update(layer.keys, layer.values, number)
        logits_1V, hidden_1TD = self._step(torch.tensor([tokens], device=self._device), cache)
        return Read(tokens, cache, logits_1V[0], hidden_1TD[0])

    @torch.inference_mode()
    def write(self, read: Read, strategy: Strategy) -> Iterator[list[Token]]:
        """Yield the answer so far after every token. Of beams, that of the best one."""
        cache = copy.deepcopy(read.cache)
        ways = {"beam": self._beam, "contrastive": self._contrastive}
        yield from ways.get(strategy.kind, self._sample)(read, cache, strategy)

    def _sample(self, read: Read, cache: DynamicCache, strategy: Strategy) -> Iterator[list[Token]]:
        """Greedy, and all that draws from a shaped distribution."""
        generator = torch.Generator().manual_seed(self._config.seed)
        shape = logits_shaper(strategy)
        seen = list(read.tokens)
        logits_V, written = read.logits_V, list[Token]()
        while True:
            logits_V = logits_V.float()
            shaped_V = shape(torch.tensor([seen], device=self._device), logits_V[None])[0]
            q_V = shaped_V.softmax(-1)
            if strategy.kind == "greedy":
                token = int(shaped_V.argmax())
            else:
                token = int(torch.multinomial(q_V.cpu(), 1, generator=generator))
            written.append(self._token(token, logits_V.softmax(-1), q_V))
            seen.append(token)
            yield written
            if self._is_ended(written):
                return
            row = torch.tensor([[token]], device=self._device)
            logits_V = self._step(row, cache)[0][0]

    def _contrastive(
        self, read: Read, cache: DynamicCache, strategy: Strategy
    ) -> Iterator[list[Token]]:
        """Su et al. 2022 (arXiv:2202.06417), equation 5: of the k likeliest tokens the one with the
        best (1 − α) p − α max cos(h, h_j), h_j the hidden states of all tokens before."""
        logits_V, before_TD, written = read.logits_V, read.hidden_TD.float(), list[Token]()
        while True:
            p_V = logits_V.float().softmax(-1)
            p_B, token_B = p_V.topk(strategy.top_k)
            cache.batch_repeat_interleave(strategy.top_k)
            logits_BV, hidden_B1D = self._step(token_B[:, None], cache)
            hidden_BD = hidden_B1D[:, -1].float()
            unit_BD = torch.nn.functional.normalize(hidden_BD, dim=-1)
            likeness_BT = unit_BD @ torch.nn.functional.normalize(before_TD, dim=-1).T
            score_B = (1 - strategy.alpha) * p_B - strategy.alpha * likeness_BT.amax(-1)
            best = int(score_B.argmax())
            q_V = torch.zeros_like(p_V).index_fill_(0, token_B[best], 1.0)
            written.append(self._token(int(token_B[best]), p_V, q_V))
            yield written
            if self._is_ended(written):
                return
            cache.batch_select_indices(torch.tensor([best], device=self._device))
            logits_V = logits_BV[best]
            before_TD = torch.cat([before_TD, hidden_BD[best : best + 1]])

    def _beam(self, read: Read, cache: DynamicCache, strategy: Strategy) -> Iterator[list[Token]]:
        """Beam search as transformers has it (early_stopping=False): an ended beam is worth its
        log-probability over its length to the power `length_penalty`, and the search goes on
        while the best beam alive could still be worth more than the worst of those kept."""
        count, power = strategy.beams, strategy.length_penalty
        beams, ended = [_Beam(0.0)], list[tuple[float, _Beam]]()
        logits_BV = read.logits_V[None]
        for length in range(1, self._config.max_tokens + 1):
            logp_BV = logits_BV.float().log_softmax(-1)
            scores_B = torch.tensor([one.score for one in beams], device=self._device)
            vocabulary = logp_BV.shape[1]
            total, place = (scores_B[:, None] + logp_BV).flatten().topk(2 * count)
            alive: list[tuple[int, _Beam]] = []
            for rank, (score, one) in enumerate(zip(total.tolist(), place.tolist(), strict=True)):
                row, token = divmod(one, vocabulary)
                p_V = logp_BV[row].exp()
                grown = _Beam(score, [*beams[row].tokens, self._token(token, p_V, p_V)])
                if not self._is_ended(grown.tokens):
                    if len(alive) < count:
                        alive.append((row, grown))
                elif rank < count or length == self._config.max_tokens:
                    ended.append((score / length**power, grown))
            ended = sorted(ended, key=lambda kept: -kept[0])[:count]
            beams = [grown for _, grown in alive]
            best = ended[0][1] if ended and not beams else max(beams, key=lambda one: one.score)
            yield best.tokens
            hopeless = len(ended) == count and (
                not beams or beams[0].score / length**power <= ended[-1][0]
            )
            if not beams or hopeless:
                break
            rows = torch.tensor([row for row, _ in alive], device=self._device)
            cache.batch_select_indices(rows)
            last = torch.tensor([[one.tokens[-1].id] for one in beams], device=self._device)
            logits_BV = self._step(last, cache)[0]
        yield ended[0][1].tokens

    def _step(self, tokens_BT: Tensor, cache: DynamicCache) -> tuple[Tensor, Tensor]:
        """Feed tokens behind the cache: (logits of the next (B, V), hidden states (B, T, D))."""
        out = self._model(
            input_ids=tokens_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            output_hidden_states=True,
        )
        return out.logits[:, -1], out.hidden_states[-1]

    def _token(self, token: int, p_V: Tensor, q_V: Tensor) -> Token:
        top_p, top = p_V.topk(self._config.alternatives)
        rows = zip(top.tolist(), top_p.tolist(), q_V[top].tolist(), strict=True)
        others = [(one, _short(p), _short(q)) for one, p, q in rows]
        return Token(token, _short(float(p_V[token])), _short(float(q_V[token])), others)

    def _is_ended(self, written: Sequence[Token]) -> bool:
        return bool(self.finish_reason(written))

    def finish_reason(self, written: Sequence[Token]) -> str:
        """ "stop": the model or a stop word ended it; "length": it was cut off; "": it goes on."""
        if written[-1].id in self._stop_ids:
            return "stop"
        if self._config.stops:
            text = self.tokenizer.decode([one.id for one in written])
            if any(stop in text for stop in self._config.stops):
                return "stop"
        return "length" if len(written) >= self._config.max_tokens else ""

    def pieces(self, read: Read, written: Sequence[Token]) -> list[str]:
        """The text of each token. What is a part of a character is with the token that ends it."""
        ids = [*read.tokens[-1:], *(one.id for one in written)]
        found, behind, shown = list[str](), 0, 1
        for end in range(2, len(ids) + 1):
            before = self.tokenizer.decode(ids[behind:shown])
            now = self.tokenizer.decode(ids[behind:end])
            if now.endswith("\ufffd") and end < len(ids):
                found.append("")
                continue
            found.append(now[len(before) :])
            behind, shown = shown, end
        return [one.replace("\0", "\ufffd") for one in found]

    def cell(self, read: Read, written: Sequence[Token]) -> dict[str, Any]:
        """An answer so far, as it is kept."""
        pieces = self.pieces(read, written)
        text, ends = "".join(pieces), len("".join(pieces))
        for stop in self._config.stops:
            found = text.find(stop)
            ends = min(ends, found) if found >= 0 else ends
        rows, start = [], 0
        for token, piece in zip(written, pieces, strict=True):
            is_over = token.id in self._stop_ids or (start >= ends and ends < len(text))
            others = [(self._name(one), p, q) for one, p, q in token.others]
            rows.append(
                {"text": piece, "p": token.p, "q": token.q, "others": others, "is_over": is_over}
            )
            start += len(piece)
        return {
            "text": "".join(row["text"] for row in rows if not row["is_over"])[:ends],
            "tokens": rows,
            "finish_reason": self.finish_reason(written),
        }

    def _name(self, token: int) -> str:
        """A token by itself; by its place in the vocabulary where it is a part of a character."""
        text = str(self.tokenizer.decode([token])).replace("\0", "\ufffd")
        return f"#{token}" if "\ufffd" in text else text


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
        return Read(tokens, DynamicCache(), torch.empty(0), torch.empty(0))

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
            others = [(_served_id(one), _short(math.exp(logp)), 0.0) for one, logp in likeliest]
            found.append(Token(_served_id(name), _short(math.exp(nats)), 0.0, others))
    return found


def _served_id(name: str) -> int:
    return int(name.removeprefix("token_id:"))


def endings(given: ModelInput, tokenizer: Any, config: PlaygroundConfig) -> set[int]:
    """The tokens that end an answer."""
    eos = model_eos(given.whole)
    if config.layout == "chat":
        return set(stop_ids(tokenizer, eos))
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return {*own, *eos}


def logits_shaper(strategy: Strategy) -> Callable[[Tensor, Tensor], Tensor]:
    """(tokens so far (1, T), logits (1, V)) → the logits that a strategy draws from."""
    shaping = LogitsProcessorList()
    if strategy.repetition_penalty != 1:
        shaping.append(RepetitionPenaltyLogitsProcessor(strategy.repetition_penalty))
    if strategy.kind == "sample":
        if strategy.temperature != 1:
            shaping.append(TemperatureLogitsWarper(strategy.temperature))
        if strategy.top_k:
            shaping.append(TopKLogitsWarper(strategy.top_k))
        if strategy.top_p < 1:
            shaping.append(TopPLogitsWarper(strategy.top_p))
        if strategy.min_p:
            shaping.append(MinPLogitsWarper(strategy.min_p))
    return shaping


def _short(probability: float) -> float:
    """Four figures: what a page shows, in a quarter of the bytes."""
    return float(f"{probability:.4g}")


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
