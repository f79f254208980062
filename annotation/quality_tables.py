"""The figures of the quality pages and dashboards as tables to take away.

In English whoever asks: a file is read by programs, which know its words.
"""

from collections.abc import Callable

from annotation.agreement import Interval
from annotation.selectors.agreements import PersonAgreement
from annotation.selectors.dashboards import OwnDashboard, ProgressDashboard
from annotation.selectors.quality import QualityReport
from annotation.tables import Table

_INTERVAL = ("value", "low", "high")


def agreement_table(report: QualityReport) -> Table:
    return Table(
        name="agreement",
        columns=("kind", "tasks", "judgements", "measure", "of", *_INTERVAL),
        rows=[
            (
                *(kind.kind, kind.tasks, kind.judgements),
                *(one.measure_words, one.of_words, *_ends(one.interval)),
            )
            for kind in report.kinds
            for one in kind.figures
        ],
    )


def people_table(report: QualityReport) -> Table:
    """A row for each person and kind of task; people who shared no task have one row without."""
    rows = []
    for one in report.people:
        person = (
            one.membership.uid,
            one.membership.shown_name,
            one.membership.source,
            one.judgements,
        )
        behaviour = (
            one.gold_tasks,
            one.gold_told,
            one.position.share if one.position else None,
            one.position.expected if one.position else None,
            one.speed.words_per_s if one.speed else None,
            one.speed.too_fast if one.speed else None,
            one.reviewed,
            one.rejected,
            one.itself.pairs if one.itself else 0,
            one.itself.same if one.itself else None,
            one.itself.took_the_side if one.itself else None,
            "; ".join(one.reasons),
        )
        kinds: list[PersonAgreement | None] = [*one.agreement] or [None]
        for kind in kinds:
            agreement = (
                (None, None, None, None, None, None, None)
                if kind is None
                else (kind.kind, kind.tasks, kind.measure, *_ends(kind.interval), kind.weight)
            )
            rows.append((*person, *agreement, *behaviour))
    return Table(
        name="people",
        columns=(
            *("annotator", "name", "source", "judgements"),
            *("kind", "shared_tasks", "measure", *_INTERVAL, "weight"),
            *("gold_tasks", "gold_score", "first_shown_share", "first_shown_expected"),
            *("words_per_s", "too_fast", "reviewed", "rejected"),
            *("mirrored_pairs", "mirrored_same", "mirrored_took_the_side", "reasons"),
        ),
        rows=rows,
    )


def days_table(dashboard: OwnDashboard | ProgressDashboard) -> Table:
    return Table(
        name="judgements-by-day",
        columns=("day", "judgements"),
        rows=[(day.isoformat(), count) for day, count in dashboard.days],
    )


def times_table(dashboard: ProgressDashboard) -> Table:
    return Table(
        name="time-per-task",
        columns=("kind", "judgements", "quartile_1_s", "median_s", "quartile_3_s"),
        rows=[
            (one.kind, one.judgements, one.low_s, one.median_s, one.high_s)
            for one in dashboard.times
        ],
    )


def coverage_table(dashboard: ProgressDashboard) -> Table:
    return Table(
        name="coverage",
        columns=("kind", "tasks", "judged_by_nobody", "by_some", "by_all_wanted", "closed_before"),
        rows=[
            (one.kind, one.tasks, one.none, one.some, one.full, one.closed)
            for one in dashboard.coverage
        ],
    )


def weeks_table(dashboard: ProgressDashboard) -> Table:
    return Table(
        name="agreement-by-week",
        columns=("week_from", "tasks", *_INTERVAL),
        rows=[(one.start.isoformat(), one.tasks, *_ends(one.agreement)) for one in dashboard.weeks],
    )


def kind_weeks_table(dashboard: ProgressDashboard) -> Table:
    return Table(
        name="agreement-by-kind-and-week",
        columns=("kind", "measure", "of", "week_from", "tasks", *_INTERVAL),
        rows=[
            (
                *(kind.kind, kind.figure.measure_words, kind.figure.of_words),
                *(one.start.isoformat(), one.tasks, *_ends(one.agreement)),
            )
            for kind in dashboard.kind_weeks
            for one in kind.weeks
        ],
    )


def feedback_table(dashboard: OwnDashboard) -> Table:
    return Table(
        name="feedback",
        columns=("at", "what", "text"),
        rows=[(one.at.isoformat(), one.what, one.text) for one in dashboard.feedback],
    )


def own_agreement_table(dashboard: OwnDashboard) -> Table:
    """How a person agrees with the others; what it weighs is for reviewers alone."""
    own = dashboard.quality.agreement if dashboard.quality else []
    return Table(
        name="agreement",
        columns=("kind", "shared_tasks", "measure", *_INTERVAL),
        rows=[(one.kind, one.tasks, one.measure, *_ends(one.interval)) for one in own],
    )


def labels_table(dashboard: ProgressDashboard) -> Table:
    return Table(
        name="labels",
        columns=("kind", "what", "label", "count"),
        rows=[
            (one.kind, one.what, label, count)
            for one in dashboard.labels
            for label, count in one.counts
        ],
    )


QUALITY_TABLES: dict[str, Callable[[QualityReport], Table]] = {
    "people": people_table,
    "agreement": agreement_table,
}
OWN_TABLES: dict[str, Callable[[OwnDashboard], Table]] = {
    "days": days_table,
    "agreement": own_agreement_table,
    "feedback": feedback_table,
}
PROGRESS_TABLES: dict[str, Callable[[ProgressDashboard], Table]] = {
    "days": days_table,
    "times": times_table,
    "coverage": coverage_table,
    "weeks": weeks_table,
    "kind_weeks": kind_weeks_table,
    "labels": labels_table,
}


def _ends(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (interval.value, interval.low, interval.high) if interval else (None, None, None)
