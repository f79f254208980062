"""How far people agree on each kind of task, each person with the others, and what that weighs."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from statistics import fmean

from annotation.agreement import (
    Interval,
    Metric,
    bootstrap_interval,
    fleiss_kappa,
    kendall_tau_b,
    krippendorff_alpha,
)
from annotation.annotator_models import crowd_bradley_terry, dawid_skene
from annotation.gold import judgements_agree, tier_places
from annotation.models import Task
from annotation.pairs import tiers_pairs
from annotation.selectors.judged import (
    Group,
    Judged,
    Values,
    choice_values,
    edit_values,
    flag_values,
    flags_of,
    overall_values,
    pair_values,
    ranking_values,
    sign,
    units,
    unsafe_values,
)

# A page waits for these figures: enough to tell people apart, not to the last digit.
MAX_COMPARISONS = 20_000
MAX_STEPS = 60
_PERSON_RESAMPLES = 100
Tasks = Sequence[Sequence[Judged]]  # judgements by task, of tasks that two or more judged


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measure of agreement: its name, what it is of, and its value with an interval."""

    measure: str
    of: str
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class KindAgreement:
    """How far people agree on one kind of task, over the tasks that two or more judged."""

    kind: str
    label: str
    tasks: int
    judgements: int
    figures: list[Figure]


@dataclass(frozen=True, kw_only=True)
class PersonAgreement:
    """How far one person agrees with the others on one kind of task."""

    kind: str
    label: str
    tasks: int
    measure: str
    interval: Interval | None
    weight: float | None


def kind_agreement(kind: str, shared: Tasks) -> KindAgreement:
    """Every figure that says something of this kind. `shared`: judgements by task."""
    return KindAgreement(
        kind=kind,
        label=str(Task.Kind(kind).label),
        tasks=len(shared),
        judgements=sum(len(rows) for rows in shared),
        figures=[one for one in _FIGURES[kind](shared) if one is not None],
    )


def _ranking_figures(shared: Tasks) -> list[Figure | None]:
    ranks = [units(rows, ranking_values) for rows in shared]
    tau = [mean_of(_taus(rows)) for rows in shared]
    order = [mean_of(agreements("ranking", rows)) for rows in shared]
    return [
        _alpha("order of answers", ranks, "ordinal"),
        _figure("Kendall’s τ-b", "order of answers", [one for one in tau if one is not None]),
        _figure("Same judgement", "pairs and marks", [one for one in order if one is not None]),
    ]


def _pair_figures(shared: Tasks) -> list[Figure | None]:
    degrees = [units(rows, pair_values) for rows in shared]
    choices = [[tuple(sign(one) for one in unit) for unit in group] for group in degrees]
    unsafe = [units(rows, unsafe_values) for rows in shared]
    return [
        _alpha("choice with degree", degrees, "ordinal"),
        _alpha("choice", choices, "nominal"),
        _kappa("choice", choices),
        _alpha("safety of each side", unsafe, "nominal"),
    ]


def _rating_figures(shared: Tasks) -> list[Figure | None]:
    overall = [units(rows, overall_values) for rows in shared]
    figures = [_alpha("overall, 1 to 7", overall, "ordinal")]
    for flag in flags_of(shared):
        groups = [units(rows, flag_values(flag)) for rows in shared]
        figures += [_alpha(f"flag “{flag}”", groups, "nominal"), _kappa(f"flag “{flag}”", groups)]
    return figures


def _edit_figures(shared: Tasks) -> list[Figure | None]:
    groups = [[tuple(one.judgement["original"] for one in rows)] for rows in shared]
    return [_alpha("answer taken up", groups, "nominal")]


_FIGURES: dict[str, Callable[[Tasks], list[Figure | None]]] = {
    "ranking": _ranking_figures,
    "pair": _pair_figures,
    "rating": _rating_figures,
    "edit": _edit_figures,
}


def _alpha(of: str, groups: Sequence[Group], metric: Metric) -> Figure | None:
    def alpha(drawn: Sequence[Group]) -> float | None:
        return krippendorff_alpha(chain.from_iterable(drawn), metric=metric)

    interval = bootstrap_interval(groups, alpha)
    return _told(f"Krippendorff’s α, {metric}", of, interval)


def _kappa(of: str, groups: Sequence[Group]) -> Figure | None:
    """Fleiss' kappa over the tasks with the most common number of judgements."""
    sizes = [len(unit) for group in groups for unit in group]
    if not sizes:
        return None
    people = max(sorted(set(sizes)), key=sizes.count)
    same = [[unit for unit in group if len(unit) == people] for group in groups]

    def kappa(drawn: Sequence[Group]) -> float | None:
        return fleiss_kappa(chain.from_iterable(drawn))

    interval = bootstrap_interval([group for group in same if group], kappa)
    return _told(f"Fleiss’ κ, {people} people", of, interval)


