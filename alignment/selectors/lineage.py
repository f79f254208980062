"""What came from what: from a candidate back to the people whose judgements shaped it, and forth.

The walk goes over rows that are written when the work is done (a run's inputs and outputs, a
version's run, a batch's run) and over the snapshots themselves, whose lines name each submission.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from django.db.models import QuerySet

from alignment.models import RoundRun
from annotation.models import (
    Candidate,
    CandidateBatch,
    Membership,
    PreferenceDataset,
    Project,
    Submission,
)
from annotation.records import RANKINGS_NAME, RankingRecord
from modelhub.ml.records import records_read
from modelhub.models import Artifact, ModelVersion, Run, RunInput, RunOutput
from modelhub.storage import artifact_folder


@dataclass(kw_only=True)
class Node:
    """One thing in a lineage, with what it was made from.

    `subject` is a Candidate, ModelVersion, Run, PreferenceDataset or Artifact; `role` is what the
    thing below knows it by. `is_repeat`: its own origins are shown where it first stands.
    """

    subject: Candidate | ModelVersion | Run | PreferenceDataset | Artifact
    role: str = ""
    is_repeat: bool = False
    is_foreign: bool = False  # of no project of the reader's: it has no name to her
    origins: list["Node"] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return type(self.subject).__name__.lower()

    def walk(self) -> Iterator["Node"]:
        """This node and all it came from, each thing once, nearest first."""
        if self.is_repeat:
            return
        yield self
        for origin in self.origins:
            yield from origin.walk()

    def walk_all(self) -> Iterator["Node"]:
        """This node and all below it, repeats too."""
        yield self
        for origin in self.origins:
            yield from origin.walk_all()

    def versions(self) -> list[ModelVersion]:
        return [n.subject for n in self.walk() if isinstance(n.subject, ModelVersion)]

    def runs(self) -> list[Run]:
        return [n.subject for n in self.walk() if isinstance(n.subject, Run)]

    def datasets(self) -> list[PreferenceDataset]:
        return [n.subject for n in self.walk() if isinstance(n.subject, PreferenceDataset)]


def candidate_lineage(*, candidate: Candidate) -> Node:
    """Candidate → the run that wrote it → its model's version → that one's run → … → datasets.

    A few queries for each thing in it.
    """
    seen: set[tuple[str, int]] = set()
    root = Node(subject=candidate)
    if candidate.batch is not None:
        root.origins.append(_run_node(candidate.batch.run, "written by", seen))
    elif candidate.version is not None:
        root.origins.append(_version_node(candidate.version, "written by", seen))
    return root


def version_lineage(*, version: ModelVersion) -> Node:
    """Version → the run that made it → what that read → …"""
    return _version_node(version, "", set())


def lineage_foreign_mark(*, root: Node, projects: QuerySet[Project]) -> None:
    """Mark what in a lineage is of none of these projects: its datasets, and its runs by label.

    A model may be trained on another project's judgements; their names are that project's.
    Three queries.
    """
    own = set(projects.values_list("pk", flat=True))
    runs = [run.pk for run in root.runs()]
    owners = {
        *CandidateBatch.objects.filter(run__in=runs).values_list("run_id", "project_id"),
        *RoundRun.objects.filter(run__in=runs).values_list("run_id", "round__campaign__project_id"),
    }
    own_runs = {run for run, project in owners if project in own}
    for node in root.walk_all():
        if isinstance(node.subject, PreferenceDataset):
            node.is_foreign = node.subject.project_id not in own
        elif isinstance(node.subject, Run):
            node.is_foreign = node.subject.pk not in own_runs


def _is_new(
    subject: Artifact | ModelVersion | Run | PreferenceDataset, seen: set[tuple[str, int]]
) -> bool:
    key = (type(subject).__name__, subject.pk)
    if key in seen:
        return False
    seen.add(key)
    return True


def _version_node(version: ModelVersion, role: str, seen: set[tuple[str, int]]) -> Node:
    node = Node(subject=version, role=role)
    if not _is_new(version, seen):
        node.is_repeat = True
    elif version.run is not None:
        node.origins.append(_run_node(version.run, "made by", seen))
    return node


def _run_node(run: Run, role: str, seen: set[tuple[str, int]]) -> Node:
    node = Node(subject=run, role=role)
    if not _is_new(run, seen):
        node.is_repeat = True
        return node
    for given in run.inputs.select_related("artifact").order_by("role"):
        node.origins.append(_artifact_node(given, seen))
    return node


def _artifact_node(given: RunInput, seen: set[tuple[str, int]]) -> Node:
    """The best-known name of what a run read: a version, a dataset, or the run that wrote it."""
    artifact, role = given.artifact, given.role
    version = _version_of(given)
    if version is not None:
        return _version_node(version, role, seen)
    dataset = (
        PreferenceDataset.objects.select_related("project", "artifact")
        .filter(artifact=artifact)
        .first()
    )
    if dataset is not None:
        return Node(subject=dataset, role=role, is_repeat=not _is_new(dataset, seen))
    made = RunOutput.objects.select_related("run").filter(
        artifact=artifact, run__pk__lt=given.run_id
    )
    writer = made.order_by("run_id").first()
    if writer is not None:
        return _run_node(writer.run, role, seen)
    return Node(subject=artifact, role=role, is_repeat=not _is_new(artifact, seen))


def _version_of(given: RunInput) -> ModelVersion | None:
    """The version a run read: of those with these very weights the batch's own, or the first."""
    versions = ModelVersion.objects.select_related("model", "artifact", "run").filter(
        artifact=given.artifact
    )
    batch = CandidateBatch.objects.filter(run=given.run_id).first()
    if batch is not None and given.role == "model":
        return versions.filter(pk=batch.version_id).first() or versions.order_by("pk").first()
    return versions.order_by("pk").first()


