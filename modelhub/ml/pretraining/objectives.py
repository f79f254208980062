"""What a block of tokens becomes to learn from: input, target, and who sees whom. Pure functions.

    causal    every token is guessed from those before it (Radford et al. 2018)
    masked    BERT: some tokens are hidden and guessed from both sides
    span      T5: stretches are taken out, each replaced by one sentinel, and written behind

A block holds pieces of documents one behind the other. With a document mask a token sees its own
piece alone and nothing is guessed across a border: the same losses as of the pieces one by one,
with no padding (tests hold this for every architecture that can).

Randomness comes from a generator that the caller derives from the sample's number, so an example
too is computed, never remembered.

NumPy only. Legend: T tokens of a block, S of a corrupted input, U of its target, R of either.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

IGNORED = -100  # target of a place that nothing is learnt at; torch's cross-entropy skips it


def pieces(positions_T: Ints) -> Ints:
    """Which piece each token belongs to, from 0. positions_T restarts at 0 with each document."""
    starts_T = positions_T == 0
    starts_T[0] = True
    return np.cumsum(starts_T) - 1


def causal_targets(tokens_T: Ints, piece_T: Ints) -> Ints:
    """The next token of each; IGNORED behind the last of a piece."""
    targets_T = np.full_like(tokens_T, IGNORED)
    targets_T[:-1] = np.where(piece_T[1:] == piece_T[:-1], tokens_T[1:], IGNORED)
    return targets_T


def masked_example(
    tokens_T: Ints,
    *,
    share: float,
    mask_id: int,
    vocabulary: int,
    kept_ids: Collection[int],
    generator: np.random.Generator,
) -> tuple[Ints, Ints]:
    """(input, target) of masked language modelling.

    Each token is chosen with probability `share`; of the chosen 80 % become the mask, 10 % a token
    drawn evenly from the vocabulary, 10 % stay (Devlin et al. 2018, arXiv:1810.04805, section
    3.1). kept_ids: special tokens, never chosen. At least one token is, if any may be.
    """
    may_T = ~np.isin(tokens_T, np.fromiter(kept_ids, dtype=np.int64, count=len(kept_ids)))
    draw_T, kind_T = generator.random(len(tokens_T)), generator.random(len(tokens_T))
    random_T = generator.integers(0, vocabulary, len(tokens_T))
    chosen_T = may_T & (draw_T < share)
    if may_T.any() and not chosen_T.any():
        chosen_T[np.argmin(np.where(may_T, draw_T, 2.0))] = True
    input_T = tokens_T.copy()
    input_T[chosen_T & (kind_T < 0.8)] = mask_id
    replaced_T = chosen_T & (kind_T >= 0.8) & (kind_T < 0.9)
    input_T[replaced_T] = random_T[replaced_T]
    return input_T, np.where(chosen_T, tokens_T, IGNORED)


def noise_spans(
    tokens: int, *, share: float, span_tokens: float, generator: np.random.Generator
) -> Bools:
    """Which of a piece's tokens are taken out: shape (tokens,), spans apart from each other.

    As many tokens as `share` says and as many spans as have the mean length, cut at random places;
    the piece begins with a token that is kept (Raffel et al. 2019, arXiv:1910.10683, section
    3.1.4, and the paper's own code for how they are cut). A piece of one token is kept whole.
    """
    noise = min(max(1, round(tokens * share)), tokens - 1)
    if noise < 1:
        return np.zeros(tokens, dtype=bool)
    spans = min(max(1, round(noise / span_tokens)), noise, tokens - noise)

    def cut(total: int) -> Ints:
        places = np.sort(generator.choice(total - 1, size=spans - 1, replace=False)) + 1
        return np.diff(np.concatenate([[0], places, [total]]))

    lengths = np.stack([cut(tokens - noise), cut(noise)], axis=1).reshape(-1)
    return np.repeat(np.tile([False, True], spans), lengths)


def span_example(
    tokens_T: Ints, noise_T: Bools, *, sentinel_ids: Sequence[int], end_id: int
) -> tuple[Ints, Ints]:
    """(input, target): each span is one sentinel in the input; the target spells the spans out.

    One more sentinel and `end_id` close the target; the input ends with `end_id` too. Spans beyond
    the sentinels there are stay as they were.
    """
    first_T = noise_T & ~np.concatenate([[False], noise_T[:-1]])
    number_T = np.cumsum(first_T) - 1
    noise_T = noise_T & (number_T < len(sentinel_ids) - 1)
    first_T &= noise_T
    sentinels = np.asarray(sentinel_ids, dtype=np.int64)
    sentinel_T = sentinels[np.clip(number_T, 0, len(sentinel_ids) - 1)]
    source_S = np.where(first_T, sentinel_T, tokens_T)[~noise_T | first_T]
    spelled = [
        np.concatenate([[sentinel_T[at]], tokens_T[noise_T & (number_T == number_T[at])]])
        for at in np.flatnonzero(first_T)
    ]
    closing = [sentinels[[len(spelled)]], [end_id]]
    return (
        np.concatenate([source_S, [end_id]]).astype(np.int64),
        np.concatenate([*spelled, *closing]).astype(np.int64),
    )


@dataclass(frozen=True)
class Spans:
    """A block under the span objective: its pieces one behind the other, on both sides."""

    source_S: Ints
    source_piece_S: Ints
    target_U: Ints
    target_piece_U: Ints


def span_block(
    tokens_T: Ints,
    piece_T: Ints,
    *,
    share: float,
    span_tokens: float,
    sentinel_ids: Sequence[int],
    end_id: int,
    generator: np.random.Generator,
) -> Spans:
    """Every piece of a block corrupted by itself, its sentinels counted from the first."""
    made = []
    for number in range(int(piece_T[-1]) + 1):
        own = tokens_T[piece_T == number]
        noise = noise_spans(len(own), share=share, span_tokens=span_tokens, generator=generator)
        made.append(span_example(own, noise, sentinel_ids=sentinel_ids, end_id=end_id))
    places = range(len(made))
    return Spans(
        source_S=np.concatenate([source for source, _ in made]),
        source_piece_S=np.repeat(places, [len(source) for source, _ in made]),
        target_U=np.concatenate([target for _, target in made]),
        target_piece_U=np.repeat(places, [len(target) for _, target in made]),
    )


def sees(asking_R: Ints, seen_R: Ints, *, causal: bool) -> Bools:
    """Which place sees which, shape (asking, seen): its own piece, and with `causal` not ahead.

    A piece of −1 is padding: nobody sees it, and it sees itself so that its softmax is not empty.
    """
    together = (asking_R[:, None] == seen_R[None, :]) & (seen_R[None, :] >= 0)
    if causal:
        together &= np.tri(len(asking_R), len(seen_R), dtype=bool)
    # Padding alone: two sides of one length are not the same places.
    if len(asking_R) == len(seen_R):
        together |= np.diag(asking_R < 0)
    else:
        together[asking_R < 0] = True
    return together
