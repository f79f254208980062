"""The API of a project's managers: people, prompts, datasets."""

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotation.models import Membership, PreferenceDataset, Project, Prompt
from annotation.services.sign_in import sign_in_link_use
from tests.annotation.judged import make_answered_batch, rank_all
from tests.builders import make_member, make_project

pytestmark = pytest.mark.django_db
Role = Membership.Role


@pytest.fixture
def manager(project: Project, dana: User, signed_in) -> Client:
    return signed_in(dana)


def send(client: Client, verb: str, path: str, body: object = None):
    return client.generic(
        verb, f"/api/v1/{path}", json.dumps(body or {}), content_type="application/json"
    )


def lines(client: Client, project: Project, body: bytes, query: str = ""):
    return client.post(
        f"/api/v1/projects/{project.uid}/prompts/import/{query}",
        data=body,
        content_type="application/x-ndjson",
    )


def test_one_sees_ones_own_projects(project: Project, manager: Client) -> None:
    make_project("Hidden")
    assert send(manager, "GET", "projects/").json() == [
        {"uid": project.uid, "name": "Helpfulness", "description": "", "role": "manager"}
    ]


def test_a_manager_adds_changes_and_removes_people(project: Project, manager: Client) -> None:
    members = f"projects/{project.uid}/members/"
    response = send(manager, "POST", members, {"username": "new", "role": "annotator"})
    assert response.status_code == 201
    reply = response.json()
    assert reply["member"]["username"] == "new"
    token = reply["sign_in_path"].strip("/").rsplit("/", 1)[-1]
    assert sign_in_link_use(token=token) == User.objects.get(username="new")
    uid = reply["member"]["uid"]
    changed = send(manager, "PATCH", f"{members}{uid}/", {"role": "reviewer"})
    assert changed.json()["role"] == "reviewer"
    assert send(manager, "DELETE", f"{members}{uid}/").status_code == 204
    assert [one["username"] for one in send(manager, "GET", members).json()] == ["dana"]
    assert send(manager, "PATCH", f"{members}{uid}/", {"role": "manager"}).status_code == 404


def test_the_last_manager_cannot_leave_by_the_api(
    project: Project, manager: Client, dana: User
) -> None:
    own = project.memberships.get(user=dana).uid
    path = f"projects/{project.uid}/members/{own}/"
    assert send(manager, "DELETE", path).status_code == 400
    assert send(manager, "PATCH", path, {"role": "annotator"}).status_code == 400
    assert project.memberships.get(user=dana).role == Role.MANAGER


def test_nobody_raises_themselves(project: Project, alice: User, bob: User, signed_in) -> None:
    for user in (alice, bob):
        own = project.memberships.get(user=user)
        path = f"projects/{project.uid}/members/"
        client = signed_in(user)
        assert send(client, "PATCH", f"{path}{own.uid}/", {"role": "manager"}).status_code == 404
        body = {"username": user.username, "role": "manager"}
        assert send(client, "POST", path, body).status_code == 404
        before = own.role
        own.refresh_from_db()
        assert own.role == before


@pytest.mark.parametrize("field", ["source", "is_simulated", "is_staff", "user", "project", "uid"])
def test_fields_of_a_member_that_are_not_to_be_set_are_refused(
    project: Project, manager: Client, field: str
) -> None:
    body = {"username": "new", "role": "annotator", field: True}
    response = send(manager, "POST", f"projects/{project.uid}/members/", body)
    assert response.status_code == 400
    assert not User.objects.filter(username="new").exists()


def test_prompts_come_in_as_lines(project: Project, manager: Client) -> None:
    body = b'{"prompt": "Why?"}\n{"prompt": "How?"}\n'
    assert lines(manager, project, body).json() == {"new": 2, "existing": 0, "answers": 0}
    assert lines(manager, project, body).json() == {"new": 0, "existing": 2, "answers": 0}


def test_prompts_bring_their_answers(project: Project, manager: Client) -> None:
    body = b'{"prompt": "Why?", "answers": ["Because.", {"text": "No.", "model": "ours"}]}\n'
    assert lines(manager, project, body).json() == {"new": 1, "existing": 0, "answers": 2}
    assert lines(manager, project, body).json() == {"new": 0, "existing": 1, "answers": 0}
    made = send(manager, "POST", f"projects/{project.uid}/tasks/", {"kind": "ranking"})
    assert made.json() == {"made": 1, "existing": 0, "too_few": 0}
    response = lines(manager, project, b'{"prompt": "How?", "answers": ["a", 5]}')
    assert response.json()["extra"]["field"] == "answers[1]"


