"""When a known answer is mixed in, and how a judgement is scored against it."""

from itertools import pairwise

import pytest

from annotation.gold import gold_due, gold_score, judgements_agree, pair_degree


def handed(share: float, tasks: int, *, seed: str = "s", gold_at_hand: bool = True) -> list[int]:
    """At which of the first tasks gold came."""
    came: list[int] = []
    for number in range(tasks):
        due = gold_due(handed_out=number, gold_handed_out=len(came), share=share, seed=seed)
        if due and gold_at_hand:
            came.append(number)
    return came


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.34])
def test_the_share_of_gold_is_as_asked(share: float) -> None:
    for seed in "abc":
        came = handed(share, 1000, seed=seed)
        assert len(came) == pytest.approx(1000 * share, abs=1)


def test_no_share_means_no_gold_and_the_whole_means_all() -> None:
    assert handed(0.0, 500) == []
    assert handed(1.0, 50) == list(range(50))


def test_its_places_differ_by_person_and_are_not_regular() -> None:
    assert handed(0.1, 100, seed="ann") != handed(0.1, 100, seed="ben")
    came = handed(0.1, 1000, seed="ann")
    assert len({after - before for before, after in pairwise(came)}) > 5


def test_gold_that_was_not_at_hand_is_not_poured_out_later() -> None:
    came: list[int] = []
    for number in range(200):
        due = gold_due(handed_out=number, gold_handed_out=len(came), share=0.1, seed="s")
        if due and number >= 100:  # none could be had before
            came.append(number)
    gaps = [after - before for before, after in pairwise(came)]
    assert 8 <= len(came) <= 11
    assert min(gaps) >= 1 and sum(gap == 1 for gap in gaps) <= 2


def test_gold_that_was_not_at_hand_is_due_until_its_stretch_ends() -> None:
    place = handed(0.1, 10)[0]
    later = [n for n in range(10) if gold_due(handed_out=n, gold_handed_out=0, share=0.1, seed="s")]
    assert later == list(range(place, 10))


TIERS = [["a"], ["b"], ["c"]]


@pytest.mark.parametrize(
    ("tiers", "score"),
    [
        ([["a"], ["b"], ["c"]], 1.0),
        ([["c"], ["b"], ["a"]], 0.0),
        ([["a"], ["c"], ["b"]], 2 / 3),
        ([["a"], ["b", "c"]], 2.5 / 3),
        ([["a", "b", "c"]], 0.5),
    ],
)
def test_rankings_are_scored_by_pairs(tiers: list[list[str]], score: float) -> None:
    assert gold_score("ranking", {"tiers": TIERS}, {"tiers": tiers}) == pytest.approx(score)


def test_unacceptable_marks_count_where_the_gold_has_some() -> None:
    gold = {"tiers": TIERS, "unacceptable": ["c"]}
    assert gold_score("ranking", gold, {"tiers": TIERS, "unacceptable": ["c"]}) == 1
    assert gold_score("ranking", gold, {"tiers": TIERS}) == pytest.approx((1 + 2 / 3) / 2)
    assert gold_score("ranking", {"tiers": TIERS}, {"tiers": TIERS, "unacceptable": ["c"]}) == 1


@pytest.mark.parametrize(
    ("better", "degree", "score"),
    [("a", 4, 1.0), ("a", 1, 0.75), ("a", 3, 1 - 1 / 12), (None, 0, 0.5), ("b", 1, 0.0)],
)
def test_pairs_are_scored_by_choice_then_degree(
    better: str | None, degree: int, score: float
) -> None:
    gold = {"better": "a", "degree": 4}
    judgement = {"better": better, "degree": degree}
    assert gold_score("pair", gold, judgement) == pytest.approx(score)


def test_safety_labels_are_half_of_a_pair_that_names_them() -> None:
    gold = {"better": "a", "degree": 4, "unsafe": ["b"]}
    assert gold_score("pair", gold, {"better": "a", "degree": 4, "unsafe": ["b"]}) == 1
    assert gold_score("pair", gold, {"better": "a", "degree": 4, "unsafe": ["a", "b"]}) == 0.75


def test_ratings_are_scored_by_steps_and_flags() -> None:
    gold = {"ratings": {"a": {"overall": 7, "flags": ["harmful"]}, "b": {"overall": 1}}}
    judgement = {
        "ratings": {"a": {"overall": 4, "flags": []}, "b": {"overall": 1, "flags": ["wrong"]}}
    }
    # a: half the way in six steps, and none of one flag; b as known, its flags not asked.
    assert gold_score("rating", gold, judgement) == pytest.approx((0.5 + 0 + 1) / 3)


def test_edits_are_scored_by_what_they_take_up() -> None:
    assert gold_score("edit", {"original": "a"}, {"original": "a", "text": "x"}) == 1
    assert gold_score("edit", {"original": "a"}, {"original": "b", "text": "x"}) == 0


def test_what_is_written_has_no_known_answer() -> None:
    with pytest.raises(ValueError, match="demonstration"):
        gold_score("demonstration", {"text": "x"}, {"text": "x"})
    with pytest.raises(ValueError, match="nothing to score"):
        gold_score("pair", {}, {"better": "a", "degree": 1})
    assert judgements_agree("dialogue", {"turns": []}, {"turns": []}) is None
    assert judgements_agree("rating", {"ratings": {}}, {"ratings": {}}) is None


def test_people_agree_the_same_both_ways_round() -> None:
    one = {"tiers": TIERS, "unacceptable": ["c"]}
    other = {"tiers": [["a", "b"], ["c"]], "unacceptable": []}
    forth, back = judgements_agree("ranking", one, other), judgements_agree("ranking", other, one)
    assert forth == pytest.approx(back)
    assert 0 < forth < 1


def test_a_pairs_degree_is_signed_by_who_is_better() -> None:
    assert pair_degree({"better": "a", "degree": 3}, "a") == 3
    assert pair_degree({"better": "b", "degree": 3}, "a") == -3
    assert pair_degree({"better": None, "degree": 0}, "a") == 0
