"""Reading runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db.models import Avg, Count, F, Max, Min, Q, QuerySet
from django.utils import timezone

from modelhub import storage
from modelhub.figure_order import figure_order
from modelhub.json_text import json_rows
from modelhub.ml.pretraining.configs import SPIKES_NAME, PretrainConfig
from modelhub.models import Artifact, Run, RunMetric
from modelhub.run_settings import setting_order
from modelhub.selectors.naming import NAMED_ARTIFACT, artifact_title, artifact_title_for


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
class RunFile:
    """An artifact that a run read or made, under its role, and what it is called."""

    role: str
    artifact: Artifact
    title: str


def run_inputs(*, run: Run, user: User | None = None) -> list[RunFile]:
    """What a run read, by role, with the artifacts, what these are called, and who made them.

    Rows of a project are called by its name where the user may know it. A constant number of
    queries; for each input that holds such rows two more, and the beginning of its file.
    """
    rows = run.inputs.select_related("artifact").prefetch_related(*_NAMED_FILE).order_by("role")
    return [
        RunFile(
            role=one.role,
            artifact=one.artifact,
            title=artifact_title_for(one.artifact, user=user),
        )
        for one in rows
    ]


def run_outputs(*, run: Run) -> list[RunFile]:
    """The same of what a run made. A constant number of queries."""
    rows = run.outputs.select_related("artifact").prefetch_related(*_NAMED_FILE).order_by("role")
    return [
        RunFile(role=one.role, artifact=one.artifact, title=artifact_title(one.artifact))
        for one in rows
    ]


_NAMED_FILE = tuple(f"artifact__{one}" for one in NAMED_ARTIFACT)


def run_acts(*, run: Run) -> list[LogEntry]:
    """What people did with the run, newest first. One query, two the first time."""
    entries = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(run), object_id=str(run.pk)
    )
    return list(entries.select_related("user").order_by("-pk"))


def run_series(*, run: Run, points: int = 400) -> dict[str, dict[str, list[Any]]]:
    """The run's curves: name → {"steps", "values", "lows", "highs"}, at most `points` of each.

    A longer curve is cut into that many equal stretches of steps, each with its last step, mean,
    lowest and highest value: a spike stays visible. What the method is about comes first. One
    query and one for each name.
    """
    series = {}
    spans = (
        RunMetric.objects.filter(run=run)
        .order_by()
        .values("name")
        .annotate(first=Min("step"), last=Max("step"))
    )
    for span in sorted(spans, key=lambda span: figure_order(str(span["name"]))):
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


def import_asked(*, program: str, uid: str | None) -> dict[str, Any] | None:
    """The configuration of an import that is to be asked for again; None where it is none of these.

    One query at most.
    """
    run = Run.objects.filter(uid=uid, program=program).first() if uid else None
    return run.config if run else None


def run_goes_on(*, run: Run) -> bool:
    """Whether a run has stopped where another may go on from its checkpoint. No query."""
    return (
        run.program == PretrainConfig.PROGRAM
        and run.status in (Run.Status.FAILED, Run.Status.CANCELLED)
        and bool(storage.checkpoint_steps(run))
    )


def run_spikes(*, run: Run) -> list[dict[str, Any]]:
    """A pretraining run's loss spikes so far, each with its blocks and their documents; no query.

    The newest first, as its program tells them while it works. `can_skip`: another run may go back
    to the checkpoint before it and leave its samples out.
    """
    told = storage.run_told(run, SPIKES_NAME) if run.program == PretrainConfig.PROGRAM else None
    kept = storage.checkpoint_steps(run) if run_goes_on(run=run) else []
    try:
        return [
            {
                **{name: one[name] for name in _OF_SPIKE},
                "can_skip": one["back_to_step"] in kept,
                "blocks": [
                    {
                        "source": str(block["source"]),
                        "block": int(block["block"]),
                        "loss": block["loss"],
                        "documents": [str(name) for name in block["documents"]],
                    }
                    for block in one["blocks"]
                ],
            }
            for one in reversed(told["spikes"] if told else [])
        ]
    except (KeyError, TypeError, ValueError):
        return []


_OF_SPIKE = ("step", "reason", "back_to_step", "first_sample", "last_sample")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side: (name, a text for each run) rows, only where something differs."""

    runs: list[Run]
    settings: list[tuple[str, list[str]]]
    results: list[tuple[str, list[str]]]


def runs_compare(*, uids: Sequence[str]) -> Comparison:
    """The runs of these uids, in their order, unknown ones and repeats left out. Three queries.

    Settings are program, configuration, inputs (by the version or hash they are) and launcher;
    results are figures alone, every one that a run has measured.
    """
    by_uid = {
        run.uid: run
        for run in Run.objects.filter(uid__in=uids).prefetch_related(
            *(f"inputs__artifact__{one}" for one in NAMED_ARTIFACT)
        )
    }
    runs = [by_uid[uid] for uid in dict.fromkeys(uids) if uid in by_uid]
    settings = [dict(json_rows(run_settings(run))) for run in runs]
    results = [dict(json_rows(run.result or {}, figures_alone=True)) for run in runs]
    return Comparison(
        runs=runs,
        settings=[row for row in _rows_of(settings) if len(set(row[1])) > 1],
        results=_rows_of(results),
    )


def run_settings(run: Run) -> dict[str, Any]:
    """All that a run was told: program, launcher, what it reads by role, configuration.

    No query where its inputs were fetched with what NAMED_ARTIFACT names.
    """
    reads = {}
    for given in run.inputs.all():
        title = artifact_title(given.artifact)
        is_version = bool(given.artifact.versions.all())
        hashed = given.artifact.sha256[:8]  # two of one title are told apart
        reads[f"reads.{given.role}"] = title if is_version else f"{title} ({hashed})"
    launch = f"{run.launcher}, {run.processes} × {run.strategy}" if run.processes > 1 else "python"
    order = setting_order(run.program)
    config = dict(sorted(run.config.items(), key=lambda one: order.get(one[0], len(order))))
    return {"program": run.program, "launcher": launch, **reads, **config}


def _rows_of(columns: list[dict[str, str]]) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "–") for column in columns]) for name in names]


def runs_are_neglected() -> bool:
    """Whether runs wait for something a scheduler would have done by now. One query.

    A running one whose lease has run out, or a queued one that no worker was told of for a minute.
    """
    now = timezone.now()
    silent_since = now - timedelta(seconds=60)
    overdue = Q(status=Run.Status.RUNNING, lease_until__lt=now)
    unheard = Q(status=Run.Status.QUEUED, rung_at__lt=silent_since) | Q(
        status=Run.Status.QUEUED, rung_at=None, created_at__lt=silent_since
    )
    return Run.objects.filter(overdue | unheard).exists()
