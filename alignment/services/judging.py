"""AI feedback: the tasks that a model is to judge, and what becomes of its labels."""

import hashlib
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext

from alignment.ml.configs import JudgeConfig
from alignment.records import LABELS_NAME, TASKS_NAME, LabelRecord, TaskRecord
from annotation.models import WORK, Membership, Project, Submission, Task, TaskCandidate
from annotation.services.machine_labels import machine_annotator_ensure, machine_label_submit
from modelhub.errors import ApplicationError
from modelhub.ml.configs import config_load
from modelhub.ml.records import records_read, records_write
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.services.artifacts import artifact_store
from modelhub.storage import artifact_folder

OPEN, JUDGED = "open", "judged"  # tasks with a slot free; tasks that a person has judged
_KINDS = (Task.Kind.PAIR, Task.Kind.RANKING)
_ROWS_AT_A_TIME = 500


def judge_tasks_store(*, project: Project, which: str) -> Artifact:
    """Write down a project's pairs and rankings for a judge: the open ones, or those that people
    have judged, on which it can be compared with them. Raises ApplicationError if there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        if not records_write(Path(folder, TASKS_NAME), _tasks(project, which)):
            raise ApplicationError(
                gettext("%(project)s has no such pair or ranking.") % {"project": project},
                {"field": "inputs.tasks"},
            )
        return artifact_store(folder=Path(folder), kind=Artifact.Kind.PROMPTS)


def judge_finish(*, run: Run) -> None:
    """Keep a finished judge's labels, within the transaction that marks its run succeeded.

    Each model and rubric is an annotator of its own, so that the page of quality tells how far it
    agrees with people. Run again, what it has judged already stands.
    """
    output = run.outputs.select_related("artifact").get(role="labels")
    labels = {
        one.task: one
        for one in records_read(artifact_folder(output.artifact) / LABELS_NAME, LabelRecord)
    }
    tasks = Task.objects.filter(uid__in=labels).select_related("project").order_by("pk")
    members: dict[int, Membership] = {}
    name = judge_name(run)
    for task in tasks:
        if task.project_id not in members:
            members[task.project_id] = machine_annotator_ensure(project=task.project, name=name)
        label = labels[task.uid]
        machine_label_submit(
            membership=members[task.project_id],
            task=task,
            tiers=label.tiers,
            rationale=(
                f"Judged by a model: run {run.uid}; {label.agreed} of {label.pairs} pairs alike in"
                " both orders."
            ),
        )


def judge_name(run: Run) -> str:
    """The account of a judge: its model's name, and a hash of what else makes it another one."""
    config = config_load(JudgeConfig, run.config)
    given = run.inputs.filter(role="model").first()
    if config.engine == "openai" or given is None:
        model, exact = config.endpoint_model, config.endpoint_url
    else:
        version = ModelVersion.objects.filter(artifact=given.artifact_id).first()
        model = str(version) if version else "model"
        exact = given.artifact.sha256
    told = "\n".join((model, exact, str(config.reasons), config.rubric))
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    plain = "".join(one if one.isalnum() or one in "@.+-_" else "-" for one in model)
    return f"judge-{plain[:100]}-{digest}"


def _tasks(project: Project, which: str) -> Iterator[TaskRecord]:
    """A record of each task, in the tasks' order."""
    by_people = Submission.objects.filter(
        task=OuterRef("pk"),
        source=Membership.Source.PERSON,
        status__in=(Submission.Status.ACCEPTED, Submission.Status.SURPLUS),
    )
    wanted = {OPEN: Q(closed_at=None, slots_free__gt=0), JUDGED: Q(Exists(by_people))}[which]
    tasks = Task.objects.filter(WORK, wanted, project=project, kind__in=_KINDS)
    rows = (
        TaskCandidate.objects.filter(task__in=tasks)
        .select_related("candidate", "task__prompt")
        .order_by("task_id", "position")
        .iterator(chunk_size=_ROWS_AT_A_TIME)
    )
    for _, group in groupby(rows, key=lambda row: row.task_id):
        own = list(group)
        task = own[0].task
        if len(own) > 1:
            yield TaskRecord(
                task=task.uid,
                prompt_id=task.prompt.uid,
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
