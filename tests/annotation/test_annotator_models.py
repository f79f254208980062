"""Annotator models against the published example and the likelihood written out; who is caught."""

import math
import random
from itertools import combinations

import pytest

from annotation.annotator_models import bradley_terry, crowd_bradley_terry, dawid_skene

# Dawid and Skene 1979, table 1: 45 patients, five anaesthetists, of whom the first said it three
# times. Each word is a patient: the first's three reports, then one of each other's.
ANAESTHETISTS = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343
1111111 2223212 1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222
1111111 1111111 2322222 1111111 1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343
2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
""".split()  # noqa: SIM905 (a table to be read)
# Their estimates, tables 2 and 3, are printed with two digits. These have more: the public program
# github.com/dallascard/dawid_skene, whose example this is, iterated until nothing moves (1e-14).
PRIORS = [0.3995547529, 0.4219833919, 0.1117951885, 0.0666666667]
FIRST = [
    [0.8894883487, 0.1105116513, 0, 0],
    [0.0705854505, 0.8763799368, 0.0530346126, 0],
    [0, 0.3388215402, 0.6611784598, 0],
    [0, 0, 0.5555555556, 0.4444444444],
]
THIRD = [
    [1, 0, 0, 0],
    [0.1063778633, 0.7882994030, 0.1053227338, 0],
    [0, 0.4036714143, 0.1987761952, 0.3975523905],
    [0, 0, 0.6666666667, 0.3333333333],
]
LOG_LIKELIHOOD = -192.8908812142053


def anaesthetists() -> list[tuple[int, int, int]]:
    return [
        (patient, max(0, place - 2), int(said))
        for patient, word in enumerate(ANAESTHETISTS, start=1)
        for place, said in enumerate(word)
    ]


def test_the_anaesthetists_of_dawid_and_skene() -> None:
    fitted = dawid_skene(anaesthetists(), tolerance=1e-12)
    assert fitted.classes == (1, 2, 3, 4)
    assert list(fitted.priors) == pytest.approx(PRIORS, abs=1e-6)
    for who, wanted in ((0, FIRST), (2, THIRD)):
        for row, wanted_row in zip(fitted.confusion[who], wanted, strict=True):
            assert list(row) == pytest.approx(wanted_row, abs=1e-6)
    assert fitted.log_likelihood == pytest.approx(LOG_LIKELIHOOD, abs=1e-6)
    assert fitted.posteriors[38] == pytest.approx((0, 0.0212004842, 0.9787995158, 0), abs=1e-6)
    # As the paper prints them.
    assert [round(prior, 2) for prior in fitted.priors] == [0.40, 0.42, 0.11, 0.07]


def test_two_classes_in_two_patients_by_hand() -> None:
    # Both say 1 of the first and 0 of the second: that is what they are.
    fitted = dawid_skene([("a", "x", 1), ("a", "y", 1), ("b", "x", 0), ("b", "y", 0)])
    assert fitted.priors == (0.5, 0.5)
    assert fitted.posteriors == {"a": (0.0, 1.0), "b": (1.0, 0.0)}
    assert fitted.weight("x") == 1.0
    assert fitted.log_likelihood == pytest.approx(2 * math.log(0.5))


def test_smoothing_keeps_a_newcomer_from_certainty() -> None:
    labels = [(item, who, item % 2) for item in range(20) for who in "xy"] + [(0, "new", 0)]
    sure, careful = dawid_skene(labels), dawid_skene(labels, smoothing=1.0)
    assert sure.confusion["new"][0][0] == 1.0
    assert careful.confusion["new"][0][0] == pytest.approx(5 / 6, abs=1e-2)
    assert careful.confusion["new"][1][1] == pytest.approx(4 / 5, abs=1e-2)


def test_labels_that_cannot_be_fitted_are_refused() -> None:
    with pytest.raises(ValueError, match="no labels"):
        dawid_skene([])
    with pytest.raises(ValueError, match="'c'"):
        dawid_skene([("a", "x", "c")], classes=("a", "b"))


def test_one_class_alone_says_nothing_against_anybody() -> None:
    assert dawid_skene([("a", "x", "no"), ("a", "y", "no")]).weight("x") == 1.0


# Stigler's citations between journals, as in Agresti 2002, p. 448: cited over citing.
CITATIONS = {
    ("Biometrika", "Comm Statist"): 730,
    ("Comm Statist", "Biometrika"): 33,
    ("Biometrika", "JASA"): 498,
    ("JASA", "Biometrika"): 320,
    ("Biometrika", "JRSS-B"): 221,
    ("JRSS-B", "Biometrika"): 284,
    ("Comm Statist", "JASA"): 68,
    ("JASA", "Comm Statist"): 813,
    ("Comm Statist", "JRSS-B"): 17,
    ("JRSS-B", "Comm Statist"): 276,
    ("JASA", "JRSS-B"): 142,
    ("JRSS-B", "JASA"): 325,
}


def test_the_journals_of_stigler() -> None:
    # Turner and Firth 2012, Journal of Statistical Software 48(9), section 2: coefficients of the
    # citations data against Biometrika, as printed there.
    scores = bradley_terry(CITATIONS, tolerance=1e-13)
    against = {name: score - scores["Biometrika"] for name, score in scores.items()}
    assert against["Comm Statist"] == pytest.approx(-2.9491, abs=5e-5)
    assert against["JASA"] == pytest.approx(-0.4796, abs=5e-5)
    assert against["JRSS-B"] == pytest.approx(0.2690, abs=5e-5)
    # And they solve the likelihood equations: as many wins as the abilities expect.
    for name in scores:
        won = sum(n for (winner, _), n in CITATIONS.items() if winner == name)
        expected = sum(
            n / (1 + math.exp(scores[b if a == name else a] - scores[name]))
            for (a, b), n in CITATIONS.items()
            if name in (a, b)
        )
        assert won == pytest.approx(expected, abs=1e-6)


def test_two_things_have_the_log_odds_of_their_wins() -> None:
    scores = bradley_terry({("a", "b"): 3, ("b", "a"): 1})
    assert scores["a"] - scores["b"] == pytest.approx(math.log(3), abs=1e-9)


def test_what_never_lost_has_no_ability_without_a_ridge() -> None:
    with pytest.raises(ValueError, match="no maximum"):
        bradley_terry({("a", "b"): 3})
    scores = bradley_terry({("a", "b"): 3}, ridge=0.5)
    assert scores["a"] > scores["b"]


def simulate(
    draw: random.Random, right: dict[str, float], prompts: int, answers: int = 4
) -> list[tuple[str, str, str]]:
    """Everybody ranks all pairs of all prompts; each pair as it is with their probability."""
    comparisons = []
    for prompt in range(prompts):
        for one, other in combinations(range(answers), 2):  # the lower number is better
            better, worse = f"{prompt}/{one}", f"{prompt}/{other}"
            for who, share in right.items():
                pair = (better, worse) if draw.random() < share else (worse, better)
                comparisons.append((*pair, who))
    return comparisons


def log_posterior(
    scores: dict[str, float],
    reliability: dict[str, float],
    comparisons: list[tuple[str, str, str]],
    ridge: float,
    prior: tuple[float, float],
) -> float:
    """Chen et al. 2013, written out: likelihood, virtual node, and the Beta prior."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    total = 0.0
    for better, worse, who in comparisons:
        fair = sigmoid(scores[better] - scores[worse])
        total += math.log(reliability[who] * fair + (1 - reliability[who]) * (1 - fair))
    total += ridge * sum(math.log(sigmoid(s)) + math.log(sigmoid(-s)) for s in scores.values())
    for eta in reliability.values():
        total += (prior[0] - 1) * math.log(eta) + (prior[1] - 1) * math.log(1 - eta)
    return total


