"""RELIABILITY T22: agreement against published worked examples, to 1e-6."""

import random

import pytest

from annotation.agreement import (
    bootstrap_interval,
    fleiss_kappa,
    kendall_tau_b,
    krippendorff_alpha,
    quantile,
    wilson_interval,
)

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve
# units, not everybody everywhere. Published: nominal 0.743 (there 0.743 = 904/1216), ordinal 0.815,
# interval 0.849.
OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
UNITS_2011 = [[int(row[unit]) for row in OBSERVERS if row[unit] != "."] for unit in range(12)]

# Fleiss 1971, "Measuring nominal scale agreement among many raters", Psychological Bulletin 76,
# table 1: six psychiatrists' diagnoses of each of 30 patients, out of five. Published: 0.430; the
# further digits are those of the R package irr, whose data set "diagnoses" this is.
FLEISS_1971 = """
444444 222555 233335 555555 222444 113333 333355 113334 114444 555555
144444 124444 222333 144444 224445 333335 111455 111112 224444 133555
555555 244444 224555 114444 144445 222224 111155 224444 133333 555555
""".split()  # noqa: SIM905 (a table to be read)

# Wikipedia, "Fleiss' kappa", worked example: 10 subjects, 14 raters; how many said each class.
WIKIPEDIA = (
    "0 0 0 0 14, 0 2 6 4 2, 0 0 3 5 6, 0 3 9 2 0, 2 2 8 1 1, "
    "7 7 0 0 0, 3 2 6 3 0, 2 5 3 2 2, 6 5 2 1 0, 0 2 2 3 7"
)


def subjects(table: str) -> list[list[int]]:
    return [
        [kind for kind, count in enumerate(row.split()) for _ in range(int(count))]
        for row in table.split(",")
    ]


@pytest.mark.parametrize(
    ("metric", "published", "exactly"),
    [
        ("nominal", 0.743, 904 / 1216),
        ("ordinal", 0.815, 0.815388),
        ("interval", 0.849, 0.849107),
    ],
)
def test_krippendorffs_example_with_missing_data(
    metric: str, published: float, exactly: float
) -> None:
    alpha = krippendorff_alpha(UNITS_2011, metric=metric)
    assert round(alpha, 3) == published
    assert alpha == pytest.approx(exactly, abs=1e-6)


def test_krippendorffs_binary_example() -> None:
    # The same paper, section A: two observers, ten units; published 0.095, which is 1 - 19 * 8/168.
    one, other = "0100000010", "1110010000"
    alpha = krippendorff_alpha(list(zip(one, other, strict=True)), metric="nominal")
    assert alpha == pytest.approx(1 - 19 * 8 / (2 * 14 * 6), abs=1e-12)
    assert round(alpha, 3) == 0.095


def test_krippendorffs_nominal_example_of_two_observers() -> None:
    # The same paper, section B: twelve units, five values; published 0.692.
    one, other = "aabbdcccedda", "babbbccceddd"
    alpha = krippendorff_alpha(list(zip(one, other, strict=True)), metric="nominal")
    assert round(alpha, 3) == 0.692
    assert alpha == pytest.approx(0.6919642857142857, abs=1e-12)


def test_two_values_have_one_alpha_whatever_the_metric() -> None:
    units = [[0, 1, 0], [1, 1], [0, 0, 0, 1], [1, 1, 1]]
    alphas = [krippendorff_alpha(units, metric=m) for m in ("nominal", "ordinal", "interval")]
    assert alphas == pytest.approx([alphas[0]] * 3, abs=1e-12)


def test_alpha_is_none_without_disagreement_to_expect() -> None:
    assert krippendorff_alpha([], metric="nominal") is None
    assert krippendorff_alpha([[1], [2]], metric="ordinal") is None
    assert krippendorff_alpha([[3, 3], [3, 3]], metric="interval") is None


def test_alpha_of_guessing_is_near_zero_and_of_agreeing_is_one() -> None:
    draw = random.Random(4)
    guesses = [[draw.randrange(4) for _ in range(3)] for _ in range(3000)]
    assert krippendorff_alpha(guesses, metric="nominal") == pytest.approx(0, abs=0.03)
    agreeing = [[kind] * 3 for kind in (1, 2, 1, 3)]
    assert krippendorff_alpha(agreeing, metric="ordinal") == 1