def _figure(measure: str, of: str, values: Sequence[float]) -> Figure | None:
    return _told(measure, of, bootstrap_interval(values, mean))


def _told(measure: str, of: str, interval: Interval | None) -> Figure | None:
    return None if interval is None else Figure(measure=measure, of=of, interval=interval)


def mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def mean_of(values: Iterable[float | None]) -> float | None:
    return mean([value for value in values if value is not None])


def _taus(rows: Sequence[Judged]) -> Iterator[float | None]:
    for one, other in combinations(rows, 2):
        yield _tau(one, other)


def _tau(one: Judged, other: Judged) -> float | None:
    first, second = tier_places(one.judgement["tiers"]), tier_places(other.judgement["tiers"])
    both = sorted(first.keys() & second.keys())
    return kendall_tau_b([first[uid] for uid in both], [second[uid] for uid in both])


def agreements(kind: str, rows: Sequence[Judged]) -> Iterator[float | None]:
    for one, other in combinations(rows, 2):
        yield judgements_agree(kind, one.judgement, other.judgement)


# The values by which a person is compared with the others, kind by kind, and by which measure.
_COMPARED: dict[str, tuple[Values, Metric]] = {
    "pair": (pair_values, "ordinal"),
    "rating": (overall_values, "ordinal"),
    "edit": (edit_values, "nominal"),
}


def people_agreement(
    kind: str, shared: Tasks, weights: dict[int, float]
) -> dict[int, PersonAgreement]:
    """Each person with the others: mean tau-b of rankings, else alpha of pairs (I, somebody)."""
    found = {}
    for person in sorted({one.annotator for rows in shared for one in rows}):
        tasks = [rows for rows in shared if any(one.annotator == person for one in rows)]
        found[person] = PersonAgreement(
            kind=kind,
            label=str(Task.Kind(kind).label),
            tasks=len(tasks),
            measure="Kendall’s τ-b" if kind == "ranking" else "Krippendorff’s α",
            interval=_person_interval(kind, person, tasks),
            weight=weights.get(person),
        )
    return found


def _person_interval(kind: str, person: int, tasks: Tasks) -> Interval | None:
    mine = [next(one for one in rows if one.annotator == person) for rows in tasks]
    others = [[one for one in rows if one.annotator != person] for rows in tasks]
    if kind == "ranking":
        taus = [
            mean_of(_tau(my, other) for other in rest)
            for my, rest in zip(mine, others, strict=True)
        ]
        told = [one for one in taus if one is not None]
        return bootstrap_interval(told, mean, resamples=_PERSON_RESAMPLES)
    values, metric = _COMPARED[kind]
    groups: list[Group] = []
    for my, rest in zip(mine, others, strict=True):
        said = values(my)
        groups.append(
            [
                (said[thing], value)
                for other in rest
                for thing, value in sorted(values(other).items())
                if thing in said
            ]
        )

    def alpha(drawn: Sequence[Group]) -> float | None:
        return krippendorff_alpha(chain.from_iterable(drawn), metric=metric)

    return bootstrap_interval(groups, alpha, resamples=_PERSON_RESAMPLES)


def kind_weights(kind: str, shared: Tasks) -> dict[int, float]:
    """How much each person's judgements of a kind weigh, 0 to 1, by member.

    Rankings: crowd Bradley-Terry over their pairs. Pairs: Dawid and Skene over first, second, tie.
    Ratings: the mean over flags of Dawid and Skene's. People without a shared task have none.
    """
    if kind == "ranking":
        comparisons = [
            (better, worse, one.annotator)
            for rows in shared
            for one in rows
            for better, worse in tiers_pairs(one.judgement["tiers"])
        ][:MAX_COMPARISONS]
        if not comparisons:
            return {}
        crowd = crowd_bradley_terry(comparisons, tolerance=1e-3, max_iterations=MAX_STEPS)
        return {who: crowd.weight(who) for who in crowd.reliability if isinstance(who, int)}
    if kind == "pair":
        return _label_weights(shared, choice_values, classes=(-1, 0, 1))
    if kind == "edit":
        return {}
    by_flag = [
        _label_weights(shared, flag_values(flag), classes=(False, True))
        for flag in flags_of(shared)
    ]
    people = {who for weights in by_flag for who in weights}
    return {who: fmean(weights[who] for weights in by_flag if who in weights) for who in people}


def _label_weights(
    shared: Tasks,
    values: Values,
    *,
    classes: Sequence[Hashable],
) -> dict[int, float]:
    labels = [
        ((one.task, thing), one.annotator, value)
        for rows in shared
        for one in rows
        for thing, value in values(one).items()
    ]
    used = [one for one in classes if any(value == one for *_, value in labels)]
    if len(used) < 2:
        return {}
    fitted = dawid_skene(
        labels, classes=used, smoothing=0.5, tolerance=1e-3, max_iterations=MAX_STEPS
    )
    return {who: fitted.weight(who) for who in fitted.confusion if isinstance(who, int)}
