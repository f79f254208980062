"""AI feedback: tasks that a model is to judge, rate or revise, and what becomes of its labels."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext

from alignment.ml.configs import JudgeConfig, RateConfig, ReviseConfig
from alignment.records import (
    LABELS_NAME,
    TASKS_NAME,
    LabelRecord,
    RatingLabelRecord,
    RevisionLabelRecord,
    TaskRecord,
)
from annotation.models import WORK, Membership, Project, Prompt, Submission, Task, TaskCandidate
from annotation.services.machine_labels import (
    machine_annotator_ensure,
    machine_edit_submit,
    machine_label_submit,
    machine_rating_submit,
)
from annotation.services.submissions import MAX_RATIONALE_CHARS
from modelhub.errors import ApplicationError
from modelhub.ml.configs import config_load
from modelhub.ml.records import records_read, records_write
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.services.artifacts import artifact_store
from modelhub.storage import artifact_folder

OPEN, JUDGED = "open", "judged"  # tasks with a slot free; tasks that a person has judged
_COMPARING = (Task.Kind.PAIR, Task.Kind.RANKING)  # kinds that say nothing of one answer alone
_ROWS_AT_A_TIME = 500
LabelT = TypeVar("LabelT", LabelRecord, RatingLabelRecord, RevisionLabelRecord)


def judge_tasks_store(*, project: Project, which: str, kinds: Sequence[str]) -> Artifact:
    """Write down a project's tasks of some kinds for a judge: the open ones, or those that people
    have judged, on which it can be compared with them. Raises ApplicationError if there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        if not records_write(Path(folder, TASKS_NAME), _tasks(project, which, kinds)):
            message = {
                OPEN: gettext(
                    "%(project)s has no open task of these kinds: %(kinds)s. Make some, or choose"
                    " tasks that people have judged."
                ),
                JUDGED: gettext(
                    "%(project)s has no task of these kinds that people have judged: %(kinds)s."
                ),
            }[which]
            named = ", ".join(str(Task.Kind(kind).label) for kind in kinds)
            raise ApplicationError(
                message % {"project": project, "kinds": named},
                {"field": "inputs.tasks"},
            )
        return artifact_store(folder=Path(folder), kind=Artifact.Kind.PROMPTS)


def judge_finish(*, run: Run) -> None:
    """Keep a finished judge's labels, within the transaction that marks its run succeeded.

    Each model and rubric is an annotator of its own, so that the page of quality tells how far it
    agrees with people. Run again, what it has judged already stands.
    """
    config = config_load(JudgeConfig, run.config)
    name = machine_name(run, "judge", config, (str(config.reasons), config.rubric))
    for membership, task, label in _labels_of(run, LabelRecord, name):
        machine_label_submit(
            membership=membership,
            task=task,
            tiers=label.tiers,
            rationale=(
                f"Judged by a model: run {run.uid}; {label.agreed} of {label.pairs} pairs alike in"
                " both orders."
            ),
        )


def rate_finish(*, run: Run) -> None:
    """Keep a finished judge's ratings, as `judge_finish` keeps its choices."""
    config = config_load(RateConfig, run.config)
    name = machine_name(run, "rater", config, (str(config.reasons), config.rubric))
    for membership, task, label in _labels_of(run, RatingLabelRecord, name):
        machine_rating_submit(
            membership=membership,
            task=task,
            ratings=label.ratings,
            rationale=f"Rated by a model: run {run.uid}.",
        )


def revise_finish(*, run: Run) -> None:
    """Keep a finished model's revisions, each as an edit: better than what it was made from."""
    config = config_load(ReviseConfig, run.config)
    told = (str(config.revisions), config.principles)
    name = machine_name(run, "reviser", config, told)
    for membership, task, label in _labels_of(run, RevisionLabelRecord, name):
        machine_edit_submit(
            membership=membership,
            task=task,
            original=label.original,
            text=label.text,
            rationale=f"Revised by a model: run {run.uid}.\n\n{label.reason}"[:MAX_RATIONALE_CHARS],
        )


def _labels_of(
    run: Run, record: type[LabelT], name: str
) -> Iterator[tuple[Membership, Task, LabelT]]:
    """A run's labels with their tasks, and the annotator of that name in each task's project."""
    output = run.outputs.select_related("artifact").get(role="labels")
    path = artifact_folder(output.artifact) / LABELS_NAME
    labels = {one.task: one for one in records_read(path, record)}
    tasks = Task.objects.filter(uid__in=labels).select_related("project").order_by("pk")
    members: dict[int, Membership] = {}
    for task in tasks:
        if task.project_id not in members:
            members[task.project_id] = machine_annotator_ensure(project=task.project, name=name)
        yield members[task.project_id], task, labels[task.uid]


def machine_name(
    run: Run, what: str, config: JudgeConfig | ReviseConfig, told: Sequence[str]
) -> str:
    """The account of a model that labels: what it is, its name, and a hash of what else makes it
    another one."""
    given = run.inputs.filter(role="model").first()
    if config.engine == "openai" or given is None:
        model, exact = config.endpoint_model, config.endpoint_url
    else:
        version = ModelVersion.objects.filter(artifact=given.artifact_id).first()
        model = str(version) if version else "model"
        exact = given.artifact.sha256
    digest = hashlib.sha256("\n".join((model, exact, *told)).encode()).hexdigest()[:8]
    plain = "".join(one if one.isalnum() or one in "@.+-_" else "-" for one in model)
    return f"{what}-{plain[:100]}-{digest}"


def _tasks(project: Project, which: str, kinds: Sequence[str]) -> Iterator[TaskRecord]:
    """A record of each task, in the tasks' order."""
    by_people = Submission.objects.filter(
        task=OuterRef("pk"),
        source=Membership.Source.PERSON,
        status__in=(Submission.Status.ACCEPTED, Submission.Status.SURPLUS),
    )
    wanted = {OPEN: Q(closed_at=None, slots_free__gt=0), JUDGED: Q(Exists(by_people))}[which]
    # What a corpus's documents are worth is people's to say: a model's word goes nowhere from here.
    tasks = Task.objects.filter(WORK, wanted, project=project, kind__in=kinds).exclude(
        prompt__source=Prompt.OF_CORPUS
    )
    rows = (
        TaskCandidate.objects.filter(task__in=tasks)
        .select_related("candidate", "task__prompt")
        .order_by("task_id", "position")
        .iterator(chunk_size=_ROWS_AT_A_TIME)
    )
    for _, group in groupby(rows, key=lambda row: row.task_id):
        own = list(group)
        task = own[0].task
        if len(own) > 1 or task.kind not in _COMPARING:
            yield TaskRecord(
                task=task.uid,
                prompt_id=task.prompt.uid,
                split=task.prompt.split,
                messages=task.prompt.messages,
                candidates=[
                    {
                        "id": row.candidate.uid,
                        "text": row.candidate.text,
                        "finish_reason": row.candidate.finish_reason,
                    }
                    for row in own
                ],
            )
