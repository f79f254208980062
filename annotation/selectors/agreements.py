"""How far people agree on each kind of task, each person with the others, and what that weighs."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from statistics import fmean

from django.utils.translation import gettext, gettext_noop

from annotation.agreement import (
    RESAMPLES,
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
    side_values,
    sign,
    start_values,
    units,
    unsafe_values,
)
from annotation.task_forms import flag_label
from annotation.word_diff import words_shared

# A page waits for these figures: enough to tell people apart, not to the last digit.
MAX_COMPARISONS = 20_000
MAX_STEPS = 60
_PERSON_RESAMPLES = 100
Tasks = Sequence[Sequence[Judged]]  # judgements by task, of tasks that two or more judged


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measure of agreement: its name, what it is of, and its value with an interval.

    Names are kept in English, because a report outlives the language it was asked in.
    """

    measure: str
    of: str
    interval: Interval
    people: int = 0  # where the measure wants equally many a task: how many
    flag: str = ""  # where it is of one flag: which

    @property
    def measure_words(self) -> str:
        if self.people:
            return gettext("Fleiss’ κ, %(people)s people") % {"people": self.people}
        return gettext(self.measure)

    @property
    def of_words(self) -> str:
        if not self.flag:
            return gettext(self.of)
        return gettext("flag “%(flag)s”") % {"flag": flag_label(self.flag)}


@dataclass(frozen=True, kw_only=True)
class KindAgreement:
    """How far people agree on one kind of task, over the tasks that two or more judged."""

    kind: str
    tasks: int
    judgements: int
    figures: list[Figure]

    @property
    def label(self) -> str:
        return str(Task.Kind(self.kind).label)


@dataclass(frozen=True, kw_only=True)
class PersonAgreement:
    """How far one person agrees with the others on one kind of task."""

    kind: str
    tasks: int
    measure: str
    interval: Interval | None
    weight: float | None

    @property
    def label(self) -> str:
        return str(Task.Kind(self.kind).label)

    @property
    def measure_words(self) -> str:
        return gettext(self.measure)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """By what two people's judgements of a kind are compared, and on which scale."""

    values: Values
    metric: Metric
    measure: str
    of: str


ALPHA: dict[Metric, str] = {
    "nominal": gettext_noop("Krippendorff’s α, nominal"),
    "ordinal": gettext_noop("Krippendorff’s α, ordinal"),
    "interval": gettext_noop("Krippendorff’s α, interval"),
}
TAU, SAME, WORDS = (
    gettext_noop("Kendall’s τ-b"),
    gettext_noop("Same judgement"),
    gettext_noop("Words in common"),
)
ORDER, DEGREE, CHOICE, SAFETY, OVERALL, TAKEN_UP, STARTED, SIDE, SIDE_DEGREE, TEXT = (
    gettext_noop("order of answers"),
    gettext_noop("choice with degree"),
    gettext_noop("choice"),
    gettext_noop("safety of each side"),
    gettext_noop("overall, 1 to 7"),
    gettext_noop("answer taken up"),
    gettext_noop("draft begun with"),
    gettext_noop("better model"),
    gettext_noop("better model, with degree"),
    gettext_noop("texts"),
)
# The one figure of each kind that persons, weeks and summaries are told by.
_COMPARED: tuple[tuple[str, Values, Metric, str], ...] = (
    ("ranking", ranking_values, "ordinal", ORDER),
    ("pair", pair_values, "ordinal", DEGREE),
    ("rating", overall_values, "ordinal", OVERALL),
    ("edit", edit_values, "nominal", TAKEN_UP),
    ("demonstration", start_values, "nominal", STARTED),
    ("dialogue", side_values, "ordinal", SIDE_DEGREE),
)
COMPARED: dict[str, Compared] = {
    kind: Compared(values=values, metric=metric, measure=ALPHA[metric], of=of)
    for kind, values, metric, of in _COMPARED
}


def kind_agreement(kind: str, shared: Tasks) -> KindAgreement:
    """Every figure that says something of this kind. `shared`: judgements by task."""
    return KindAgreement(
        kind=kind,
        tasks=len(shared),
        judgements=sum(len(rows) for rows in shared),
        figures=[one for one in _FIGURES[kind](shared) if one is not None],
    )


def main_figure(kind: str, shared: Tasks, *, resamples: int = _PERSON_RESAMPLES) -> Figure | None:
    """The one figure of a kind that can be compared from week to week."""
    compared = COMPARED[kind]
    groups = [units(rows, compared.values) for rows in shared]
    return _alpha(compared.of, groups, compared.metric, resamples)


def _ranking_figures(shared: Tasks) -> list[Figure | None]:
    ranks = [units(rows, ranking_values) for rows in shared]
    tau = [mean_of(_taus(rows)) for rows in shared]
    order = [mean_of(agreements("ranking", rows)) for rows in shared]
    return [
        _alpha(ORDER, ranks, "ordinal"),
        _figure(TAU, ORDER, tau),
        _figure(SAME, gettext_noop("pairs and marks"), order),
    ]


