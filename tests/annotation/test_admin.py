"""The admin: a manager sees their projects' rows, changes none, and takes data away."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from annotation.models import (
    Adjudication,
    CandidateBatch,
    Membership,
    PersonalToken,
    PreferenceDataset,
    Project,
    Question,
    Report,
    Submission,
    TaskForm,
)
from annotation.selectors.personal_tokens import personal_token_stands
from annotation.services.datasets import RANKINGS_NAME, preference_dataset_freeze
from annotation.services.personal_tokens import personal_token_create
from annotation.services.tokens import project_token_create
from modelhub.storage import artifact_folder
from tests.annotation.judged import make_answered_batch, rank_all
from tests.builders import make_member, make_project, make_user

pytestmark = pytest.mark.django_db
MODELS = [
    model._meta.model_name
    for model in admin.site._registry
    if model._meta.app_label == "annotation" and model is not PersonalToken
]


@pytest.fixture
def chief(project: Project) -> User:
    user = make_user("chief", is_staff=True)
    make_member(project, "chief", Membership.Role.MANAGER)
    return user


@pytest.fixture
def client(chief: User, signed_in) -> Client:
    return signed_in(chief)


def make_everything(project: Project, annotator: str) -> PreferenceDataset:
    """One row at least of each model but the guidelines."""
    make_answered_batch(project)
    rank_all(make_member(project, annotator))
    submission = Submission.objects.filter(task__project=project).latest("pk")
    Question.objects.create(assignment=submission.assignment, text="Why?")
    Report.objects.create(task=submission.task, text="It is cut off.")
    TaskForm.objects.create(project=project, kind="pair")
    Adjudication.objects.create(
        task=submission.task, reviewer=submission.annotator, submission=submission
    )
    project_token_create(project=project, name="A product")
    return preference_dataset_freeze(project=project)


@pytest.fixture
def dataset(project: Project) -> PreferenceDataset:
    return make_everything(project, "ann")


@pytest.fixture
def hidden() -> PreferenceDataset:
    """Another project, with one of everything."""
    return make_everything(make_project("Hidden project"), "hidden-person")


def page(name: str, act: str = "changelist", *args: object) -> str:
    return reverse(f"admin:annotation_{name}_{act}", args=args)


@pytest.mark.parametrize("name", MODELS)
def test_every_list_and_row_opens_and_another_project_is_not_in_it(
    client: Client, dataset: PreferenceDataset, hidden: PreferenceDataset, name: str
) -> None:
    listed = client.get(page(name))
    assert listed.status_code == 200
    assert "Hidden project" not in listed.content.decode()
    assert "hidden-person" not in listed.content.decode()
    model = next(m for m in admin.site._registry if m._meta.model_name == name)
    mine = 0
    for row in model.objects.all():
        status = client.get(page(name, "change", row.pk)).status_code
        assert status in (
            200,
            302,
        )  # the admin sends whoever asks for what is not there to its index
        mine += status == 200
    assert 0 < mine <= model.objects.count() or name == "guideline"
    assert name == "guideline" or mine < model.objects.count()


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_added_or_deleted_here(
    client: Client, dataset: PreferenceDataset, name: str
) -> None:
    model = next(m for m in admin.site._registry if m._meta.model_name == name)
    assert client.get(page(name, "add")).status_code == 403
    for row in model.objects.all()[:1]:
        assert client.post(page(name, "delete", row.pk), {"post": "yes"}).status_code == 403
        if name != "project":
            assert client.post(page(name, "change", row.pk), {}).status_code == 403


def test_a_manager_changes_a_projects_words(client: Client, project: Project) -> None:
    form = {"name": "New name", "description": "d", "overlap": "3"}
    for prefix in ("memberships", "guidelines"):
        form |= {f"{prefix}-TOTAL_FORMS": "0", f"{prefix}-INITIAL_FORMS": "0"}
    assert client.post(page("project", "change", project.pk), form).status_code == 302
    project.refresh_from_db()
    assert (project.name, project.overlap) == ("New name", 3)


@pytest.mark.parametrize(
    "who", ["annotator on the staff", "staff alone", "manager not on the staff"]
)
def test_the_others_are_kept_out(project: Project, signed_in, who: str) -> None:
    user = make_user("somebody", is_staff=who != "manager not on the staff")
    if who != "staff alone":
        role = Membership.Role.ANNOTATOR if "annotator" in who else Membership.Role.MANAGER
        make_member(project, "somebody", role)
    for name in MODELS:
        assert signed_in(user).get(page(name)).status_code in (302, 403, 404)


def test_a_superuser_sees_every_project(
    signed_in, dataset: PreferenceDataset, hidden: PreferenceDataset
) -> None:
    client = signed_in(make_user("root", is_staff=True, is_superuser=True))
    listed = client.get(page("preferencedataset")).content.decode()
    assert "Hidden project" in listed and "Helpfulness" in listed


def act(client: Client, name: str, action: str, *rows: object):
    body = {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(page(name), body, follow=True)


@pytest.mark.parametrize(
    ("action", "start"),
    [
        ("export_trl_jsonl", b'{"prompt":[{"'),
        ("export_trl_parquet", b"PAR1"),
        ("export_rankings_jsonl", b'{"id":"'),
    ],
)
def test_a_dataset_is_downloaded(
    client: Client, dataset: PreferenceDataset, action: str, start: bytes
) -> None:
    response = act(client, "preferencedataset", action, dataset)
    assert response.status_code == 200
    assert response["Content-Disposition"].startswith("attachment")
    assert b"".join(response.streaming_content).startswith(start)


def test_the_dataset_of_another_project_is_not_downloaded(
    client: Client, dataset: PreferenceDataset, hidden: PreferenceDataset
) -> None:
    response = act(client, "preferencedataset", "export_trl_jsonl", hidden)
    assert "Content-Disposition" not in response
    assert "Choose one dataset" in response.content.decode()


def test_two_datasets_at_once_are_not_downloaded(
    client: Client, dataset: PreferenceDataset, project: Project
) -> None:
    Submission.objects.filter(pk=Submission.objects.first().pk).update(status="rejected")
    second = preference_dataset_freeze(project=project)
    response = act(client, "preferencedataset", "export_trl_jsonl", dataset, second)
    assert "Choose one dataset" in response.content.decode()


def test_verifying_says_what_has_changed(client: Client, dataset: PreferenceDataset) -> None:
    assert (
        "as it was frozen" in act(client, "preferencedataset", "verify", dataset).content.decode()
    )
    path = artifact_folder(dataset.artifact) / RANKINGS_NAME
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    try:
        for action in ("verify", "export_trl_jsonl"):
            told = act(client, "preferencedataset", action, dataset).content.decode()
            assert "rankings.jsonl has changed" in told
    finally:
        path.write_bytes(content)


def test_batches_are_taken_in_and_closed(client: Client, dataset: PreferenceDataset) -> None:
    batch = CandidateBatch.objects.get(project=dataset.project)
    assert "0 new candidates" in act(client, "candidatebatch", "ingest", batch).content.decode()
    assert "3 tasks closed" in act(client, "candidatebatch", "close", batch).content.decode()
    CandidateBatch.objects.filter(pk=batch.pk).update(ingested_at=None)
    batch.run.status = "failed"
    batch.run.save()
    assert (
        "it has no answers yet" in act(client, "candidatebatch", "ingest", batch).content.decode()
    )


def test_a_superuser_alone_sees_and_ends_everybodys_tokens(
    client: Client, chief: User, signed_in
) -> None:
    """And no secret."""
    made = personal_token_create(user=chief, name="nightly export", may_write=True, days=30)
    listed = page("personaltoken")
    assert client.get(listed).status_code == 403
    root = signed_in(make_user("root", is_staff=True, is_superuser=True))
    shown = root.get(listed).content.decode()
    assert "nightly export" in shown and made.secret not in shown
    assert root.post(page("personaltoken", "delete", made.token.pk)).status_code == 403
    root.post(listed, {"action": "revoke", "_selected_action": [made.token.pk]})
    token = PersonalToken.objects.get()
    assert token.revoked_at is not None and not personal_token_stands(token)
    row = root.get(page("personaltoken", "change", token.pk)).content.decode()
    assert "nightly export" in row and token.session_hash not in row
