"""Every weak order of up to five answers becomes exactly the pairs it says (541 for five)."""

from collections.abc import Iterator
from itertools import combinations

import pytest

from annotation.pairs import Pair, ranking_pairs, tiers_pairs


def weak_orders(items: tuple[str, ...]) -> Iterator[list[list[str]]]:
    """Every way to put the items in tiers: choose the best tier, then order the rest."""
    if not items:
        yield []
        return
    for size in range(1, len(items) + 1):
        for best in combinations(items, size):
            rest = tuple(item for item in items if item not in best)
            for lower in weak_orders(rest):
                yield [list(best), *lower]


# The ordered Bell numbers: the weak orders of 2, 3, 4 and 5 things.
@pytest.mark.parametrize(("k", "orders"), [(2, 3), (3, 13), (4, 75), (5, 541)])
def test_every_weak_order_yields_exactly_its_pairs(k: int, orders: int) -> None:
    items = tuple("abcde"[:k])
    seen = 0
    for tiers in weak_orders(items):
        seen += 1
        place = {item: number for number, tier in enumerate(tiers) for item in tier}
        expected = {
            (x, y): place[y] - place[x] for x in items for y in items if place[x] < place[y]
        }
        pairs = list(ranking_pairs(tiers))
        assert {(p.better, p.worse): p.tiers_apart for p in pairs} == expected
        assert len(pairs) == len(expected)
        assert all(p.better != p.worse for p in pairs)
        assert all((p.worse, p.better) not in expected for p in pairs)
        places = [place[p.better] for p in pairs]
        assert places == sorted(places)

        with_ties = list(ranking_pairs(tiers, ties="include"))
        assert len(with_ties) == k * (k - 1) // 2
        tied = [p for p in with_ties if p.tiers_apart == 0]
        assert all(place[p.better] == place[p.worse] and p.better < p.worse for p in tied)
        assert set(pairs) == set(with_ties) - set(tied)
    assert seen == orders


def test_pairs_worked_by_hand() -> None:
    assert list(ranking_pairs([["b"], ["c", "a"], ["d"]])) == [
        Pair(better="b", worse="a", tiers_apart=1),
        Pair(better="b", worse="c", tiers_apart=1),
        Pair(better="b", worse="d", tiers_apart=2),
        Pair(better="a", worse="d", tiers_apart=1),
        Pair(better="c", worse="d", tiers_apart=1),
    ]


def test_two_unacceptable_answers_are_a_pair_like_any_and_are_marked() -> None:
    told = ranking_pairs([["a"], ["b"], ["c"]], unacceptable=["b", "c"])
    assert [(p.better, p.worse, p.both_unacceptable) for p in told] == [
        ("a", "b", False),
        ("a", "c", False),
        ("b", "c", True),
    ]


def test_pairs_of_places_are_those_of_names() -> None:
    assert tiers_pairs([[1], [0, 3], [2]]) == [(1, 0), (1, 3), (1, 2), (0, 2), (3, 2)]
    assert tiers_pairs([[0, 1, 2]]) == []


def test_the_order_inside_a_tier_means_nothing() -> None:
    assert list(ranking_pairs([["a", "b"], ["c"]])) == list(ranking_pairs([["b", "a"], ["c"]]))


@pytest.mark.parametrize("tiers", [[], [["a"]], [["a", "b", "c"]]])
def test_nothing_to_compare_yields_nothing(tiers: list[list[str]]) -> None:
    assert list(ranking_pairs(tiers)) == []


def test_an_answer_ranked_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        list(ranking_pairs([["a"], ["a"]]))
