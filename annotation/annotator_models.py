"""How far each annotator can be trusted, learnt from what all of them said. Plain Python.

Two models, both fitted by expectation-maximisation: Dawid and Skene's for labels (flags, which of
two is better), and Chen's crowd Bradley-Terry for comparisons of answers, which rankings make. Both
give a weight in [0, 1] that a row of a snapshot can carry.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DawidSkene:
    """Dawid and Skene's estimates. Confusion rows are true classes, columns what was said."""

    classes: tuple[Hashable, ...]
    priors: tuple[float, ...]
    confusion: dict[Hashable, tuple[tuple[float, ...], ...]]  # by annotator
    posteriors: dict[Hashable, tuple[float, ...]]  # by item: probability of each class
    log_likelihood: float
    iterations: int

    def weight(self, annotator: Hashable) -> float:
        """How much more than a guess the annotator's labels say: 1 always right, 0 by chance.

        The mean over classes of the probability to name the true one, scaled so that a blind
        guess is 0; who does worse than that gets 0 too. With two classes it is Youden's index.
        """
        rows = self.confusion[annotator]
        if len(rows) < 2:
            return 1.0
        hit = math.fsum(row[place] for place, row in enumerate(rows)) / len(rows)
        return max(0.0, (hit - 1 / len(rows)) / (1 - 1 / len(rows)))


def dawid_skene(
    labels: Iterable[tuple[Hashable, Hashable, Hashable]],
    *,
    classes: Sequence[Hashable] = (),
    smoothing: float = 0.0,
    tolerance: float = 1e-8,
    max_iterations: int = 2000,
) -> DawidSkene:
    """Fit error rates and true classes to (item, annotator, label) triples.

    Dawid and Skene 1979, Applied Statistics 28, 20-28, equations 2.3 to 2.5, begun as there from
    each item's shares of labels. Somebody may label an item more than once.
    classes: all there are; those that occur, sorted by their text, if not given.
    smoothing: labels of each class that everybody is taken to have given beforehand, shared as the
    right class gets four times what each other one gets; 0 is the paper's estimator.
    Stops when no posterior moves by more than the tolerance. Raises ValueError for no labels, or
    a label that is none of the classes.
    """
    triples = list(labels)
    if not triples:
        raise ValueError("no labels")
    named = tuple(classes) or tuple(sorted({label for *_, label in triples}, key=str))
    place = {label: number for number, label in enumerate(named)}
    said: dict[Hashable, dict[tuple[Hashable, int], int]] = defaultdict(lambda: defaultdict(int))
    for item, annotator, label in triples:
        if label not in place:
            raise ValueError(f"{label!r} is none of the classes")
        said[item][annotator, place[label]] += 1
    size = len(named)
    posteriors: dict[Hashable, list[float]] = {}
    for item, counts in said.items():
        shares = [0.0] * size
        for (_, label_place), count in counts.items():
            shares[label_place] += count
        total = sum(shares)
        posteriors[item] = [share / total for share in shares]

    step, likelihood = 0, -math.inf
    priors: list[float] = []
    rates: dict[Hashable, list[list[float]]] = {}
    for step in range(1, max_iterations + 1):  # noqa: B007 (the last is reported)
        priors, rates = _error_rates(said, posteriors, size, smoothing)
        moved, likelihood = _posteriors_update(said, posteriors, priors, rates)
        if moved <= tolerance:
            break
    return DawidSkene(
        classes=named,
        priors=tuple(priors),
        confusion={who: tuple(tuple(row) for row in rows) for who, rows in rates.items()},
        posteriors={item: tuple(row) for item, row in posteriors.items()},
        log_likelihood=likelihood,
        iterations=step,
    )


def _error_rates(
    said: Mapping[Hashable, Mapping[tuple[Hashable, int], int]],
    posteriors: Mapping[Hashable, Sequence[float]],
    size: int,
    smoothing: float,
) -> tuple[list[float], dict[Hashable, list[list[float]]]]:
    """The M-step: equations 2.3 and 2.4."""
    totals = [0.0] * size
    rates: dict[Hashable, list[list[float]]] = {}
    for item, counts in said.items():
        row = posteriors[item]
        for true in range(size):
            totals[true] += row[true]
        for (annotator, label), count in counts.items():
            if annotator not in rates:
                rates[annotator] = [
                    [smoothing * (4.0 if label == true else 1.0) for label in range(size)]
                    for true in range(size)
                ]
            rows = rates[annotator]
            for true in range(size):
                rows[true][label] += count * row[true]
    for rows in rates.values():
        for true in range(size):
            whole = math.fsum(rows[true])
            # Of a class that somebody never met nothing is known: a guess among all.
            rows[true] = [one / whole for one in rows[true]] if whole else [1 / size] * size
    return [total / len(said) for total in totals], rates


