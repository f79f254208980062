"""Reading runs."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Avg, Count, F, Max, Min, QuerySet
from django.utils import timezone

from modelhub.models import Run, RunInput, RunMetric, RunOutput


def runs_list(*, status: str = "", program: str = "") -> QuerySet[Run]:
    """Runs, newest first, with who asked for them. One query when read."""
    found = Run.objects.select_related("requested_by").order_by("-pk")
    if status:
        found = found.filter(status=status)
    if program:
        found = found.filter(program=program)
    return found


def run_counts() -> dict[str, int]:
    """How many runs there are of each status, zeroes included. One query."""
    counted = dict(Run.objects.order_by().values_list("status").annotate(Count("pk")))
    return {status: counted.get(status, 0) for status in Run.Status.values}


def run_get(*, uid: str) -> Run | None:
    """The run of a uid, with who asked for it. One query."""
    return Run.objects.select_related("requested_by").filter(uid=uid).first()


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run read and made."""

    inputs: list[RunInput]
    outputs: list[RunOutput]


def run_files(*, run: Run) -> RunFiles:
    """Inputs and outputs by role, with their artifacts and those artifacts' versions.

    Six queries.
    """
    return RunFiles(
        inputs=list(
            run.inputs.select_related("artifact")
            .prefetch_related("artifact__versions__model")
            .order_by("role")
        ),
        outputs=list(
            run.outputs.select_related("artifact")
            .prefetch_related("artifact__versions__model")
            .order_by("role")
        ),
    )


def run_series(*, run: Run, points: int = 400) -> dict[str, dict[str, list[Any]]]:
    """The run's curves: name → {"steps", "values", "lows", "highs"}, at most `points` of each.

    A longer curve is cut into that many equal stretches of steps, each with its last step, mean,
    lowest and highest value: a spike stays visible. One query and one for each name.
    """
    series = {}
    spans = (
        RunMetric.objects.filter(run=run)
        .order_by()
        .values("name")
        .annotate(first=Min("step"), last=Max("step"))
    )
    for span in sorted(spans, key=lambda span: str(span["name"])):
        width = -(-(span["last"] - span["first"] + 1) // points)
        stretches = (
            RunMetric.objects.filter(run=run, name=span["name"])
            .order_by()
            .values(stretch=(F("step") - span["first"]) / width)
            .annotate(at=Max("step"), mean=Avg("value"), low=Min("value"), high=Max("value"))
            .order_by("at")
            .values_list("at", "mean", "low", "high")
        )
        steps, values, lows, highs = zip(*stretches, strict=True)
        series[span["name"]] = {
            "steps": list(steps),
            "values": list(values),
            "lows": list(lows),
            "highs": list(highs),
        }
    return series


def runs_are_overdue() -> bool:
    """Whether a running run's lease has run out, so that someone should reap. One query."""
    return Run.objects.filter(status=Run.Status.RUNNING, lease_until__lt=timezone.now()).exists()
