"""Which document block is sample i of a pretraining run: computed, never remembered.

A run reads blocks (fixed numbers of tokens) of several sources in given shares. Sample i is a pure
function of the mixture and i, so a run goes on from any sample at once, on any number of processes,
and two samples can be compared by their number alone. There is no state to save or to lose.

    i  →  segment of the blend  →  source and its k-th sample  →  epoch k div n, block π(k mod n)

- A **blend** holds from one sample on; a later blend takes over at its first sample and every
  source goes on where it was. A blend that is added changes no sample before it: the history of a
  run is its list of blends.
- Samples fall into **periods** of `PERIOD` slots. In every whole period a source has the same
  number of slots, its share rounded by the largest remainder; a keyed permutation of each period
  scatters them.
- Within an epoch of a source every block comes once, in an order of the epoch's own (another keyed
  permutation): no block is read twice before all were read once. A source's samples are counted in
  the order of time, so this holds for a run shorter than a period too.
- An **epoch cap** bounds how often a source is repeated within the run that a blend was made for.
  What a capped source may not give is spread over the others in proportion ("water-filling").

The permutations are Feistel networks of four rounds over the next even power of two, walked until
they fall inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", method 2).

Standard library and NumPy; no torch.

Legend: S samples, M sources.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelhub.ml.configs import RefusedError

PERIOD = 2048  # slots; a share is exact to half a slot in so many
_ROUNDS = 4
_KEPT_PERIODS = 64  # 32 KB each
Int64 = NDArray[np.int64]

# Touvron et al. 2023 (arXiv:2302.13971), table 1: the share of each source in LLaMA's training.
LLAMA_SHARES = {
    "CommonCrawl": 0.670,
    "C4": 0.150,
    "GitHub": 0.045,
    "Wikipedia": 0.045,
    "Books": 0.045,
    "ArXiv": 0.025,
    "StackExchange": 0.020,
}


class MixtureError(RefusedError):
    """A mixture was refused; the message names the source and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source of blocks."""

    name: str
    blocks: int  # blocks of the run's length in it; one epoch


@dataclass(frozen=True, kw_only=True)
class Blend:
    """The shares that hold from a sample on."""

    first_sample: int
    run_samples: int  # of the whole run, as it was planned when the blend was made: for the caps
    shares: tuple[float, ...]  # of each source, in the mixture's order; they need not add up to 1
    epoch_caps: tuple[float, ...] = ()  # epochs of each source in the whole run; 0: none

    def __post_init__(self) -> None:
        if not 0 <= self.first_sample < self.run_samples:
            raise MixtureError(
                f"a blend begins inside its run, of {self.run_samples} samples, "
                f"not with sample {self.first_sample}"
            )
        if any(not math.isfinite(share) or share < 0 for share in self.shares):
            raise MixtureError(f"shares are numbers of 0 or more, got {self.shares}")
        if sum(self.shares) <= 0:
            raise MixtureError("a blend needs a source with a share above 0")
        if any(not math.isfinite(cap) or cap < 0 for cap in self.epoch_caps):
            raise MixtureError(f"epoch caps are numbers of 0 or more, got {self.epoch_caps}")
        if self.epoch_caps and len(self.epoch_caps) != len(self.shares):
            raise MixtureError("a blend has an epoch cap for every source or for none")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Samples as arrays of shape (S,)."""

    source_S: Int64  # place in the mixture's sources
    epoch_S: Int64  # from 0
    block_S: Int64  # in the source


@dataclass(frozen=True)
class _Segment:
    """A blend as it is sampled."""

    first_sample: int
    slots_M: Int64  # of each source in a period
    starts_M: Int64  # the first slot of each source, before they are scattered
    before_M: Int64  # samples of each source before the segment