def _posteriors_update(
    said: Mapping[Hashable, Mapping[tuple[Hashable, int], int]],
    posteriors: dict[Hashable, list[float]],
    priors: Sequence[float],
    rates: Mapping[Hashable, Sequence[Sequence[float]]],
) -> tuple[float, float]:
    """The E-step, equation 2.5, in place; (the largest move, the log-likelihood)."""
    moved, likelihood = 0.0, 0.0
    for item, counts in said.items():
        logs = [math.log(prior) if prior else -math.inf for prior in priors]
        for (annotator, label), count in counts.items():
            for true, rows in enumerate(rates[annotator]):
                logs[true] += count * math.log(rows[label]) if rows[label] else -math.inf
        top = max(logs)
        shares = [math.exp(one - top) for one in logs]
        whole = math.fsum(shares)
        likelihood += top + math.log(whole)
        new = [share / whole for share in shares]
        moved = max(moved, *(abs(a - b) for a, b in zip(new, posteriors[item], strict=True)))
        posteriors[item] = new
    return moved, likelihood


@dataclass(frozen=True, kw_only=True)
class CrowdBradleyTerry:
    """Scores of things compared; each annotator's reliability: 1 right, 0.5 blind, 0 reversed."""

    scores: dict[Hashable, float]
    reliability: dict[Hashable, float]
    iterations: int

    def weight(self, annotator: Hashable) -> float:
        """1 for somebody always right, 0 for blind or reversed choices."""
        return max(0.0, 2.0 * self.reliability[annotator] - 1.0)


def bradley_terry(
    wins: Mapping[tuple[Hashable, Hashable], float],
    *,
    ridge: float = 0.0,
    tolerance: float = 1e-10,
    max_iterations: int = 100_000,
) -> dict[Hashable, float]:
    """Log-abilities, of mean 0, from {(winner, loser): how often}.

    Bradley and Terry 1952, by the MM iteration of Hunter 2004 (Annals of Statistics 32, 384-406).
    ridge: that many wins and losses of each against an imaginary thing of ability 1. Without it
    raises ValueError unless one can walk by wins from every thing to every other one: there is no
    maximum then. Stops when no score moves by more than the tolerance.
    """
    weights: dict[tuple[Hashable, Hashable], float] = {
        pair: float(number) for pair, number in wins.items() if number
    }
    things = sorted({one for pair in wins for one in pair}, key=str)
    if not ridge and not _strongly_connected(things, weights):
        raise ValueError("some things never lost to the others: their abilities have no maximum")
    strengths = dict.fromkeys(things, 1.0)
    meetings, won = _meetings(weights, things, ridge)
    for _ in range(max_iterations):
        if _strengths_update(strengths, meetings, won, ridge) <= tolerance:
            break
    scores = {one: math.log(strengths[one]) for one in things}
    middle = math.fsum(scores.values()) / len(scores) if scores else 0.0
    return {one: score - middle for one, score in scores.items()}


