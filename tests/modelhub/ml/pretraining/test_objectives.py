"""What a block becomes to learn from, worked by hand."""

import numpy as np

from modelhub.ml.pretraining.objectives import (
    IGNORED,
    causal_targets,
    masked_example,
    noise_spans,
    pieces,
    sees,
    span_block,
    span_example,
)

X = IGNORED


def ints(*values):
    return np.array(values, dtype=np.int64)


def test_pieces_begin_where_positions_restart_and_at_the_block():
    assert pieces(ints(0, 1, 2, 0, 1, 0)).tolist() == [0, 0, 0, 1, 1, 2]
    assert pieces(ints(7, 8, 0, 1)).tolist() == [0, 0, 1, 1]  # a block begun inside a document


def test_nothing_is_guessed_across_a_border():
    targets = causal_targets(ints(5, 6, 7, 8, 9), ints(0, 0, 0, 1, 1))
    assert targets.tolist() == [6, 7, X, 9, X]
    assert causal_targets(ints(5, 6, 7), ints(0, 0, 0)).tolist() == [6, 7, X]


def test_berts_shares_are_80_10_10_and_special_tokens_stay():
    tokens = np.tile(np.arange(10, 20), 20_000)
    source, target = masked_example(
        tokens,
        share=0.15,
        mask_id=3,
        vocabulary=1000,
        kept_ids={10},
        generator=np.random.default_rng(0),
    )
    chosen = target != IGNORED
    assert not chosen[tokens == 10].any()
    assert abs(chosen[tokens != 10].mean() - 0.15) < 0.003
    assert (target[chosen] == tokens[chosen]).all()
    assert (source[~chosen] == tokens[~chosen]).all()
    masked = (source[chosen] == 3).mean()
    # A drawn token is now and then the token itself: 1 in 1,000.
    kept = (source[chosen] == tokens[chosen]).mean()
    assert abs(masked - 0.8) < 0.01
    assert abs(kept - 0.1) < 0.01
    assert abs(1 - masked - kept - 0.1) < 0.01


def test_a_short_block_has_one_token_to_guess_at_least():
    for seed in range(50):
        _, target = masked_example(
            ints(10, 11, 12),
            share=0.01,
            mask_id=3,
            vocabulary=20,
            kept_ids={10},
            generator=np.random.default_rng(seed),
        )
        assert (target != IGNORED).sum() == 1


def test_spans_have_the_asked_share_and_mean_length_and_never_touch():
    noise = noise_spans(1000, share=0.15, span_tokens=3.0, generator=np.random.default_rng(1))
    assert noise.sum() == 150
    starts = noise & ~np.concatenate([[False], noise[:-1]])
    assert starts.sum() == 50
    assert not noise[0]
    assert noise[-1]


def test_pieces_of_one_and_two_tokens_are_corrupted_as_far_as_they_can():
    generator = np.random.default_rng(0)
    one = noise_spans(1, share=0.15, span_tokens=3.0, generator=generator)
    two = noise_spans(2, share=0.15, span_tokens=3.0, generator=generator)
    assert (one.tolist(), two.tolist()) == ([False], [False, True])


def test_spans_become_sentinels_and_the_target_spells_them_out():
    # "Thank you for inviting me to your party last week", figure 2 of the paper.
    tokens = ints(10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
    noise = np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 0], dtype=bool)
    source, target = span_example(tokens, noise, sentinel_ids=[90, 91, 92], end_id=1)
    assert source.tolist() == [10, 11, 90, 14, 15, 16, 17, 91, 19, 1]
    assert target.tolist() == [90, 12, 13, 91, 18, 92, 1]


def test_more_spans_than_sentinels_leave_the_rest_as_it_was():
    tokens = ints(10, 11, 12, 13, 14, 15)
    noise = np.array([0, 1, 0, 1, 0, 1], dtype=bool)
    source, target = span_example(tokens, noise, sentinel_ids=[90, 91], end_id=1)
    assert source.tolist() == [10, 90, 12, 13, 14, 15, 1]
    assert target.tolist() == [90, 11, 91, 1]


def test_every_piece_of_a_block_counts_its_sentinels_from_the_first():
    found = span_block(
        np.arange(10, 30),
        np.repeat([0, 1], 10),
        share=0.2,
        span_tokens=2.0,
        sentinel_ids=[90, 91, 92],
        end_id=1,
        generator=np.random.default_rng(0),
    )
    for side, piece in (
        (found.source_S, found.source_piece_S),
        (found.target_U, found.target_piece_U),
    ):
        for number in (0, 1):
            assert (side[piece == number] == 90).sum() == 1
            assert side[piece == number][-1] == 1


def test_a_place_sees_its_own_piece_and_padding_is_seen_by_nobody():
    own = ints(0, 0, 1, -1)
    assert sees(own, own, causal=True).astype(int).tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
    assert sees(own, own, causal=False).astype(int).tolist()[0] == [1, 1, 0, 0]
    crossed = sees(ints(0, 1, -1), own, causal=False).astype(int)
    assert crossed.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1]]


def test_sides_of_one_length_see_no_more_than_others():
    crossed = sees(ints(0, 1, 1), ints(0, 0, 1), causal=False).astype(int)
    assert crossed.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1]]
