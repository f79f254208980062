"""A model that writes token by token, in any strategy, and tells how likely each token was.

Beside each token stand its probability in the model's own distribution (`p`), in the distribution
the strategy drew from (`q`), and the same of the likeliest others. A prompt is read once; every
strategy goes on from a copy of what the model remembers of it.

What models remember of what they have read: `writing_models.py`.

Shapes: B beams or candidates, T tokens before the next, D hidden size, V vocabulary.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from modelhub.ml.adapter import ModelInput
from modelhub.ml.chat import stop_ids
from modelhub.ml.generate import model_eos
from modelhub.ml.trials import PlaygroundConfig, Strategy
from modelhub.ml.writing_models import Memory, Read, writing_model


@dataclass
class Token:
    """A token written: its probabilities, and those of the likeliest at its place."""

    id: int
    p: float  # in the model's distribution
    q: float  # in the distribution it was drawn from
    others: list[tuple[int, float, float]]  # (id, p, q), likeliest first, itself among them


@dataclass
class _Beam:
    score: float  # log-probability of its tokens
    tokens: list[Token] = field(default_factory=list)


class Writer:
    """One model that writes an answer in any strategy, telling each token as it comes."""

    def __init__(self, given: ModelInput, tokenizer: Any, config: PlaygroundConfig) -> None:
        self.tokenizer, self._config = tokenizer, config
        self._model = writing_model(given, tokenizer, dtype=config.dtype)
        self._stop_ids = endings(given, tokenizer, config) | self._model.ends

    @torch.inference_mode()
    def prompt_read(self, tokens: list[int]) -> Read:
        return self._model.read(tokens)

    @torch.inference_mode()
    def write(self, read: Read, strategy: Strategy) -> Iterator[list[Token]]:
        """Yield the answer so far after every token. Of beams, that of the best one."""
        memory = copy.deepcopy(read.memory)
        ways = {"beam": self._beam, "contrastive": self._contrastive}
        yield from ways.get(strategy.kind, self._sample)(read, memory, strategy)

    def _sample(self, read: Read, memory: Memory, strategy: Strategy) -> Iterator[list[Token]]:
        """Greedy, and all that draws from a shaped distribution."""
        generator = torch.Generator().manual_seed(self._config.seed)
        shape = logits_shaper(strategy)
        seen = list(read.said)
        logits_V, written = read.logits_V, list[Token]()
        while True:
            logits_V = logits_V.float()
            shaped_V = shape(torch.tensor([seen], device=read.logits_V.device), logits_V[None])[0]
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
            row = torch.tensor([[token]], device=read.logits_V.device)
            logits_V = self._model.step(row, memory)[0][0]

    def _contrastive(self, read: Read, memory: Memory, strategy: Strategy) -> Iterator[list[Token]]:
        """Su et al. 2022 (arXiv:2202.06417), equation 5: of the k likeliest tokens the one with the
        best (1 − α) p − α max cos(h, h_j), h_j the hidden states of all tokens before."""
        logits_V, before_TD, written = read.logits_V, read.hidden_TD.float(), list[Token]()
        while True:
            p_V = logits_V.float().softmax(-1)
            p_B, token_B = p_V.topk(strategy.top_k)
            memory.batch_repeat_interleave(strategy.top_k)
            logits_BV, hidden_B1D = self._model.step(token_B[:, None], memory)
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
            memory.batch_select_indices(torch.tensor([best], device=read.logits_V.device))
            logits_V = logits_BV[best]
            before_TD = torch.cat([before_TD, hidden_BD[best : best + 1]])

    def _beam(self, read: Read, memory: Memory, strategy: Strategy) -> Iterator[list[Token]]:
        """Beam search as transformers has it (early_stopping=False): an ended beam is worth its
        log-probability over its length to the power `length_penalty`, and the search goes on
        while the best beam alive could still be worth more than the worst of those kept."""
        count, power = strategy.beams, strategy.length_penalty
        beams, ended = [_Beam(0.0)], list[tuple[float, _Beam]]()
        logits_BV = read.logits_V[None]
        for length in range(1, self._config.max_tokens + 1):
            logp_BV = logits_BV.float().log_softmax(-1)
            scores_B = torch.tensor([one.score for one in beams], device=read.logits_V.device)
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
            rows = torch.tensor([row for row, _ in alive], device=read.logits_V.device)
            memory.batch_select_indices(rows)
            last = torch.tensor([[one.tokens[-1].id] for one in beams], device=read.logits_V.device)
            logits_BV = self._model.step(last, memory)[0]
        yield ended[0][1].tokens

    def _token(self, token: int, p_V: Tensor, q_V: Tensor) -> Token:
        top_p, top = p_V.topk(self._config.alternatives)
        rows = zip(top.tolist(), top_p.tolist(), q_V[top].tolist(), strict=True)
        others = [(one, probability_short(p), probability_short(q)) for one, p, q in rows]
        return Token(
            token,
            probability_short(float(p_V[token])),
            probability_short(float(q_V[token])),
            others,
        )

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
        ids = [*read.said[-1:], *(one.id for one in written)]
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


def probability_short(probability: float) -> float:
    """Four figures: what a page shows, in a quarter of the bytes."""
    return float(f"{probability:.4g}")
