"""Reward models' scores become the doubt of the queue; averaged weights become a version."""

import pytest
from django.core.management import CommandError, call_command

from alignment.ml.configs import EnsembleConfig
from alignment.records import TASKS_NAME, MemberScoreRecord, TaskRecord
from alignment.services.ensembles import ensemble_finish, queue_score_request
from annotation.models import Task
from modelhub.errors import ApplicationError
from modelhub.ml.records import records_read, records_write
from modelhub.models import Artifact, ModelVersion, Run, RunOutput
from modelhub.services.artifacts import artifact_store
from modelhub.services.runs import run_create
from modelhub.storage import artifact_folder
from tests.builders import make_artifact, make_project, make_ranking_task, make_version

pytestmark = pytest.mark.django_db


@pytest.fixture
def rewards():
    return [make_version(f"reward-{n}", role=ModelVersion.Role.REWARD) for n in (1, 2)]


def scored(run, tmp_path, scores):
    """The run with an output of these members' scores, by candidate."""
    tmp_path.mkdir(exist_ok=True)
    records_write(
        tmp_path / "scores.jsonl",
        (
            MemberScoreRecord(candidate=uid, prompt_id="p", score=0.0, members=members)
            for uid, members in scores.items()
        ),
    )
    artifact = artifact_store(folder=tmp_path, kind=Artifact.Kind.EVALUATION)
    RunOutput.objects.create(run=run, role="scores", artifact=artifact)


def test_open_tasks_are_scored_and_then_carry_the_doubt(rewards, tmp_path):
    project = make_project()
    torn, closed = (make_ranking_task(project, texts=("a", "b")) for _ in range(2))
    Task.objects.filter(pk=closed.pk).update(closed_at=torn.created_at)
    run = queue_score_request(project=project, versions=rewards)
    inputs = {one.role: one.artifact for one in run.inputs.all()}
    assert set(inputs) == {"reward_1", "reward_2", "tasks"}
    (record,) = records_read(artifact_folder(inputs["tasks"]) / TASKS_NAME, TaskRecord)
    uids = list(torn.task_candidates.values_list("candidate__uid", flat=True))
    assert [one["id"] for one in record.candidates] == uids
    assert record.messages == torn.prompt.messages

    scored(run, tmp_path / "scores", {uids[0]: [5.0, -5.0], uids[1]: [0.0, 0.0]})
    ensemble_finish(run=run)
    assert Task.objects.get(pk=torn.pk).doubt == pytest.approx(1, abs=0.01)
    assert Task.objects.get(pk=closed.pk).doubt == 0


def test_averaged_weights_become_a_version_beside_the_first_member(rewards):
    run = run_create(
        program="reward_ensemble",
        config=EnsembleConfig(combine="weight_average"),
        inputs={f"reward_{n}": one.artifact for n, one in enumerate(rewards, 1)},
    )
    facts = {"architecture": "LlamaForSequenceClassification", "parameters": 9}
    run.result = {**facts, "dtype": "bfloat16", "context_tokens": 512, "chat_template": ""}
    run.status = Run.Status.SUCCEEDED
    run.save()
    RunOutput.objects.create(run=run, role="model", artifact=make_artifact())
    ensemble_finish(run=run)
    made = ModelVersion.objects.get(run=run)
    assert (made.model, made.parent, made.role) == (rewards[0].model, rewards[0], "reward")


def test_what_cannot_be_scored_is_refused(rewards):
    project = make_project()
    with pytest.raises(ApplicationError, match="No task is open"):
        queue_score_request(project=project, versions=rewards)
    with pytest.raises(ApplicationError, match="Name a reward model"):
        queue_score_request(project=project, versions=[])
    make_ranking_task(project, texts=("a", "b"))
    with pytest.raises(ApplicationError, match="is no reward model"):
        queue_score_request(project=project, versions=[make_version()])


def test_the_command_queues_the_run_and_names_what_it_does_not_find(rewards, capsys):
    project = make_project()
    make_ranking_task(project, texts=("a", "b"))
    call_command("score_queue", project.uid, "reward-1@1")
    run = Run.objects.get(program="reward_ensemble")
    assert run.uid in capsys.readouterr().out
    with pytest.raises(CommandError, match="There is no project"):
        call_command("score_queue", "none", "reward-1@1")
    with pytest.raises(CommandError, match="There is no version 'nothing@1'"):
        call_command("score_queue", project.uid, "nothing@1")