def test_crowd_bradley_terry_is_at_a_stationary_point_of_its_posterior() -> None:
    comparisons = simulate(random.Random(1), {"x": 0.9, "y": 0.8, "z": 0.3}, prompts=6)
    ridge, prior, step = 0.5, (2.0, 2.0), 1e-5
    fitted = crowd_bradley_terry(
        comparisons, ridge=ridge, prior=prior, tolerance=1e-12, max_iterations=20_000
    )
    for values in (fitted.scores, fitted.reliability):
        for name, value in values.items():
            slopes = []
            for moved in (value + step, value - step):
                values[name] = moved
                slopes.append(
                    log_posterior(fitted.scores, fitted.reliability, comparisons, ridge, prior)
                )
            values[name] = value
            assert (slopes[0] - slopes[1]) / (2 * step) == pytest.approx(0, abs=1e-6)


def test_with_annotators_beyond_doubt_it_is_bradley_terry() -> None:
    comparisons = simulate(random.Random(2), {"x": 0.9, "y": 0.8}, prompts=1, answers=5)
    wins: dict[tuple[str, str], float] = {}
    for better, worse, _ in comparisons:
        wins[better, worse] = wins.get((better, worse), 0) + 1
    crowd = crowd_bradley_terry(comparisons, prior=(1e12, 1.0), ridge=0.5, tolerance=1e-12)
    plain = bradley_terry(wins, ridge=0.5, tolerance=1e-12)
    middle = sum(crowd.scores.values()) / len(crowd.scores)
    assert {k: v - middle for k, v in crowd.scores.items()} == pytest.approx(plain, abs=1e-6)


