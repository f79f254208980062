"""When a pair is asked again mirrored, and how its sides are swapped."""

import pytest

from annotation.mirroring import mirror_due, mirror_pick, mirror_seed
from annotation.shown_order import order_shuffled


def test_the_share_is_kept_over_many_tasks_and_nobody_else_has_it_at_the_same_places() -> None:
    def places(seed: str) -> list[int]:
        mirrored, found = 0, []
        for handed_out in range(200):
            if mirror_due(handed_out=handed_out, mirrored=mirrored, share=0.1, seed=seed):
                mirrored += 1
                found.append(handed_out)
        return found

    assert len(places("a")) == len(places("b")) == 20
    assert places("a") != places("b")
    assert not mirror_due(handed_out=9, mirrored=0, share=0.0, seed="a")


def test_the_seed_shows_the_two_answers_the_other_way_round() -> None:
    for shown in (["one", "two"], ["two", "one"]):
        assert order_shuffled(["one", "two"], seed=mirror_seed(shown)) == shown[::-1]
    with pytest.raises(ValueError, match="got 3"):
        mirror_seed(["a", "b", "c"])


def test_which_pair_it_is_depends_on_the_person_alone() -> None:
    uids = [str(one) for one in range(20)]
    assert mirror_pick(uids, seed="x") == mirror_pick(uids[::-1], seed="x")
    assert len({mirror_pick(uids, seed=str(seed)) for seed in range(50)}) > 5