def test_the_psychiatrists_of_fleiss() -> None:
    kappa = fleiss_kappa(FLEISS_1971)
    assert round(kappa, 3) == 0.430
    assert kappa == pytest.approx(0.4302445, abs=1e-6)
    # The shares of the five diagnoses, as the paper prints them.
    said = "".join(FLEISS_1971)
    assert [round(said.count(kind) / 180, 3) for kind in "12345"] == [
        *(0.144, 0.144, 0.167, 0.306, 0.239)
    ]


def test_wikipedias_fleiss_kappa() -> None:
    assert fleiss_kappa(subjects(WIKIPEDIA)) == pytest.approx(0.20993070442195522, abs=1e-12)


def test_fleiss_kappa_wants_equally_many_people() -> None:
    with pytest.raises(ValueError, match="same number"):
        fleiss_kappa([["a", "b"], ["a", "b", "b"]])
    with pytest.raises(ValueError, match="same number"):
        fleiss_kappa([["a"], ["b"]])
    assert fleiss_kappa([]) is None
    assert fleiss_kappa([["a", "a"], ["a", "a"]]) is None


def test_scipys_example_of_tau_b() -> None:
    # The example in the documentation of scipy.stats.kendalltau.
    tau = kendall_tau_b([12, 2, 1, 12, 2], [1, 4, 7, 1, 0])
    assert tau == pytest.approx(-0.47140452079103173, abs=1e-12)


def test_kendalls_example_of_ties_in_both_rankings() -> None:
    # Kendall 1970, "Rank Correlation Methods", chapter 3: S = 33 of 45 pairs, four tied in the one
    # and nine in the other ranking; published 0.859.
    one = [1, 2.5, 2.5, 4.5, 4.5, 6.5, 6.5, 8, 9.5, 9.5]
    other = [1, 2, 4.5, 4.5, 4.5, 4.5, 8, 8, 8, 10]
    tau = kendall_tau_b(one, other)
    assert round(tau, 3) == 0.859
    assert tau == pytest.approx(33 / (41 * 36) ** 0.5, abs=1e-12)


def test_tau_b_with_ties_by_hand() -> None:
    # Pairs of (1, 2, 2, 3) and (1, 1, 2, 3): 4 agree, none is opposed, 5 and 5 are untied.
    assert kendall_tau_b([1, 2, 2, 3], [1, 1, 2, 3]) == pytest.approx(4 / 5, abs=1e-12)
    assert kendall_tau_b([1, 2, 3], [1, 2, 3]) == 1
    assert kendall_tau_b([1, 2, 3], [3, 2, 1]) == -1
    assert kendall_tau_b([1, 1, 1], [1, 2, 3]) is None
    with pytest.raises(ValueError, match="3 things"):
        kendall_tau_b([1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_newcombes_examples_of_wilsons_interval(
    successes: int, trials: int, low: float, high: float
) -> None:
    interval = wilson_interval(successes, trials)
    assert interval.value == successes / trials
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_a_share_of_nothing_has_no_interval() -> None:
    assert wilson_interval(0, 0) is None


def test_quantiles_lie_between_neighbours() -> None:
    assert [quantile([1, 2, 4], share) for share in (0, 0.25, 0.5, 0.75, 1)] == [1, 1.5, 2, 3, 4]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = random.Random(11)
    covered = 0
    for trial in range(200):
        sample = [draw.gauss(3, 1) for _ in range(40)]
        interval = bootstrap_interval(sample, mean, seed=trial)
        covered += interval.low <= 3 <= interval.high
    assert 0.88 <= covered / 200 <= 0.98


def test_the_same_seed_draws_the_same_interval() -> None:
    sample = [1.0, 2.0, 5.0, 7.0, 7.5]
    assert bootstrap_interval(sample, mean, seed=3) == bootstrap_interval(sample, mean, seed=3)
    assert bootstrap_interval(sample, mean, seed=3) != bootstrap_interval(sample, mean, seed=4)


def test_too_little_has_a_value_and_no_interval() -> None:
    interval = bootstrap_interval([1.0, 2.0], mean)
    assert (interval.value, interval.low, interval.high) == (1.5, None, None)
    assert bootstrap_interval([], lambda groups: None) is None
