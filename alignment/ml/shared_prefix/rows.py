"""Groups packed into rows: which token lies where, at which position, and what is read."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """One prompt and its answers, as token ids.

    An answer may be empty: its score is read at the prompt's last token. Raises ValueError for an
    empty prompt, which would leave nothing to read.
    """

    prompt_T: list[int]
    answers: list[list[int]]

    def __post_init__(self) -> None:
        if not self.prompt_T:
            raise ValueError("a group needs a prompt of one token or more")
        if not self.answers:
            raise ValueError("a group needs an answer")

    @property
    def tokens(self) -> int:
        """Tokens the group takes in a row."""
        return len(self.prompt_T) + sum(map(len, self.answers))

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest answer: what the model's context must hold."""
        return len(self.prompt_T) + max(map(len, self.answers))


@dataclass(frozen=True)
class Span:
    """Where a group lies in its row, in tokens: prompt at `start`, then the answers in order."""

    start: int
    prompt: int
    answers: tuple[int, ...]

    @property
    def answers_start(self) -> int:
        return self.start + self.prompt

    @property
    def end(self) -> int:
        return self.answers_start + sum(self.answers)

    def answer_bounds(self) -> Iterator[tuple[int, int]]:
        """Yield (first token, token after the last) of each answer."""
        start = self.answers_start
        for length in self.answers:
            yield start, start + length
            start += length


@dataclass(frozen=True)
class Row:
    """Groups packed into one sequence. `indices` are their places in the list given to `pack`."""

    groups: tuple[Group, ...]
    indices: tuple[int, ...]

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        spans, start = [], 0
        for group in self.groups:
            span = Span(start, len(group.prompt_T), tuple(map(len, group.answers)))
            spans.append(span)
            start = span.end
        return tuple(spans)

    @property
    def tokens(self) -> int:
        return self.spans[-1].end

    @cached_property
    def segments(self) -> list[int]:
        """Lengths of the row's stretches of plain causal attention, in its order.

        A prompt with its first answer, then every other answer that is not empty.
        """
        lengths: list[int] = []
        for span in self.spans:
            first, *others = span.answers
            lengths += [span.prompt + first, *filter(None, others)]
        return lengths

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest prompt + answer in the row."""
        return max(group.longest for group in self.groups)

    def input_ids(self) -> Tensor:
        """Token ids, shape (1, T)."""
        ids: list[int] = []
        for group in self.groups:
            ids += group.prompt_T
            for answer in group.answers:
                ids += answer
        return torch.tensor([ids], dtype=torch.long)

    def position_ids(self) -> Tensor:
        """Each token's place behind its own prompt, shape (1, T)."""
        parts = []
        for span in self.spans:
            parts.append(torch.arange(span.prompt))
            parts += [torch.arange(span.prompt, span.prompt + length) for length in span.answers]
        return torch.cat(parts)[None]

    def behind(self, tokens: int) -> "Row":
        """The row with `tokens` places in front of every prompt, for an adapter's own."""
        places = [0] * tokens
        groups = tuple(Group([*places, *one.prompt_T], one.answers) for one in self.groups)
        return Row(groups, self.indices)

    def score_indices(self) -> list[Tensor]:
        """For each group the index of every answer's last token in the row, shape (K,)."""
        return [
            torch.tensor(
                [
                    stop - 1 if stop > start else span.answers_start - 1
                    for start, stop in span.answer_bounds()
                ]
            )
            for span in self.spans
        ]

    def answer_places(self) -> tuple[Tensor, Tensor]:
        """(place in the row whose hidden state predicts it, token id) of all answer tokens, (S,).

        Groups, answers and tokens in their order; the LM head is needed at these places alone.
        """
        sources: list[int] = []
        targets: list[int] = []
        for group, span in zip(self.groups, self.spans, strict=True):
            for answer, (start, stop) in zip(group.answers, span.answer_bounds(), strict=True):
                if answer:
                    sources += [span.answers_start - 1, *range(start, stop - 1)]
                    targets += answer
        return torch.tensor(sources, dtype=torch.long), torch.tensor(targets, dtype=torch.long)

    @cached_property
    def _block_masks(self) -> dict[torch.device, Any]:
        return {}

    def segment_ids(self) -> tuple[Tensor, Tensor]:
        """(group of each token, its segment: 0 in a prompt, k + 1 in answer k), each (T,)."""
        lengths: list[int] = []
        groups: list[int] = []
        segments: list[int] = []
        for number, span in enumerate(self.spans):
            lengths += [span.prompt, *span.answers]
            groups += [number] * (1 + len(span.answers))
            segments += range(1 + len(span.answers))
        repeats = torch.tensor(lengths)
        return (
            torch.tensor(groups).repeat_interleave(repeats),
            torch.tensor(segments).repeat_interleave(repeats),
        )

    def block_mask(self, device: torch.device) -> Any:
        """FlexAttention's block mask of the row, made once for a device."""
        if device not in self._block_masks:
            from torch.nn.attention.flex_attention import create_block_mask

            group_T, segment_T = (ids.to(device) for ids in self.segment_ids())

            def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                own_or_prompt = (segment_T[key] == 0) | (segment_T[key] == segment_T[query])
                return (query >= key) & (group_T[query] == group_T[key]) & own_or_prompt

            self._block_masks[device] = create_block_mask(
                visible, None, None, self.tokens, self.tokens, device=device
            )
        return self._block_masks[device]


def pack(groups: Sequence[Group], budget_tokens: int) -> list[Row]:
    """Lay groups into rows of at most `budget_tokens`, largest first into the row they fit best.

    Best fit decreasing: of the rows with room, the one that is left with the least (of equals the
    oldest). A group is never split: one larger than the budget has a row to itself. The answer
    depends on the groups and their order alone; `Row.indices` leads back to it.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    for index in sorted(range(len(groups)), key=lambda i: -groups[i].tokens):
        tokens = groups[index].tokens
        place = bisect_left(room, (tokens, 0))
        if place < len(room):
            free, number = room.pop(place)
            bins[number].append(index)
        else:
            free, number = budget_tokens, len(bins)
            bins.append([index])
        insort(room, (free - tokens, number))
    rows = sorted(sorted(indices) for indices in bins)
    return [Row(tuple(groups[i] for i in indices), tuple(indices)) for indices in rows]