class Mixture:
    """The samples of a run. Immutable; two equal mixtures give equal samples everywhere."""

    def __init__(self, sources: Sequence[Source], blends: Sequence[Blend], *, seed: int) -> None:
        """Raises MixtureError, naming the source, for a mixture that cannot be sampled."""
        names = [source.name for source in sources]
        if not sources or len(set(names)) != len(names):
            raise MixtureError(f"a mixture is of sources with names of their own, got {names}")
        firsts = [blend.first_sample for blend in blends]
        if not firsts or firsts[0] != 0 or firsts != sorted(set(firsts)):
            raise MixtureError(
                f"the first blend begins with sample 0 and each behind the one before, got {firsts}"
            )
        self.sources, self.seed = tuple(sources), seed
        self.samples = blends[-1].run_samples
        if self.samples <= firsts[-1]:
            raise MixtureError("the last blend begins behind the end of the run")
        self.blocks_M: Int64 = np.array([source.blocks for source in sources], dtype=np.int64)
        self._segments: list[_Segment] = []
        self._periods: dict[tuple[int, int], tuple[Int64, Int64]] = {}
        for blend in blends:
            self._segments.append(self._segment(blend))

    def _segment(self, blend: Blend) -> _Segment:
        """The blend's slots, its caps kept over the samples to the end of the run it is for."""
        if len(blend.shares) != len(self.sources):
            raise MixtureError(f"{len(self.sources)} sources and {len(blend.shares)} shares")
        for source, share in zip(self.sources, blend.shares, strict=True):
            if share > 0 and source.blocks < 1:
                raise MixtureError(f"{source.name} has a share but not one whole block")
        before_M = self._counts_before(blend.first_sample)
        caps = blend.epoch_caps or (0.0,) * len(self.sources)
        limits = [
            max(0.0, cap * source.blocks - float(before)) if cap else math.inf
            for source, cap, before in zip(self.sources, caps, before_M, strict=True)
        ]
        samples = blend.run_samples - blend.first_sample
        shares = shares_fill(blend.shares, limits, samples)
        # The last period may be cut short and still hold all slots of a source: capped sources are
        # rounded down, so that the cap is kept wherever it is cut.
        periods = math.ceil(samples / PERIOD)
        at_most = [PERIOD if one == math.inf else math.floor(one / periods) for one in limits]
        slots_M = np.array(slots_round(shares, PERIOD, at_most), dtype=np.int64)
        return _Segment(blend.first_sample, slots_M, np.cumsum(slots_M) - slots_M, before_M)

    def _counts_before(self, sample: int) -> Int64:
        """How far each source is when a blend begins at `sample`: a period begun counts whole.

        Slots that a new blend leaves unread are passed over in that epoch, for samples drawn
        already must stay what they were.
        """
        if not self._segments:
            return np.zeros(len(self.sources), dtype=np.int64)
        segment = self._segments[-1]
        periods = math.ceil((sample - segment.first_sample) / PERIOD)
        return segment.before_M + periods * segment.slots_M

    def draw(self, first: int, count: int) -> Drawn:
        """Samples first … first + count − 1."""
        return self.at(np.arange(first, first + count, dtype=np.int64))

    def counts(self, samples: int) -> Int64:
        """How many of the first `samples` samples each source has, shape (M,).

        Periods are multiplied, not drawn: a long run has hundreds of millions of samples.
        """
        counts_M = np.zeros(len(self.sources), dtype=np.int64)
        ends = [*(segment.first_sample for segment in self._segments[1:]), samples]
        for place, (segment, end) in enumerate(zip(self._segments, ends, strict=True)):
            periods, rest = divmod(max(0, min(end, samples) - segment.first_sample), PERIOD)
            source_by_slot, _ = self._period(place, periods)
            of_rest_M = np.bincount(source_by_slot[:rest], minlength=len(self.sources))
            counts_M += periods * segment.slots_M + of_rest_M
        return counts_M

    def at(self, sample_S: Int64) -> Drawn:
        """The samples of these numbers, in their order. Raises IndexError outside the run."""
        if len(sample_S) and not (int(sample_S.min()) >= 0 and int(sample_S.max()) < self.samples):
            raise IndexError(f"samples are 0 to {self.samples - 1}")
        firsts = np.array([segment.first_sample for segment in self._segments])
        place_S = np.searchsorted(firsts, sample_S, side="right") - 1
        source_S = np.zeros_like(sample_S)
        ordinal_S = np.zeros_like(sample_S)
        for place in np.unique(place_S):
            segment = self._segments[place]
            own_S = place_S == place
            period_S, slot_S = np.divmod(sample_S[own_S] - segment.first_sample, PERIOD)
            found_S = np.zeros_like(slot_S)
            place_in_period_S = np.zeros_like(slot_S)
            for period in np.unique(period_S):
                in_period_S = period_S == period
                source_by_slot, place_by_slot = self._period(int(place), int(period))
                found_S[in_period_S] = source_by_slot[slot_S[in_period_S]]
                place_in_period_S[in_period_S] = place_by_slot[slot_S[in_period_S]]
            source_S[own_S] = found_S
            ordinal_S[own_S] = (
                segment.before_M[found_S] + period_S * segment.slots_M[found_S] + place_in_period_S
            )
        epoch_S, position_S = np.divmod(ordinal_S, np.maximum(1, self.blocks_M)[source_S])
        block_S = np.zeros_like(sample_S)
        for source in np.unique(source_S):
            for epoch in np.unique(epoch_S[source_S == source]):
                own_S = (source_S == source) & (epoch_S == epoch)
                keys = _keys(self.seed, self.sources[source].name, int(epoch))
                block_S[own_S] = permuted(position_S[own_S], int(self.blocks_M[source]), keys)
        return Drawn(source_S=source_S, epoch_S=epoch_S, block_S=block_S)

    def _period(self, place: int, period: int) -> tuple[Int64, Int64]:
        """Of each slot of a period: its source, and how many slots of that source are before it.

        So a source is read in the order of time, and an epoch of it ends before the next begins.
        """
        key = (place, period)
        if key not in self._periods:
            if len(self._periods) >= _KEPT_PERIODS:
                self._periods.clear()
            segment = self._segments[place]
            keys = _keys(self.seed, "period", segment.first_sample, period)
            scattered = permuted(np.arange(PERIOD, dtype=np.int64), PERIOD, keys)
            # A source without slots starts where the next one does: the last of them is meant.
            source = np.searchsorted(segment.starts_M, scattered, side="right") - 1
            order = np.argsort(source, kind="stable")
            before = np.empty_like(order)
            before[order] = np.arange(PERIOD) - segment.starts_M[source[order]]
            self._periods[key] = (source.astype(np.int64), before.astype(np.int64))
        return self._periods[key]

    def shares(self, blend: int = -1) -> tuple[float, ...]:
        """The shares as they are sampled in a blend: rounded to slots, with the caps kept."""
        return tuple((self._segments[blend].slots_M / PERIOD).tolist())

    def epochs(self) -> tuple[float, ...]:
        """How many epochs of each source the whole run reads, to within one period."""
        segment = self._segments[-1]
        left = (self.samples - segment.first_sample) / PERIOD
        read_M = segment.before_M + left * segment.slots_M
        return tuple((read_M / np.maximum(1, self.blocks_M)).tolist())


