"""Several reward models as one: asking for their scores, and what comes of them."""

import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from django.contrib.auth.models import User

from alignment.ml.configs import EnsembleConfig
from alignment.records import TASKS_NAME, MemberScoreRecord, TaskRecord
from annotation.models import Candidate, Project, TaskCandidate
from annotation.services.doubt import doubts_set
from modelhub.errors import ApplicationError
from modelhub.ml.records import records_read, records_write
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.selectors.versions import version_inputs
from modelhub.services.artifacts import artifact_store
from modelhub.services.runs import run_create
from modelhub.services.versions import model_version_register
from modelhub.storage import artifact_folder

_ROWS_AT_A_TIME = 500


def queue_score_request(
    *,
    project: Project,
    versions: Sequence[ModelVersion],
    requested_by: User | None = None,
    config: EnsembleConfig | None = None,
) -> Run:
    """Queue a run in which reward models score the answers of the project's open tasks.

    When it has succeeded the tasks have the doubt that the scores tell (`ensemble_finish`). One
    version of several heads is an ensemble as well as several versions are. Raises ApplicationError
    without a version, for one that is no reward model, and where no task is open.
    """
    if not versions:
        raise ApplicationError("Name a reward model at least.", {"field": "versions"})
    for version in versions:
        if version.role != ModelVersion.Role.REWARD:
            raise ApplicationError(f"{version} is no reward model.", {"field": "versions"})
    with tempfile.TemporaryDirectory() as folder:
        count = records_write(Path(folder, TASKS_NAME), _open_tasks(project))
        if not count:
            raise ApplicationError(
                "No task is open that has two answers or more.", {"field": "project"}
            )
        tasks = artifact_store(folder=Path(folder), kind=Artifact.Kind.PROMPTS)
    rewards: dict[str, Artifact] = {}
    for number, version in enumerate(versions, 1):
        rewards |= version_inputs(version=version, role=f"reward_{number}")
    return run_create(
        program=EnsembleConfig.PROGRAM,
        config=config or EnsembleConfig(),
        inputs={**rewards, "tasks": tasks},
        label=f"{len(versions)} reward models score {count} tasks of {project}",
        requested_by=requested_by,
    )


def ensemble_finish(*, run: Run) -> None:
    """What a finished ensemble leads to, within the transaction that marks its run succeeded.

    Scores of tasks become the doubt of those that are still open; averaged weights become a version
    beside the first member.
    """
    outputs = {output.role: output.artifact for output in run.outputs.select_related("artifact")}
    if "scores" in outputs:
        _doubts_take(outputs["scores"])
    if "model" in outputs:
        first = ModelVersion.objects.filter(
            artifact__read_by__run=run, artifact__read_by__role="reward_1"
        ).first()
        if first is not None:
            model_version_register(
                model=first.model,
                role=ModelVersion.Role.REWARD,
                artifact=outputs["model"],
                parent=first,
                run=run,
                facts=dict(run.result or {}),
                card=f"The mean of the weights of {run.inputs.count()} inputs of {run}.",
            )


def _open_tasks(project: Project) -> Iterator[TaskRecord]:
    """One record for each set of answers that waits for judges, in the tasks' order."""
    rows = (
        TaskCandidate.objects.filter(task__project=project, task__closed_at=None)
        .select_related("candidate", "task__prompt")
        .order_by("task_id", "position")
        .iterator(chunk_size=_ROWS_AT_A_TIME)
    )
    for _, group in groupby(rows, key=lambda row: row.task_id):
        own = list(group)
        prompt = own[0].task.prompt
        if len(own) > 1:
            yield TaskRecord(
                prompt_id=prompt.uid,
                split=prompt.split,
                messages=prompt.messages,
                candidates=[
                    {
                        "id": row.candidate.uid,
                        "text": row.candidate.text,
                        "finish_reason": row.candidate.finish_reason,
                    }
                    for row in own
                ],
            )


def _doubts_take(artifact: Artifact) -> None:
    scores = {
        record.candidate: record.members
        for record in records_read(artifact_folder(artifact) / "scores.jsonl", MemberScoreRecord)
    }
    project = Project.objects.filter(
        pk__in=Candidate.objects.filter(uid=next(iter(scores))).values("prompt__project")
    ).first()
    if project is not None:
        doubts_set(project=project, scores=scores)