def crowd_bradley_terry(
    comparisons: Iterable[tuple[Hashable, Hashable, Hashable]],
    *,
    ridge: float = 0.5,
    prior: tuple[float, float] = (10.0, 1.0),
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> CrowdBradleyTerry:
    """Fit scores and reliabilities to (better, worse, annotator) comparisons.

    Chen, Bennett, Collins-Thompson and Horvitz 2013 (WSDM, "Pairwise ranking aggregation in a
    crowdsourced setting", Crowd-BT): annotator k reports the outcome of a Bradley-Terry
    comparison with probability eta_k and its reverse otherwise. Departs from the paper's gradient
    method: expectation-maximisation over "reported as it was or reversed", which reaches a
    stationary point of the same posterior.
    ridge: the paper's lambda, comparisons with its virtual node. It also fixes the scale where
    answers to one prompt are never compared with those to another.
    prior: Beta(a, b) of every eta; (1, 1) is flat, (10, 1) trusts until the contrary is seen.
    Raises ValueError for no comparisons, ridge ≤ 0, or a or b below 1.
    """
    said: dict[tuple[Hashable, Hashable, Hashable], int] = defaultdict(int)
    for comparison in comparisons:
        said[comparison] += 1
    if not said:
        raise ValueError("no comparisons")
    if ridge <= 0:
        raise ValueError(f"ridge is above 0; got {ridge}")
    trusted, distrusted = prior[0] - 1.0, prior[1] - 1.0
    if trusted < 0 or distrusted < 0:
        raise ValueError(f"both parts of the prior are at least 1; got {prior}")
    numbers: dict[Hashable, int] = defaultdict(int)
    for (_, _, who), count in said.items():
        numbers[who] += count
    things = sorted({one for better, worse, _ in said for one in (better, worse)}, key=str)
    strengths = dict.fromkeys(things, 1.0)
    # A start in which everybody is right rather more often than not tells right from reversed.
    reliability = dict.fromkeys(sorted(numbers, key=str), 0.8)
    step = 0
    for step in range(1, max_iterations + 1):  # noqa: B007 (the last is reported)
        fair: dict[tuple[Hashable, Hashable], float] = defaultdict(float)
        upright: dict[Hashable, float] = defaultdict(float)
        for (better, worse, who), count in said.items():
            strong, weak = strengths[better], strengths[worse]
            as_it_was = reliability[who] * strong
            share = as_it_was / (as_it_was + (1.0 - reliability[who]) * weak)
            upright[who] += count * share
            fair[better, worse] += count * share
            fair[worse, better] += count * (1.0 - share)
        moved = 0.0
        for who, old in reliability.items():
            new = (upright[who] + trusted) / (numbers[who] + trusted + distrusted)
            moved = max(moved, abs(new - old))
            reliability[who] = new
        meetings, won = _meetings(fair, things, ridge)
        moved = max(moved, _strengths_update(strengths, meetings, won, ridge))
        if moved <= tolerance:
            break
    return CrowdBradleyTerry(
        scores={one: math.log(strengths[one]) for one in things},
        reliability=reliability,
        iterations=step,
    )


def _meetings(
    wins: Mapping[tuple[Hashable, Hashable], float], things: Sequence[Hashable], ridge: float
) -> tuple[dict[Hashable, dict[Hashable, float]], dict[Hashable, float]]:
    """How often each met each other, and how often each won, counting the imaginary thing."""
    meetings: dict[Hashable, dict[Hashable, float]] = {one: {} for one in things}
    won = dict.fromkeys(things, ridge)
    for (winner, loser), number in wins.items():
        meetings[winner][loser] = meetings[winner].get(loser, 0.0) + number
        meetings[loser][winner] = meetings[loser].get(winner, 0.0) + number
        won[winner] += number
    return meetings, won


def _strengths_update(
    strengths: dict[Hashable, float],
    meetings: Mapping[Hashable, Mapping[Hashable, float]],
    won: Mapping[Hashable, float],
    ridge: float,
) -> float:
    """One cyclic MM pass (Hunter 2004, equation 3), in place; the largest move of a log."""
    moved = 0.0
    for one, others in meetings.items():
        old = strengths[one]
        pull = 2.0 * ridge / (old + 1.0) if ridge else 0.0
        for other, number in others.items():
            pull += number / (old + strengths[other])
        strengths[one] = won[one] / pull
        moved = max(moved, abs(math.log(strengths[one] / old)))
    return moved


def _strongly_connected(
    things: Sequence[Hashable], wins: Mapping[tuple[Hashable, Hashable], float]
) -> bool:
    forward: dict[Hashable, set[Hashable]] = {one: set() for one in things}
    backward: dict[Hashable, set[Hashable]] = {one: set() for one in things}
    for winner, loser in wins:
        forward[winner].add(loser)
        backward[loser].add(winner)
    return not things or all(
        len(_reached(things[0], edges)) == len(things) for edges in (forward, backward)
    )


def _reached(start: Hashable, edges: Mapping[Hashable, set[Hashable]]) -> set[Hashable]:
    seen, waiting = {start}, [start]
    while waiting:
        for after in edges[waiting.pop()] - seen:
            seen.add(after)
            waiting.append(after)
    return seen