def test_a_bad_line_is_named_and_nothing_comes_in(project: Project, manager: Client) -> None:
    body = b'{"prompt": "Why?"}\n{"prompt": 7}\n'
    response = lines(manager, project, body, "?name=mine.jsonl")
    assert response.status_code == 400
    assert response.json()["extra"] == {"file": "mine.jsonl", "line": 2, "field": "prompt"}
    assert not Prompt.objects.exists()


def test_an_empty_body_is_refused(project: Project, manager: Client) -> None:
    response = lines(manager, project, b"")
    assert response.status_code == 400
    assert "holds no prompts" in response.json()["message"]


def test_a_body_that_is_no_lines_is_refused(project: Project, manager: Client) -> None:
    path = f"/api/v1/projects/{project.uid}/prompts/import/"
    assert manager.post(path, {"file": "x"}).status_code == 415


@pytest.fixture
def judged(project: Project, alice: User) -> Project:
    make_answered_batch(project)
    rank_all(project.memberships.get(user=alice))
    return project


def test_a_manager_freezes_lists_and_takes_away(judged: Project, manager: Client) -> None:
    path = f"projects/{judged.uid}/datasets/"
    response = send(manager, "POST", path, {"query": {"splits": ["train"]}})
    assert response.status_code == 201
    frozen = response.json()
    assert frozen["counts"]["used"] == 3
    assert send(manager, "GET", path).json() == [frozen]
    for query, count in (("", 9), ("?layout=rankings", 3), ("?split=held_out", 0)):
        export = manager.get(f"/api/v1/{path}{frozen['uid']}/export/{query}")
        assert export.status_code == 200
        rows = b"".join(export.streaming_content).split(b"\n")[:-1]
        assert len(rows) <= count and (len(rows) > 0) == (count > 0)
        assert export["Content-Disposition"].startswith('attachment; filename="rondo-dataset-1-')
        assert export["X-Content-Type-Options"] == "nosniff"
    parquet = manager.get(f"/api/v1/{path}{frozen['uid']}/export/?file_format=parquet")
    assert b"".join(parquet.streaming_content)[:4] == b"PAR1"


@pytest.mark.parametrize("query", ["layout=csv", "file_format=xlsx", "split=x", "surprise=1"])
def test_an_export_that_there_is_not_is_a_400(judged: Project, manager: Client, query: str) -> None:
    path = f"projects/{judged.uid}/datasets/"
    uid = send(manager, "POST", path).json()["uid"]
    assert manager.get(f"/api/v1/{path}{uid}/export/?{query}").status_code == 400


def test_a_batch_of_another_project_in_a_query_is_a_field_error(
    judged: Project, manager: Client
) -> None:
    foreign = make_answered_batch(make_project("Other"))
    for batches in ([foreign.uid], foreign.uid, [foreign.pk], [[foreign.uid]]):
        response = send(
            manager, "POST", f"projects/{judged.uid}/datasets/", {"query": {"batches": batches}}
        )
        assert response.status_code == 400
        assert response.json()["extra"] == {"field": "batches"}
    assert not PreferenceDataset.objects.exists()


def test_a_dataset_of_another_project_is_not_found_under_ones_own(
    judged: Project, manager: Client, dana: User
) -> None:
    """Though dana manages both: the path names the wrong parent."""
    other = make_project("Other")
    make_member(other, "dana", Role.MANAGER)
    uid = send(manager, "POST", f"projects/{judged.uid}/datasets/").json()["uid"]
    wrong = manager.get(f"/api/v1/projects/{other.uid}/datasets/{uid}/export/")
    missing = manager.get(f"/api/v1/projects/{other.uid}/datasets/{'f' * 32}/export/")
    assert wrong.status_code == missing.status_code == 404
    assert wrong.content == missing.content


def test_annotators_and_reviewers_see_none_of_it(
    judged: Project, alice: User, bob: User, charlie: User, manager: Client, signed_in
) -> None:
    uid = send(manager, "POST", f"projects/{judged.uid}/datasets/").json()["uid"]
    for user in (alice, bob, charlie):
        client = signed_in(user)
        for verb, path in (
            ("GET", "members/"),
            ("POST", "members/"),
            ("GET", "datasets/"),
            ("POST", "datasets/"),
            ("GET", f"datasets/{uid}/export/"),
        ):
            response = send(client, verb, f"projects/{judged.uid}/{path}")
            assert response.status_code == 404, (user, verb, path)
        assert lines(client, judged, b'{"prompt": "x"}').status_code == 404
