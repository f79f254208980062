"""Which blocks a step is made of: a function of the step and of what was skipped, nothing else.

A source is one token set. Its last whole blocks are kept for validation and never trained on; the
others, and what is left behind the last whole one, are sampled by the mixture
(modelhub/ml/mixture.py). A step reads the next `blocks_per_step` samples; behind a rewind the
samples that were skipped are passed over for good.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from modelhub.ml.configs import RefusedError
from modelhub.ml.mixture import Blend, Drawn, Mixture, MixtureError, Source, shares_temper
from modelhub.ml.pretraining.configs import PretrainConfig, run_samples, sample_number
from modelhub.ml.pretraining.objectives import Ints


class Shards(Protocol):
    """What is needed of a token set (shards.py)."""

    tokens: int

    def block(self, number: int, block_tokens: int) -> Any:
        """`.tokens` and `.positions` of a block, positions restarting with each document."""

    def block_documents(self, number: int, block_tokens: int) -> Sequence[Any]:
        """The documents that stand in a block, with their `id`."""


@dataclass(frozen=True)
class TokenSource:
    """A token set as one run reads it."""

    name: str
    shards: Shards
    block_tokens: int
    train_blocks: int  # 0 … train_blocks − 1 are trained on
    validation_blocks: int  # as many behind them are not
    is_replay: bool
    has_tail: bool = False  # the last block that is trained on is the set's last, filled up

    def read(self, block: int) -> tuple[Ints, Ints]:
        """(tokens_T, positions_T) of a block."""
        found = self.shards.block(self._place(block), self.block_tokens)
        return (
            np.asarray(found.tokens, dtype=np.int64),
            np.asarray(found.positions, dtype=np.int64),
        )

    def documents(self, block: int) -> list[str]:
        """The ids of the documents in a block."""
        found = self.shards.block_documents(self._place(block), self.block_tokens)
        return [str(one.id) for one in found]

    def _place(self, block: int) -> int:
        """Where in the set a block of this source lies: its tail lies behind those kept."""
        if not self.has_tail or block < self.train_blocks - 1:
            return block
        if block == self.train_blocks - 1:
            return block + self.validation_blocks
        return block - 1


def source_make(
    name: str, shards: Shards, config: PretrainConfig, *, is_replay: bool
) -> TokenSource:
    """A source with its validation blocks put aside: at most a tenth, where it has ten.

    Tokens behind the last whole block are one more to train on, filled up with the set's beginning.
    Raises RefusedError for a set of less than two blocks.
    """
    blocks = shards.tokens // config.block_tokens
    if blocks < 2:
        raise RefusedError(
            f"{name} has {shards.tokens:,} tokens, less than two blocks of {config.block_tokens}"
        )
    kept = min(config.validation_blocks, max(1, blocks // 10)) if config.validation_blocks else 0
    has_tail = shards.tokens % config.block_tokens > 0
    train = blocks - kept + has_tail
    return TokenSource(name, shards, config.block_tokens, train, kept, is_replay, has_tail)


def mixture_make(sources: Sequence[TokenSource], config: PretrainConfig) -> Mixture:
    """The samples of the whole run, those that rewinds may skip included.

    A blend's caps are kept over the run as it was planned when the blend was made: a run that goes
    on longer reads no earlier sample otherwise. Raises MixtureError for shares or caps that do not
    fit the sources.
    """
    samples = run_samples(config)
    caps = config.epoch_caps
    if caps and len(caps) != len(sources):
        raise MixtureError(f"{len(sources)} sources and {len(caps)} epoch caps")
    planned = (config.planned_samples or samples) if caps else samples  # it is for caps alone
    blends = [_blend(0, planned, _shares(sources, config, config.shares), caps)]
    later = []
    for step, asked in config.later_shares.items():
        given = asked if isinstance(asked, dict) else {"shares": asked}
        shares = _shares(sources, config, tuple(map(float, given["shares"])))
        first = given.get("first_sample", int(step) * config.blocks_per_step)
        planned = given.get("planned_samples", samples) if caps else samples
        later.append(_blend(first, planned, shares, caps))
    blends += sorted(later, key=lambda blend: blend.first_sample)
    return Mixture(
        [Source(name=source.name, blocks=source.train_blocks) for source in sources],
        blends,
        seed=config.seed,
    )


def _blend(first: int, samples: int, shares: tuple[float, ...], caps: tuple[float, ...]) -> Blend:
    return Blend(first_sample=first, run_samples=samples, shares=shares, epoch_caps=caps)


def _shares(
    sources: Sequence[TokenSource], config: PretrainConfig, asked: tuple[float, ...]
) -> tuple[float, ...]:
    """Shares of all sources: as asked, or by size; replay has its share where none are asked."""
    if asked:
        if len(asked) != len(sources):
            raise MixtureError(f"{len(sources)} sources and {len(asked)} shares")
        return asked
    shares = [0.0] * len(sources)
    parts = {True: config.replay_share, False: 1 - config.replay_share}
    for is_replay, part in parts.items():
        places = [m for m, source in enumerate(sources) if source.is_replay == is_replay]
        if places:
            sizes = [float(sources[m].train_blocks) for m in places]
            for m, share in zip(places, shares_temper(sizes, config.temperature), strict=True):
                shares[m] = share * part
    return tuple(shares)


@dataclass(frozen=True)
class Skip:
    """From a step on, so many samples are passed over."""

    step: int
    samples: int


@dataclass(frozen=True)
class Sample:
    """One block of a step."""

    number: int  # of the run; what its randomness is made from
    source: int
    epoch: int
    block: int


def step_samples(
    mixture: Mixture, step: int, config: PretrainConfig, skips: Sequence[Skip]
) -> list[Sample]:
    """The blocks of step 0 … steps − 1, in order."""
    numbers = [sample_next(step, config, skips, at) for at in range(config.blocks_per_step)]
    drawn: Drawn = mixture.at(np.array(numbers, dtype=np.int64))
    return [
        Sample(number, int(source), int(epoch), int(block))
        for number, source, epoch, block in zip(
            numbers, drawn.source_S, drawn.epoch_S, drawn.block_S, strict=True
        )
    ]


def sample_next(step: int, config: PretrainConfig, skips: Sequence[Skip], at: int = 0) -> int:
    """The number of the first sample of a step, or of the one `at` so many places behind it.

    Of the step behind a run's last: where in the data the run has come to.
    """
    first = step * config.blocks_per_step + sum(one.samples for one in skips if one.step <= step)
    return sample_number(first + at, config.skipped_ranges)


def sample_generator(seed: int, number: int) -> np.random.Generator:
    """The randomness of a sample (what is masked, which spans), the same wherever it is read."""
    return np.random.default_rng([seed, number])


def blocks_read(
    sources: Sequence[TokenSource], samples: Sequence[Sample], vocabulary: int
) -> list[tuple[Ints, Ints]]:
    """The tokens and positions of samples. Raises RefusedError for a token the model has not."""
    found = []
    for sample in samples:
        source = sources[sample.source]
        tokens_T, positions_T = source.read(sample.block)
        if int(tokens_T.max()) >= vocabulary:
            raise RefusedError(
                f"{source.name}, block {sample.block}: token {int(tokens_T.max())}, and the "
                f"tokenizer has {vocabulary}: it was made with another one"
            )
        found.append((tokens_T, positions_T))
    return found


def accounts(
    mixture: Mixture, sources: Sequence[TokenSource], config: PretrainConfig
) -> list[dict[str, Any]]:
    """What the run reads of each source, before it has begun: tokens, share, epochs."""
    counts = mixture.counts(config.steps * config.blocks_per_step)
    return [
        {
            "source": source.name,
            "tokens": int(count) * config.block_tokens,
            "share": float(count) / float(counts.sum()),
            "epochs": float(count) / source.train_blocks,
        }
        for source, count in zip(sources, counts, strict=True)
    ]


def roles_sorted(roles: Mapping[str, Any] | Sequence[str], stem: str) -> list[str]:
    """The input roles `stem`, `stem_2`, … in the order of their numbers."""

    def number(role: str) -> int:
        tail = role.removeprefix(f"{stem}_")
        return 1 if role == stem else int(tail) if tail.isdecimal() else 0

    return sorted((role for role in roles if number(role) > 0), key=number)