def _pair_figures(shared: Tasks) -> list[Figure | None]:
    degrees = [units(rows, pair_values) for rows in shared]
    choices = _signs(degrees)
    unsafe = [units(rows, unsafe_values) for rows in shared]
    return [
        _alpha(DEGREE, degrees, "ordinal"),
        _alpha(CHOICE, choices, "nominal"),
        _kappa(CHOICE, choices),
        _alpha(SAFETY, unsafe, "nominal"),
        _kappa(SAFETY, unsafe),
    ]


def _rating_figures(shared: Tasks) -> list[Figure | None]:
    overall = [units(rows, overall_values) for rows in shared]
    figures = [_alpha(OVERALL, overall, "ordinal")]
    for flag in flags_of(shared):
        groups = [units(rows, flag_values(flag)) for rows in shared]
        figures += [_alpha("flag", groups, "nominal", flag=flag), _kappa("flag", groups, flag=flag)]
    return figures


def _edit_figures(shared: Tasks) -> list[Figure | None]:
    taken = [units(rows, edit_values) for rows in shared]
    return [_alpha(TAKEN_UP, taken, "nominal"), _kappa(TAKEN_UP, taken), _texts(shared)]


def _demonstration_figures(shared: Tasks) -> list[Figure | None]:
    """What people write has no right answer to agree on: how near their words come is told."""
    started = [units(rows, start_values) for rows in shared]
    return [_alpha(STARTED, started, "nominal"), _kappa(STARTED, started), _texts(shared)]


def _dialogue_figures(shared: Tasks) -> list[Figure | None]:
    """Two people's talks have no answer in common, but the two models behind them are the same."""
    sides = [units(rows, side_values) for rows in shared]
    better = _signs(sides)
    return [
        _alpha(SIDE_DEGREE, sides, "ordinal"),
        _alpha(SIDE, better, "nominal"),
        _kappa(SIDE, better),
    ]


_FIGURES: dict[str, Callable[[Tasks], list[Figure | None]]] = {
    "ranking": _ranking_figures,
    "pair": _pair_figures,
    "rating": _rating_figures,
    "edit": _edit_figures,
    "demonstration": _demonstration_figures,
    "dialogue": _dialogue_figures,
}


def _signs(groups: Sequence[Group]) -> list[Group]:
    return [[tuple(sign(one) for one in unit) for unit in group] for group in groups]


def _texts(shared: Tasks) -> Figure | None:
    """Dice's coefficient of the words of two people's texts, the mean over the pairs of a task."""
    return _figure(
        WORDS,
        TEXT,
        [
            mean_of(
                words_shared(one.judgement["text"], other.judgement["text"])
                for one, other in combinations(rows, 2)
            )
            for rows in shared
        ],
    )


def _alpha(
    of: str,
    groups: Sequence[Group],
    metric: Metric,
    resamples: int = RESAMPLES,
    *,
    flag: str = "",
) -> Figure | None:
    def alpha(drawn: Sequence[Group]) -> float | None:
        return krippendorff_alpha(chain.from_iterable(drawn), metric=metric)

    interval = bootstrap_interval(groups, alpha, resamples=resamples)
    if interval is None:
        return None
    return Figure(measure=ALPHA[metric], of=of, interval=interval, flag=flag)


def _kappa(of: str, groups: Sequence[Group], *, flag: str = "") -> Figure | None:
    """Fleiss' kappa over the tasks with the most common number of judgements."""
    sizes = [len(unit) for group in groups for unit in group if len(unit) > 1]
    if not sizes:
        return None
    people = max(sorted(set(sizes)), key=sizes.count)
    same = [[unit for unit in group if len(unit) == people] for group in groups]

    def kappa(drawn: Sequence[Group]) -> float | None:
        return fleiss_kappa(chain.from_iterable(drawn))

    interval = bootstrap_interval([group for group in same if group], kappa)
    if interval is None:
        return None
    return Figure(measure="Fleiss’ κ", of=of, interval=interval, people=people, flag=flag)


def _figure(measure: str, of: str, values: Sequence[float | None]) -> Figure | None:
    told = [value for value in values if value is not None]
    interval = bootstrap_interval(told, mean)
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


def people_agreement(
    kind: str, shared: Tasks, weights: dict[int, float]
) -> dict[int, PersonAgreement]:
    """Each person with the others: mean tau-b of rankings, else alpha of pairs (I, somebody)."""
    found = {}
    for person in sorted({one.annotator for rows in shared for one in rows}):
        tasks = [rows for rows in shared if any(one.annotator == person for one in rows)]
        found[person] = PersonAgreement(
            kind=kind,
            tasks=len(tasks),
            measure=TAU if kind == "ranking" else COMPARED[kind].measure,
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
    values, metric = COMPARED[kind].values, COMPARED[kind].metric
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
    if kind != "rating":
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
