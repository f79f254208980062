"""A judge's labels land beside people's, marked as a model's, once."""

import pytest

from alignment.records import LabelRecord, RatingLabelRecord, RevisionLabelRecord, TaskRecord
from alignment.services.judging import judge_finish, rate_finish, revise_finish
from alignment.services.launches import Launch, run_launch
from annotation.models import Membership, Prompt, Submission, Task
from annotation.records import RankingRecord
from annotation.selectors.agreements import people_agreement
from annotation.selectors.judged import judgements_newest, tasks_shared
from annotation.services.assignments import assignment_next
from annotation.services.datasets import preference_dataset_freeze
from annotation.services.pairs import pair_submit
from annotation.services.ratings import rating_submit
from annotation.task_forms import PairForm
from modelhub.errors import ApplicationError
from modelhub.ml.records import records_read, records_write
from modelhub.models import Artifact, Run, RunOutput
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


def launched(project, manager, which="open", method="judge", **settings):
    return run_launch(
        launch=Launch(
            method=method,
            settings={**ENDPOINT, **settings},
            inputs={"tasks": f"project/{project.uid}/{which}"},
        ),
        requested_by=manager,
    )


def tasks_of(run):
    folder = artifact_folder(run.inputs.get(role="tasks").artifact)
    return list(records_read(folder / "tasks.jsonl", TaskRecord))


def labelled(run, tmp_path, finish, labels):
    folder = tmp_path / run.uid
    folder.mkdir()
    records_write(folder / "labels.jsonl", labels)
    artifact = artifact_store(folder=folder, kind=Artifact.Kind.EVALUATION)
    RunOutput.objects.create(run=run, role="labels", artifact=artifact)
    finish(run=run)


def finish(run, tmp_path, tiers_by_task):
    labels = [
        LabelRecord(task=uid, tiers=tiers, agreed=1, pairs=1)
        for uid, tiers in tiers_by_task.items()
    ]
    labelled(run, tmp_path, judge_finish, labels)


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
    with pytest.raises(ApplicationError, match="no open task of these kinds"):  # no slot is left
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


def test_where_nobody_has_judged_there_is_nothing_to_compare_a_judge_with(manager, tmp_path):
    """What a model judged is no person's judgement, and a rating is none of a pair or a ranking."""
    project = make_project()
    task = make_task(project, Task.Kind.PAIR)
    finish(launched(project, manager), tmp_path, {task.uid: [[uid] for uid in uids_of(task)]})
    assert task.submissions.get().source == "model"
    rating = make_task(project, Task.Kind.RATING)
    assignment = assignment_next(membership=make_member(project, "ann"))
    assert assignment.task == rating
    overall = {uid: {"overall": 4, "flags": []} for uid in uids_of(rating)}
    rating_submit(assignment=assignment, ratings=overall)
    runs, artifacts = Run.objects.count(), Artifact.objects.count()
    with pytest.raises(ApplicationError, match="no task of these kinds that people have judged"):
        launched(project, manager, "judged")
    assert (Run.objects.count(), Artifact.objects.count()) == (runs, artifacts)
    assert [one.task for one in tasks_of(launched(project, manager, "judged", "rate"))] == [
        rating.uid
    ]


def test_tasks_of_a_project_one_does_not_manage_are_not_there(manager):
    project = make_project()
    make_task(project, Task.Kind.PAIR)
    with pytest.raises(ApplicationError, match="there is no"):
        launched(project, make_user("stranger", is_staff=True))
    with pytest.raises(ApplicationError, match="there is no"):
        launched(project, manager, "all")


def test_what_a_corpuss_documents_are_worth_is_not_asked_of_a_model(manager):
    project = make_project()
    task, document = (make_task(project, Task.Kind.RATING, ("A text.",)) for _ in range(2))
    Prompt.objects.filter(pk=document.prompt_id).update(source=Prompt.OF_CORPUS)
    run = launched(project, manager, method="rate")
    assert [one.task for one in tasks_of(run)] == [task.uid]