def shares_temper(tokens: Sequence[float], temperature: float) -> tuple[float, ...]:
    """Shares of sources by size, evened out: tokens_m^(1/temperature), added up to 1.

    Temperature 1 keeps the sizes' shares, infinity makes all equal (Arivazhagan et al. 2019,
    arXiv:1907.05019, section 4.2). Raises MixtureError for a temperature below 1 or no tokens.
    """
    if not temperature >= 1:
        raise MixtureError(f"a temperature is 1 or more, got {temperature}")
    if not tokens or min(tokens) < 0 or max(tokens) <= 0:
        raise MixtureError("tempered shares need a source with tokens")
    largest = max(tokens)  # sizes relative to it, for powers of large numbers overflow
    powers = [(one / largest) ** (1 / temperature) if one else 0.0 for one in tokens]
    return tuple(power / sum(powers) for power in powers)


def shares_by_kind(
    kinds: Sequence[str], tokens: Sequence[float], table: Mapping[str, float]
) -> tuple[float, ...]:
    """Shares of a published table for sources that each stand for one of its kinds, added up to 1.

    Sources of one kind divide its share by their sizes; what is of no kind has none, and kinds that
    nobody stands for leave theirs to the others. Raises MixtureError if no source has a kind.
    """
    sizes = dict.fromkeys(table, 0.0)
    for kind, size in zip(kinds, tokens, strict=True):
        if kind in sizes:
            sizes[kind] += size
    parts = [
        table[kind] * size / sizes[kind] if sizes.get(kind) else 0.0
        for kind, size in zip(kinds, tokens, strict=True)
    ]
    if not sum(parts) > 0:
        raise MixtureError(f"no source stands for a kind of the table: {', '.join(table)}")
    return tuple(part / sum(parts) for part in parts)


