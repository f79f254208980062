"""Frozen snapshots of what people said.

A snapshot is of one kind of task. Its artifact holds the rows (annotation.records, canonical JSON,
sorted by id: `rankings.jsonl` for whatever compares answers, `ratings.jsonl`,
`demonstrations.jsonl`) and `snapshot.json` (kind, query, counts). Both are functions of the query
and the submissions alone, so the same judgements give the same artifact, in whatever database they
lie. What was said of tasks whose answer is known measures people and is in no snapshot; nor is what
was said of a corpus's documents, which are no answers: the hub keeps it (`services.documents`).

Rows that come from elsewhere (`preference_dataset_import`) are a dataset of their own, whose query
says so. They are no submissions: they count in no progress, agreement or later freeze, and train a
reward model where a run is given that dataset.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext

from annotation.models import (
    CandidateBatch,
    Membership,
    PreferenceDataset,
    Project,
    Prompt,
    Split,
    Submission,
)
from annotation.records import RANKINGS_NAME as RANKINGS_NAME
from annotation.records import SOURCES, RankingRecord
from annotation.services.ranking_rows import jsonl_rows, rankings_checked
from annotation.services.snapshot_rows import SNAPSHOT_KINDS, Record, SnapshotKind, tells_apart
from annotation.task_forms import form_of
from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.ml.manifest import IntegrityError
from modelhub.ml.records import RecordError, json_canonical, records_read, records_write
from modelhub.models import Artifact
from modelhub.services.artifacts import artifact_store

KIND = "ranking"
SNAPSHOT_NAME = "snapshot.json"
MAX_IMPORT_BYTES = 1 << 30
_ROWS_AT_A_TIME = 500
_BLOCK_BYTES = 1 << 20
_QUERY_FIELDS = ("batches", "splits", "simulated", "sources", "until")
# Why a submission is not in a snapshot; each is counted under the first that holds.
_STATUS_REASONS = [s for s in Submission.Status.values if s != Submission.Status.ACCEPTED]
REASONS = (*_STATUS_REASONS, "after_until", "other_batch", "other_split", "other_origin")
OVERRULED = "overruled"  # a reviewer decided the task for another; counted where there is one
SAME_TEXT = "same_text"  # it prefers a text to itself; counted where there is one


@dataclass(frozen=True, kw_only=True)
class DatasetQuery:
    """Which judgements a snapshot takes; None takes all."""

    batches: tuple[str, ...] | None = None  # uids of candidate batches
    splits: tuple[str, ...] | None = None
    simulated: bool | None = None  # True: programs' alone; False: people's alone
    sources: tuple[str, ...] | None = None  # annotation.models.Membership.Source
    until: datetime | None = None  # submitted before

    def reason_against(self, submission: Submission, split: str) -> str | None:
        """Why a submission, whose rows are of this split, is left out, or None if it is in.

        Where a reviewer has decided a task, the judgement that stands is in and no other.
        """
        status, decided = submission.status, getattr(submission.task, "adjudication", None)
        stands = decided is not None and decided.submission_id == submission.pk
        if status != Submission.Status.ACCEPTED and not (
            stands and status == Submission.Status.SURPLUS
        ):
            return status
        if decided is not None and not stands:
            return OVERRULED
        if self.until is not None and submission.created_at >= self.until:
            return "after_until"
        batch = submission.task.batch
        if self.batches is not None and (batch is None or batch.uid not in self.batches):
            return "other_batch"
        if self.splits is not None and split not in self.splits:
            return "other_split"
        if self.simulated is not None and submission.is_simulated != self.simulated:
            return "other_origin"
        if self.sources is not None and submission.source not in self.sources:
            return "other_origin"
        return None

    def as_json(self) -> dict[str, Any]:
        return {
            "batches": list(self.batches) if self.batches is not None else None,
            "splits": list(self.splits) if self.splits is not None else None,
            "simulated": self.simulated,
            "until": self.until.isoformat() if self.until is not None else None,
            # Said only where it was asked: snapshots made before it could be keep their bytes.
            **({"sources": list(self.sources)} if self.sources is not None else {}),
        }


def preference_dataset_freeze(
    *,
    project: Project,
    created_by: User | None = None,
    query: dict[str, Any] | None = None,
    kind: str = KIND,
    weights: Mapping[str, float] | None = None,
) -> PreferenceDataset:
    """Freeze a project's accepted judgements of a kind as an immutable, content-addressed dataset.

    `query` may name `batches` (uids), `splits`, `simulated` (true or false), `sources`
    (Membership.Source) and `until` (an ISO time with its zone). `weights`: how far each annotator
    is relied on, 0 to 1, by their pseudonym; 1 for whoever is not named. Each row
    carries it, and the dataset's query all of them.
    The counts are of submissions and reconcile: total = used + the sum of `excluded` by reason;
    `rows`, where a submission makes several, `used_by_split` and `used_by_source` are of rows.
    Freezing what has not changed returns the dataset that is there. Reads one statement's snapshot
    and no lock, so people go on submitting; memory does not grow with the rows.
    Raises ApplicationError for a query that does not fit, or if nothing is left to freeze.
    """
    if kind not in SNAPSHOT_KINDS:
        raise ApplicationError(
            gettext("There is no kind %(kind)s; there are %(names)s.")
            % {"kind": f"{kind!r}", "names": ", ".join(SNAPSHOT_KINDS)},
            {"field": "kind"},
        )
    told = SNAPSHOT_KINDS[kind]
    asked = query_read(project=project, query=query or {})
    weighed = _weights_checked(weights)
    counts = _counts_empty()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = records_write(folder / told.file, _records(project, told, asked, weighed, counts))
        if not counts["used"]:
            raise ApplicationError(
                gettext("There is no accepted %(kind)s to freeze.") % {"kind": kind},
                {"counts": counts},
            )
        if rows != counts["used"]:
            counts["rows"] = rows
        query_told = asked.as_json() | ({"weights": weighed} if weighed else {})
        snapshot = {"kind": kind, "query": query_told, "counts": counts}
        (folder / SNAPSHOT_NAME).write_text(json_canonical(snapshot), encoding="utf-8")
        artifact = artifact_store(folder=folder, kind=told.artifact)
    return _dataset_keep(project, snapshot, artifact, created_by)


@transaction.atomic
def _dataset_keep(
    project: Project, snapshot: dict[str, Any], artifact: Artifact, created_by: User | None
) -> PreferenceDataset:
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    # The artifact holds query and counts too: the same artifact is the same dataset.
    same = project.datasets.filter(artifact=artifact).first() or _imported(project, snapshot)
    if same is not None:
        return same
    newest = project.datasets.aggregate(top=Max("number"))["top"] or 0
    return PreferenceDataset.objects.create(
        project=project,
        number=newest + 1,
        kind=snapshot["kind"],
        query=snapshot["query"],
        counts=snapshot["counts"],
        artifact=artifact,
        created_by=created_by,
    )


def preference_dataset_import(
    *, project: Project, lines: Iterable[bytes] | IO[bytes], name: str, created_by: User | None
) -> PreferenceDataset:
    """Take in rankings that were exported in the `rankings` layout, here or elsewhere: all or none.

    lines: a binary file, or its lines: JSON Lines, or Parquet, which is known by its first bytes.
    `name` is what the file is called in errors and in the dataset's query ({"imported": {"name",
    "sha256", "rows_sha256"}}). Exporting the dataset again gives the same bytes. The same rows
    again, in either format, return the dataset that is there.
    Raises ApplicationError with {"file", "line", "field"} for the first row that is refused; a
    Parquet file's lines are its rows. What makes a row good: `ranking_rows.rankings_checked`.
    """
    name = "".join(c for c in Path(name).name if c.isprintable())[:120] or "rankings"
    counts = _counts_empty()
    with tempfile.TemporaryFile() as file, tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        try:
            sha256 = _spool(lines, file, name)
            records = rankings_checked(_rows_of(file, name), project=project, name=name)
            records_write(folder / RANKINGS_NAME, _counted(records, counts))
        except RecordError as error:
            where = {"file": error.file, "line": error.line, "field": error.field}
            raise ApplicationError(str(error), where) from error
        if not counts["used"]:
            raise ApplicationError(
                gettext("%(name)s holds no rankings.") % {"name": name}, {"file": name}
            )
        with (folder / RANKINGS_NAME).open("rb") as rows:
            rows_sha256 = hashlib.file_digest(rows, "sha256").hexdigest()
        origin = {"name": name, "sha256": sha256, "rows_sha256": rows_sha256}
        snapshot = {"kind": KIND, "query": {"imported": origin}, "counts": counts}
        same = _imported(project, snapshot)
        if same is not None:
            return same
        (folder / SNAPSHOT_NAME).write_text(json_canonical(snapshot), encoding="utf-8")
        artifact = artifact_store(folder=folder, kind=Artifact.Kind.RANKINGS)
    return _dataset_keep(project, snapshot, artifact, created_by)


def _imported(project: Project, snapshot: dict[str, Any]) -> PreferenceDataset | None:
    """The dataset that has been imported with the same rows, if there is one."""
    origin = snapshot["query"].get("imported")
    if origin is None:
        return None
    same = project.datasets.filter(query__imported__rows_sha256=origin["rows_sha256"])
    return same.select_related("artifact").first()


def _spool(lines: Iterable[bytes] | IO[bytes], file: IO[bytes], name: str) -> str:
    """Put the bytes into a file that can be read again, at its start; returns their sha256."""
    digest, size = hashlib.sha256(), 0
    read = getattr(lines, "read", None)
    blocks = iter(lambda: read(_BLOCK_BYTES), b"") if read else iter(lines)
    for block in blocks:
        size += len(block)
        if size > MAX_IMPORT_BYTES:
            raise RecordError(name, 1, "", f"the file is larger than {MAX_IMPORT_BYTES >> 20} MiB")
        digest.update(block)
        file.write(block)
    file.seek(0)
    return digest.hexdigest()


def _rows_of(file: IO[bytes], name: str) -> Iterator[tuple[int, Any]]:
    start = file.read(4)
    file.seek(0)
    if start != b"PAR1":
        return jsonl_rows(file, name)
    # Loaded where it is used: Arrow takes 40 MB that no other page needs.
    rows: Iterator[tuple[int, Any]] = import_module("annotation.parquet").rows_read(
        file, layout="rankings", name=name
    )
    return rows


def _counts_empty() -> dict[str, Any]:
    return {
        "total": 0,
        "used": 0,
        "excluded": dict.fromkeys(REASONS, 0),
        "used_by_split": dict.fromkeys(Split.values, 0),
        "used_by_source": dict.fromkeys(SOURCES, 0),
    }


def _counted(records: Iterable[RankingRecord], counts: dict[str, Any]) -> Iterator[RankingRecord]:
    for record in records:
        counts["total"] += 1
        counts["used"] += 1
        counts["used_by_split"][record.split] += 1
        counts["used_by_source"][record.judged_by] += 1
        yield record


def preference_dataset_verify(*, dataset: PreferenceDataset) -> None:
    """Check a dataset against its artifact: every byte, every row, the order, query and counts.

    Raises IntegrityError or RecordError naming the first thing that is not as it was frozen.
    """
    dataset = PreferenceDataset.objects.select_related("artifact").get(pk=dataset.pk)
    storage.artifact_verify(dataset.artifact)
    folder = storage.artifact_folder(dataset.artifact)
    frozen = json.loads((folder / SNAPSHOT_NAME).read_text(encoding="utf-8"))
    for field in ("kind", "query", "counts"):
        if frozen[field] != getattr(dataset, field):
            raise IntegrityError(f"{dataset}: its {field} has changed since it was frozen")
    told = SNAPSHOT_KINDS[dataset.kind]
    rows, last = 0, ""
    for record in records_read(folder / told.file, told.record):
        rows += 1
        if record.id <= last:
            raise RecordError(told.file, rows, "id", "rows are not sorted by id")
        last = record.id
    counted = dataset.counts.get("rows", dataset.counts["used"])
    if rows != counted:
        raise IntegrityError(f"{dataset}: {rows} rows, and {counted} were counted")


def query_read(*, project: Project, query: dict[str, Any]) -> DatasetQuery:
    """Check a query. Raises ApplicationError naming the field; batches must be the project's."""
    for field in query:
        if field not in _QUERY_FIELDS:
            raise _refused(field, "unknown field")
    batches = _names(query, "batches")
    if batches is not None:
        known = CandidateBatch.objects.filter(project=project, uid__in=batches)
        missing = sorted(set(batches) - set(known.values_list("uid", flat=True)))
        if missing:
            raise _refused("batches", f"no batch {missing[0]} in this project")
    splits = _names(query, "splits")
    for split in splits or ():
        if split not in Split.values:
            raise _refused("splits", f"{split!r} is none of {', '.join(Split.values)}")
    simulated = query.get("simulated")
    if simulated is not None and not isinstance(simulated, bool):
        raise _refused("simulated", "wanted true, false or nothing")
    sources = _names(query, "sources")
    for source in sources or ():
        if source not in Membership.Source.values:
            names = ", ".join(Membership.Source.values)
            raise _refused("sources", f"{source!r} is none of {names}")
    return DatasetQuery(
        batches=batches,
        splits=splits,
        simulated=simulated,
        sources=sources,
        until=_until(query.get("until")),
    )