def test_whoever_reverses_everything_is_found_and_weighs_nothing() -> None:
    right = {"a": 0.9, "b": 0.9, "c": 0.9, "blind": 0.5, "reversed": 0.05}
    fitted = crowd_bradley_terry(simulate(random.Random(3), right, prompts=40))
    assert fitted.reliability["a"] > 0.8
    assert fitted.reliability["blind"] == pytest.approx(0.5, abs=0.12)
    assert fitted.reliability["reversed"] < 0.25
    assert fitted.weight("reversed") == 0.0
    assert fitted.weight("a") > 0.6 > 0.3 > fitted.weight("blind")


def test_comparisons_that_cannot_be_fitted_are_refused() -> None:
    with pytest.raises(ValueError, match="no comparisons"):
        crowd_bradley_terry([])
    with pytest.raises(ValueError, match="ridge"):
        crowd_bradley_terry([("a", "b", "x")], ridge=0)
    with pytest.raises(ValueError, match="prior"):
        crowd_bradley_terry([("a", "b", "x")], prior=(0.5, 1))


def area_under_curve(bad: list[float], good: list[float]) -> float:
    """How often somebody bad weighs less than somebody good; half for a tie."""
    wins = sum((b < g) + 0.5 * (b == g) for b in bad for g in good)
    return wins / (len(bad) * len(good))


def test_poisoned_annotators_are_told_from_honest_ones() -> None:
    """T20: 20 honest people with 15 % noise; guessers, and people who reverse a fifth more."""
    draw = random.Random(5)
    right = {f"honest{n}": 0.85 for n in range(20)}
    right |= {f"random{n}": 0.5 for n in range(4)}
    # A fifth of what they say is turned round: 0.85 × 0.8 + 0.15 × 0.2.
    right |= {f"flips{n}": 0.71 for n in range(4)}
    everybody = simulate(draw, right, prompts=60)
    seen = [one for one in everybody if draw.random() < 0.25]  # a quarter each: overlap of 7
    fitted = crowd_bradley_terry(seen)
    weights: dict[str, list[float]] = {"honest": [], "random": [], "flips": []}
    for name in right:
        weights[name.rstrip("0123456789")].append(fitted.weight(name))
    assert area_under_curve(weights["random"], weights["honest"]) >= 0.95
    assert area_under_curve(weights["flips"], weights["honest"]) >= 0.8
    limit = 0.4
    assert sum(weight < limit for weight in weights["honest"]) <= 1  # 5 % of 20