def dataset_rankings(*, dataset: PreferenceDataset) -> Iterator[RankingRecord]:
    """The rows of a snapshot, one in memory at a time."""
    return records_read(artifact_folder(dataset.artifact) / RANKINGS_NAME, RankingRecord)


def dataset_submissions(*, dataset: PreferenceDataset) -> Iterator[Submission]:
    """The submissions a snapshot was made of, with their annotators; a query for each 500."""
    rankings = dataset_rankings(dataset=dataset)
    while uids := [record.id for record in islice(rankings, 500)]:
        yield from Submission.objects.filter(
            task__project=dataset.project, uid__in=uids
        ).select_related("annotator__user", "task__prompt")


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """Who labelled what is in some datasets together."""

    rankings: int
    simulated: int
    annotators: list[Membership]
    unnamed: int  # annotators of projects whose people are not named


def datasets_labelling(
    *, datasets: Iterable[PreferenceDataset], named: QuerySet[Project] | None = None
) -> Labelling:
    """Count the distinct rankings and people behind datasets; reads their files and two queries.

    Only people of the projects `named` are named, of all projects without it.
    """
    simulated: dict[str, bool] = {}
    people: set[str] = set()
    for dataset in datasets:
        for record in dataset_rankings(dataset=dataset):
            simulated[record.id] = record.is_simulated
            people.add(record.annotator)
    memberships = Membership.objects.filter(uid__in=people)
    shown = memberships if named is None else memberships.filter(project__in=named)
    annotators = list(shown.select_related("user").order_by("pk"))
    return Labelling(
        rankings=len(simulated),
        simulated=sum(simulated.values()),
        annotators=annotators,
        unnamed=memberships.count() - len(annotators),
    )


# And back: what a judgement has become


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Everything that was made, at any remove, from some artifacts."""

    runs: list[Run]
    versions: list[ModelVersion]
    batches: list[CandidateBatch]

    @property
    def candidate_count(self) -> int:
        return Candidate.objects.filter(batch__in=self.batches).count()


def submission_datasets(*, submission: Submission) -> list[PreferenceDataset]:
    """The snapshots that hold a submission. Reads the project's snapshots that are younger."""
    younger = PreferenceDataset.objects.select_related("project", "artifact").filter(
        project=submission.task.project_id, created_at__gte=submission.created_at
    )
    return [
        dataset
        for dataset in younger.order_by("number")
        if any(record.id == submission.uid for record in dataset_rankings(dataset=dataset))
    ]


def submission_descent(*, submission: Submission) -> Descent:
    """Submission → datasets → runs → versions → candidates."""
    datasets = submission_datasets(submission=submission)
    return artifacts_descent(artifacts=[dataset.artifact for dataset in datasets])


def artifacts_descent(*, artifacts: Iterable[Artifact]) -> Descent:
    """The runs that read these artifacts, those that read what they wrote, and so on.

    Two queries for each remove.
    """
    reached = {artifact.pk for artifact in artifacts}
    frontier, runs = set(reached), set[int]()
    while frontier:
        readers = RunInput.objects.filter(artifact__in=frontier).values_list("run_id", flat=True)
        new_runs = set(readers) - runs
        runs |= new_runs
        written = RunOutput.objects.filter(run__in=new_runs).values_list("artifact_id", flat=True)
        frontier = set(written) - reached
        reached |= frontier
    return Descent(
        runs=list(Run.objects.filter(pk__in=runs).order_by("pk")),
        versions=list(
            ModelVersion.objects.select_related("model").filter(run__in=runs).order_by("pk")
        ),
        batches=list(CandidateBatch.objects.filter(run__in=runs).order_by("pk")),
    )


@dataclass(frozen=True, kw_only=True)
class CandidateFate:
    """What people said of a candidate, and what that has become."""

    submissions: list[Submission]
    datasets: list[PreferenceDataset]
    descent: Descent


def candidate_fate(*, candidate: Candidate) -> CandidateFate:
    """Candidate → its rankings → the snapshots that hold them → what was made of those."""
    submissions = list(
        Submission.objects.filter(
            task__task_candidates__candidate=candidate, status=Submission.Status.ACCEPTED
        ).select_related("annotator__user", "task")
    )
    found = {
        dataset.pk: dataset
        for submission in submissions
        for dataset in submission_datasets(submission=submission)
    }
    datasets = sorted(found.values(), key=lambda dataset: dataset.number)
    return CandidateFate(
        submissions=submissions,
        datasets=datasets,
        descent=artifacts_descent(artifacts=[dataset.artifact for dataset in datasets]),
    )