def _weights_checked(weights: Mapping[str, float] | None) -> dict[str, float]:
    """The weights that are not 1, to a thousandth."""
    for uid, weight in (weights or {}).items():
        if not 0 <= weight <= 1:
            raise ApplicationError(
                gettext("A weight is 0 to 1; %(uid)s has %(weight)s.")
                % {"uid": uid, "weight": weight},
                {"field": "weights"},
            )
    told = {uid: round(weight, 3) for uid, weight in (weights or {}).items()}
    return {uid: weight for uid, weight in told.items() if weight != 1.0}


def _names(query: dict[str, Any], field: str) -> tuple[str, ...] | None:
    value = query.get(field)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise _refused(field, "wanted a list of texts")
    return tuple(sorted(set(value)))


def _until(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else parse_datetime(str(value))
    except ValueError:
        moment = None
    if moment is None or timezone.is_naive(moment):
        raise _refused("until", "wanted a time with its zone, such as 2026-11-22T08:00:00Z")
    return moment.astimezone(UTC)


def _refused(field: str, reason: str) -> ApplicationError:
    return ApplicationError(
        gettext("Query, field %(field)s: %(reason)s.") % {"field": field, "reason": reason},
        {"field": field},
    )


def _records(
    project: Project,
    told: SnapshotKind,
    query: DatasetQuery,
    weights: Mapping[str, float],
    counts: dict[str, Any],
) -> Iterator[Record]:
    """The rows of a snapshot, sorted by id; fills `counts` while it goes.

    One SELECT reads all that can change (status, judgement), so both databases give one moment's
    view without a lock. Candidates and a dialogue's turns, read beside it, never change.
    """
    submissions = (
        Submission.objects.filter(
            task__project=project,
            task__kind__in=told.of_tasks,
            task__gold__isnull=True,
            task__is_qualification=False,
            task__mirror_of__isnull=True,  # the first judgement stands for both
            **{f"{told.rows_of}__isnull": False},
        )
        .exclude(task__prompt__source=Prompt.OF_CORPUS)
        .select_related(
            "annotator", "assignment__guideline", "task__prompt", "task__batch", *told.fetched
        )
        .select_related("task__adjudication")
        .prefetch_related(*told.prefetched)
        .order_by("uid")
    )
    more = {"form": form_of(project, told.kind)}
    last = ""
    for submission in submissions.iterator(chunk_size=_ROWS_AT_A_TIME):
        if submission.uid <= last:
            raise RuntimeError("the database sorts uids by another order than their characters'")
        last = submission.uid
        counts["total"] += 1
        rows = list(told.rows(submission, weights.get(submission.annotator.uid, 1.0), more))
        reason = query.reason_against(submission, rows[0].split)
        rows = [row for row in rows if tells_apart(row)]
        if reason is None and not rows:
            reason = SAME_TEXT
        if reason is not None:
            counts["excluded"][reason] = counts["excluded"].get(reason, 0) + 1
            continue
        counts["used"] += 1
        counts["used_by_split"][rows[0].split] += len(rows)
        counts["used_by_source"][submission.source] += len(rows)
        yield from rows