def test_ratings_land_beside_peoples_and_their_agreement_is_told(manager, tmp_path):
    project = make_project()
    tasks = [make_task(project, Task.Kind.RATING) for _ in range(6)]
    make_task(project, Task.Kind.PAIR)
    ann = make_member(project, "ann")
    for number in range(6):
        assignment = assignment_next(membership=ann)
        a, b = uids_of(assignment.task)
        overall = {a: {"overall": 1 + number, "flags": ["wrong"]}, b: {"overall": 7, "flags": []}}
        rating_submit(assignment=assignment, ratings=overall)
    with pytest.raises(ApplicationError, match="no open task of these kinds"):  # no slot is left
        launched(project, manager, method="rate")
    run = launched(project, manager, "judged", method="rate")
    assert {one.task for one in tasks_of(run)} == {one.uid for one in tasks}
    order = {one.task_id: number for number, one in enumerate(ann.assignments.order_by("pk"))}
    labels = []
    for task in tasks:
        a, b = uids_of(task)
        labels.append(RatingLabelRecord(task=task.uid, ratings={a: 1 + order[task.pk], b: 7}))
    labelled(run, tmp_path, rate_finish, labels)
    machine = Submission.objects.filter(source="model")
    assert set(machine.values_list("status", flat=True)) == {"surplus"}
    assert machine.first().rating.ratings[uids_of(machine.first().task)[1]] == {
        "overall": 7,
        "flags": [],
    }
    member = Membership.objects.get(project=project, source=Membership.Source.MODEL)
    assert member.user.username.startswith("rater-org-big-judge-")
    shared = tasks_shared(judgements_newest(project=project, kind="rating"))
    own = people_agreement("rating", shared, {})[member.pk]
    assert own.tasks == 6 and own.interval.value == pytest.approx(1.0)


def test_a_rater_rates_a_task_once_and_takes_a_free_slot(manager, tmp_path):
    project = make_project()
    task = make_task(project, Task.Kind.RATING, ("Paris.",))
    (a,) = uids_of(task)
    run = launched(project, manager, method="rate")
    labelled(run, tmp_path, rate_finish, [RatingLabelRecord(task=task.uid, ratings={a: 5})])
    rate_finish(run=run)
    submission = task.submissions.get()
    assert (submission.source, submission.status) == ("model", "accepted")
    assert submission.rating.ratings == {a: {"overall": 5, "flags": []}}


def test_a_revision_lands_as_an_edit_that_is_better_than_its_original(manager, tmp_path):
    project = make_project()
    task = make_task(project, Task.Kind.EDIT)
    a, _ = uids_of(task)
    run = launched(project, manager, method="revise")
    label = RevisionLabelRecord(
        task=task.uid, original=a, text="Paris, of course.", reason="By the principle: …"
    )
    labelled(run, tmp_path, revise_finish, [label])
    revise_finish(run=run)
    submission = task.submissions.get()
    assert (submission.source, submission.status) == ("model", "accepted")
    assert submission.comparison.worse.uid == a
    assert submission.comparison.better.text == "Paris, of course."
    assert run.uid in submission.rationale and "By the principle" in submission.rationale
    member = Membership.objects.get(project=project, source=Membership.Source.MODEL)
    assert member.user.username.startswith("reviser-org-big-judge-")
    dataset = preference_dataset_freeze(project=project, kind="edit", created_by=manager)
    (row,) = records_read(artifact_folder(dataset.artifact) / "rankings.jsonl", RankingRecord)
    assert row.is_simulated and [len(tier) for tier in row.tiers] == [1, 1]


def test_other_principles_are_another_annotator(manager, tmp_path):
    project = make_project(overlap=2)
    task = make_task(project, Task.Kind.EDIT, ("Paris.",))
    (a,) = uids_of(task)
    for principles in ("Be short.", "Be polite."):
        run = launched(project, manager, method="revise", principles=principles)
        label = RevisionLabelRecord(task=task.uid, original=a, text=principles, reason="")
        labelled(run, tmp_path, revise_finish, [label])
    assert task.submissions.count() == Membership.objects.filter(project=project).count() == 2
