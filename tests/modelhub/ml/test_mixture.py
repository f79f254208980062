"""Which block is sample i: shares, epochs, caps, blends; worked by hand where numbers matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub.ml.mixture import (
    PERIOD,
    Blend,
    Mixture,
    MixtureError,
    Source,
    permuted,
    shares_fill,
    shares_temper,
    slots_round,
)

KEYS = (1, 2, 3, 4)
FIRST_SIX = [(1, 0, 23), (0, 0, 214), (0, 0, 181), (0, 0, 190), (1, 0, 4), (0, 0, 98)]


def mixture(blocks, shares, *, samples=3 * PERIOD, caps=(), seed=7, more=()):
    sources = [Source(name=f"source {i}", blocks=one) for i, one in enumerate(blocks)]
    first = Blend(first_sample=0, run_samples=samples, shares=tuple(shares), epoch_caps=tuple(caps))
    return Mixture(sources, [first, *more], seed=seed)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 4097])
def test_permutation_takes_every_place_once(size):
    assert sorted(permuted(np.arange(size), size, KEYS).tolist()) == list(range(size))


def test_permutations_of_other_keys_differ():
    assert (
        permuted(np.arange(500), 500, KEYS) != permuted(np.arange(500), 500, (1, 2, 3, 5))
    ).any()


def test_every_whole_period_has_each_share_exactly():
    made = mixture((10_000, 10_000, 10_000), (0.5, 0.25, 0.25))
    for period in range(3):
        counts = np.bincount(made.draw(period * PERIOD, PERIOD).source_S, minlength=3)
        assert counts.tolist() == [PERIOD // 2, PERIOD // 4, PERIOD // 4]


def test_no_block_comes_twice_in_an_epoch_and_every_one_comes():
    made = mixture((100, 5000), (0.5, 0.5), samples=8 * PERIOD)
    drawn = made.draw(0, 8 * PERIOD)
    own = drawn.source_S == 0
    for epoch in range(int(drawn.epoch_S[own].max())):
        blocks = drawn.block_S[own & (drawn.epoch_S == epoch)]
        assert sorted(blocks.tolist()) == list(range(100))


def test_an_epoch_ends_before_the_next_begins():
    """In the order of time too: a run shorter than a period reads no block twice too early."""
    drawn = mixture((100, 5000), (0.3, 0.7), samples=4 * PERIOD).draw(0, 4 * PERIOD)
    for source in (0, 1):
        epochs = drawn.epoch_S[drawn.source_S == source]
        assert (np.diff(epochs) >= 0).all()
        assert epochs[0] == 0


def test_epochs_are_in_orders_of_their_own():
    made = mixture((PERIOD,), (1.0,), samples=2 * PERIOD)
    first, second = made.draw(0, PERIOD).block_S, made.draw(PERIOD, PERIOD).block_S
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(PERIOD))
    assert (first != second).mean() > 0.9


def test_sample_is_the_same_alone_in_bulk_and_at_any_number_of_ranks():
    made = mixture((300, 40), (0.7, 0.3))
    bulk = made.draw(100, 64)
    for ranks in (1, 2, 4, 8):
        for rank in range(ranks):
            own = made.at(np.arange(100 + rank, 164, ranks))
            assert own.source_S.tolist() == bulk.source_S[rank::ranks].tolist()
            assert own.epoch_S.tolist() == bulk.epoch_S[rank::ranks].tolist()
            assert own.block_S.tolist() == bulk.block_S[rank::ranks].tolist()


def test_samples_are_those_of_every_machine():
    """Written down once: a sample must not change with a version of this file."""
    drawn = mixture((300, 40), (0.7, 0.3)).draw(0, 6)
    assert (
        list(
            zip(
                drawn.source_S.tolist(), drawn.epoch_S.tolist(), drawn.block_S.tolist(), strict=True
            )
        )
        == FIRST_SIX
    )


def test_blend_added_later_changes_no_sample_before_it():
    samples, change = 6 * PERIOD, 3 * PERIOD + 77
    before = mixture((900, 50, 3000), (0.5, 0.1, 0.4), samples=samples, caps=(0, 20, 0))
    later = Blend(first_sample=change, run_samples=samples, shares=(0.0, 0.0, 1.0))
    after = mixture(
        (900, 50, 3000), (0.5, 0.1, 0.4), samples=samples, caps=(0, 20, 0), more=[later]
    )
    old, new = before.draw(0, change), after.draw(0, change)
    assert (old.source_S == new.source_S).all()
    assert (old.block_S == new.block_S).all()
    assert set(after.draw(change, samples - change).source_S.tolist()) == {2}


def test_sources_go_on_where_they_were_when_a_blend_changes():
    samples = 8 * PERIOD
    later = Blend(first_sample=PERIOD + 3, run_samples=samples, shares=(0.2, 0.8))
    made = mixture((100_000, 100_000), (0.5, 0.5), samples=samples, more=[later])
    drawn = made.draw(0, samples)
    for source in (0, 1):
        own = drawn.source_S == source
        assert not drawn.epoch_S[own].any()
        assert len(set(drawn.block_S[own].tolist())) == own.sum()


def test_capped_source_is_never_read_more_often():
    samples = 10 * PERIOD + 5
    made = mixture((100, 10**6), (0.5, 0.5), samples=samples, caps=(4, 0))
    drawn = made.draw(0, samples)
    own = drawn.source_S == 0
    assert int(drawn.epoch_S[own].max()) < 4
    # 400 samples over 11 periods: 36 a period, the rest goes to the other source.
    assert made.shares() == (36 / PERIOD, (PERIOD - 36) / PERIOD)
    assert made.epochs()[0] <= 4


def test_what_a_full_source_cannot_give_goes_to_the_others_in_proportion():
    # 1000 samples: the first may give 100 of its 500; the others share 900 as 3 : 2.
    assert shares_fill((5, 3, 2), (100, 1e9, 1e9), 1000) == pytest.approx((0.1, 0.54, 0.36))
    # The second, now wanting 540, is limited too: 300; the third gives the other 600.
    assert shares_fill((5, 3, 2), (100, 300, 1e9), 1000) == pytest.approx((0.1, 0.3, 0.6))


def test_caps_that_allow_too_little_are_refused_with_what_to_do():
    with pytest.raises(MixtureError, match="allow 300 samples and the run wants 6144: raise a cap"):
        mixture((100,), (1.0,), caps=(3,))


def test_slots_go_to_the_largest_remainders():
    assert slots_round((1, 1, 1), 10, (10, 10, 10)) == (4, 3, 3)
    assert slots_round((0.61, 0.39), 10, (10, 10)) == (6, 4)
    assert slots_round((0.9, 0.1), 10, (5, 10)) == (5, 5)


def test_tempered_shares_are_powers_of_the_sizes():
    assert shares_temper((900, 100), 1) == pytest.approx((0.9, 0.1))
    assert shares_temper((900, 100), 2) == pytest.approx((0.75, 0.25))  # roots are 30 and 10
    assert shares_temper((900, 100), float("inf")) == pytest.approx((0.5, 0.5))
    with pytest.raises(MixtureError, match="temperature is 1 or more"):
        shares_temper((1, 1), 0.5)


@pytest.mark.parametrize(
    ("blocks", "shares", "said"),
    [
        ((0, 5), (0.5, 0.5), "source 0 has a share but not one whole block"),
        ((5,), (0.5, 0.5), "1 sources and 2 shares"),
        ((5,), (0.0,), "a source with a share above 0"),
        ((5,), (float("nan"),), "shares are numbers"),
        ((5,), (-1.0,), "shares are numbers"),
    ],
)
def test_mixture_that_cannot_be_sampled_is_refused(blocks, shares, said):
    with pytest.raises(MixtureError, match=said):
        mixture(blocks, shares)


def test_sample_behind_the_run_is_refused():
    with pytest.raises(IndexError, match="samples are 0 to 9"):
        mixture((5,), (1.0,), samples=10).draw(8, 3)


@settings(max_examples=30, deadline=None)
@given(
    blocks=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    draws=st.data(),
    seed=st.integers(0, 2**31),
)
def test_any_mixture_keeps_its_shares_and_repeats_no_block_in_an_epoch(blocks, draws, seed):
    shares = draws.draw(
        st.lists(st.floats(0.01, 1), min_size=len(blocks), max_size=len(blocks)), label="shares"
    )
    made = mixture(blocks, shares, samples=2 * PERIOD, seed=seed)
    drawn = made.draw(0, 2 * PERIOD)
    for source, share in enumerate(shares):
        own = drawn.source_S == source
        assert abs(own.sum() / (2 * PERIOD) - share / sum(shares)) < 1 / PERIOD
        read = list(zip(drawn.epoch_S[own].tolist(), drawn.block_S[own].tolist(), strict=True))
        assert len(set(read)) == len(read)
        assert (drawn.block_S[own] < blocks[source]).all()


@pytest.mark.parametrize("samples", [0, 1, 700, 1000, 1001, 1000 + PERIOD, 3 * PERIOD - 5])
def test_counts_are_those_of_the_samples_drawn(samples):
    later = Blend(first_sample=1000, run_samples=3 * PERIOD, shares=(0.1, 0.0, 0.9))
    made = mixture((100, 5000, 70), (0.3, 0.6, 0.1), more=[later])
    drawn = np.bincount(made.draw(0, samples).source_S, minlength=3)
    assert made.counts(samples).tolist() == drawn.tolist()


def test_a_run_of_hundreds_of_millions_is_counted_without_drawing_it():
    made = mixture((10**9, 10**9), (0.75, 0.25), samples=PERIOD * 10**6)
    assert made.counts(PERIOD * 10**6).tolist() == [3 * PERIOD * 10**6 // 4, PERIOD * 10**6 // 4]
