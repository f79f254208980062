"""A judge's labels land beside people's, marked as a model's, once."""

import pytest

from alignment.records import LabelRecord, TaskRecord
from alignment.services.judging import judge_finish
from alignment.services.launches import Launch, run_launch
from annotation.models import Membership, Submission, Task
from annotation.selectors.judged import judgements_newest, tasks_shared
from annotation.services.assignments import assignment_next
from annotation.services.pairs import pair_submit
from annotation.task_forms import PairForm
from modelhub.errors import ApplicationError
from modelhub.ml.records import records_read, records_write
from modelhub.models import Artifact, RunOutput
from modelhub.services.artifacts import artifact_store
from modelhub.storage import artifact_folder
from tests.builders import make_member, make_project, make_ranking_task, make_task, make_user

pytestmark = pytest.mark.django_db
ENDPOINT = {
    "engine": "openai",
    "endpoint_url": "http://127.0.0.1:9/v1",
    "endpoint_model": "org/big judge",
}


@pytest.fixture
def manager():
    return make_user("manager", is_staff=True, is_superuser=True)


def launched(project, manager, which="open", **settings):
    return run_launch(
        launch=Launch(
            method="judge",
            settings={**ENDPOINT, **settings},
            inputs={"tasks": f"project/{project.uid}/{which}"},
        ),
        requested_by=manager,
    )


def tasks_of(run):
    folder = artifact_folder(run.inputs.get(role="tasks").artifact)
    return list(records_read(folder / "tasks.jsonl", TaskRecord))


def finish(run, tmp_path, tiers_by_task):
    folder = tmp_path / run.uid
    folder.mkdir()
    records_write(
        folder / "labels.jsonl",
        [
            LabelRecord(task=uid, tiers=tiers, agreed=1, pairs=1)
            for uid, tiers in tiers_by_task.items()
        ],
    )
    artifact = artifact_store(folder=folder, kind=Artifact.Kind.EVALUATION)
    RunOutput.objects.create(run=run, role="labels", artifact=artifact)
    judge_finish(run=run)


def uids_of(task):
    return list(task.task_candidates.order_by("position").values_list("candidate__uid", flat=True))


def test_open_pairs_and_rankings_are_judged_and_marked(manager, tmp_path):
    project = make_project()
    pair, ranking = make_task(project, Task.Kind.PAIR), make_ranking_task(project)
    make_task(project, Task.Kind.RATING)
    run = launched(project, manager)
    assert {one.task for one in tasks_of(run)} == {pair.uid, ranking.uid}
    (a, b), (x, y, z) = uids_of(pair), uids_of(ranking)
    finish(run, tmp_path, {pair.uid: [[b], [a]], ranking.uid: [[x, z], [y]]})

    assert set(Submission.objects.values_list("source", "status")) == {("model", "accepted")}
    comparison = pair.submissions.get().comparison
    assert (comparison.better.uid, comparison.degree) == (b, 1)
    assert [sorted(tier) for tier in ranking.submissions.get().ranking.tiers] == [
        sorted([x, z]),
        [y],
    ]
    member = Membership.objects.get(project=project, source=Membership.Source.MODEL)
    assert member.user.username.startswith("judge-org-big-judge-")
    assert not member.user.is_active
    assert run.uid in pair.submissions.get().rationale
    with pytest.raises(ApplicationError, match="no such pair"):  # no slot is left
        launched(project, manager)


def test_what_people_judged_is_judged_beside_them_and_not_learnt(manager, tmp_path):
    project = make_project()
    task = make_task(project, Task.Kind.PAIR)
    a, b = uids_of(task)
    assignment = assignment_next(membership=make_member(project, "ann"))
    pair_submit(assignment=assignment, better=a, degree=3)
    run = launched(project, manager, "judged")
    finish(run, tmp_path, {task.uid: [[a], [b]]})
    assert set(task.submissions.values_list("source", "status")) == {
        ("person", "accepted"),
        ("model", "surplus"),
    }
    (shared,) = tasks_shared(judgements_newest(project=project))
    assert len(shared) == 2


def test_a_judge_labels_a_task_once_and_another_rubric_is_another_judge(manager, tmp_path):
    project = make_project(overlap=3)
    task = make_task(project, Task.Kind.PAIR)
    a, b = uids_of(task)
    finish(launched(project, manager), tmp_path, {task.uid: [[a], [b]]})
    finish(launched(project, manager, seed=7), tmp_path, {task.uid: [[b], [a]]})
    assert task.submissions.get().comparison.better.uid == a
    finish(launched(project, manager, rubric="The shorter."), tmp_path, {task.uid: [[b], [a]]})
    assert task.submissions.count() == Membership.objects.filter(project=project).count() == 2


def test_a_tie_is_not_kept_where_a_choice_is_asked_for(manager, tmp_path):
    project = make_project()
    task = make_task(project, Task.Kind.PAIR)
    project.task_forms.create(kind="pair", settings=PairForm(ties=False).as_json())
    finish(launched(project, manager), tmp_path, {task.uid: [uids_of(task)]})
    assert not task.submissions.exists()


def test_tasks_of_a_project_one_does_not_manage_are_not_there(manager):
    project = make_project()
    make_task(project, Task.Kind.PAIR)
    with pytest.raises(ApplicationError, match="there is no"):
        launched(project, make_user("stranger", is_staff=True))
    with pytest.raises(ApplicationError, match="there is no"):
        launched(project, manager, "all")