def shares_fill(
    shares: Sequence[float], limits: Sequence[float], total: float
) -> tuple[float, ...]:
    """Shares of `total` samples in which no source gives more than its limit.

    What a source at its limit cannot give goes to the others in proportion to their shares. Raises
    MixtureError if all limits together are below `total`.
    """
    left = {m for m, share in enumerate(shares) if share > 0}
    filled = [0.0] * len(shares)
    rest = float(total)
    while left and rest > 0:
        weight = sum(shares[m] for m in left)
        full = [m for m in left if shares[m] / weight * rest > limits[m]]
        if not full:
            for m in left:
                filled[m] = shares[m] / weight * rest
            rest = 0.0
        for m in full:
            filled[m] = limits[m]
            rest -= limits[m]
            left.discard(m)
    if rest > 1e-9 * max(1.0, total):
        raise MixtureError(
            f"the epoch caps allow {total - rest:.0f} samples and the run wants {total:.0f}: raise "
            "a cap, add a source, or shorten the run"
        )
    return tuple(one / total if total else 0.0 for one in filled)


def slots_round(shares: Sequence[float], slots: int, at_most: Sequence[int]) -> tuple[int, ...]:
    """Whole slots by the largest remainder, none above its limit; they add up to `slots`.

    Raises MixtureError if the limits do not leave room for all slots.
    """
    weight = sum(shares)
    ideal = [share / weight * slots if weight else 0.0 for share in shares]
    rounded = [min(math.floor(one + 1e-9), most) for one, most in zip(ideal, at_most, strict=True)]
    by_remainder = sorted(range(len(shares)), key=lambda m: (rounded[m] - ideal[m], m))
    while (missing := slots - sum(rounded)) > 0:
        room = [m for m in by_remainder if shares[m] > 0 and rounded[m] < at_most[m]]
        if not room:
            raise MixtureError(
                "the epoch caps leave no room: raise a cap, add a source, or shorten the run"
            )
        for m in room[:missing]:
            rounded[m] += 1
    return tuple(rounded)


def permuted(place_S: Int64, size: int, keys: tuple[int, ...]) -> Int64:
    """π(place) for a keyed permutation π of 0 … size − 1, elementwise.

    Four rounds of a Feistel network with the finaliser of SplitMix64 as the round function; places
    that fall outside are sent through again until they are inside, at most four times on average.
    """
    if size <= 1:
        return np.zeros_like(place_S)
    half_bits = max(1, math.ceil(math.log2(size) / 2))
    mask = np.uint64((1 << half_bits) - 1)
    shift = np.uint64(half_bits)
    value_S = place_S.astype(np.uint64)
    outside_S = np.ones(len(value_S), dtype=bool)
    while outside_S.any():
        walked_S = value_S[outside_S]
        left_S, right_S = walked_S >> shift, walked_S & mask
        for key in keys:
            left_S, right_S = right_S, left_S ^ (_mixed(right_S, key) & mask)
        value_S[outside_S] = (left_S << shift) | right_S
        outside_S = value_S >= np.uint64(size)
    return value_S.astype(np.int64)


def _mixed(value_S: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014) of value + key."""
    with np.errstate(over="ignore"):
        mixed_S = value_S + np.uint64(key)
        mixed_S = (mixed_S ^ (mixed_S >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed_S = (mixed_S ^ (mixed_S >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed_S ^ (mixed_S >> np.uint64(31))


def _keys(seed: int, *parts: str | int) -> tuple[int, ...]:
    """A key for each round, from what the permutation is for."""
    text = ":".join(str(part) for part in (seed, *parts))
    digest = hashlib.blake2b(text.encode(), digest_size=8 * _ROUNDS).digest()
    return tuple(int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(_ROUNDS))
