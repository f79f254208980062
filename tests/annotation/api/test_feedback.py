"""POST /api/v1/feedback, as a product sends it."""

import json

import pytest
from django.core.cache import cache
from django.test import Client

from annotation.api.feedback import ProjectTokenThrottle
from annotation.models import Candidate, Membership, Project, ProjectToken, Submission
from annotation.services.tokens import project_token_create, project_token_revoke
from tests.builders import make_member

pytestmark = pytest.mark.django_db
URL = "/api/v1/feedback"
BODY = {"prompt": "Why?", "answers": [{"text": "So."}, {"text": "Because."}], "chosen": 1}


@pytest.fixture
def made(project: Project) -> tuple[ProjectToken, str]:
    cache.clear()
    return project_token_create(project=project, name="Kitchen")


def send(secret: str, body=BODY, key: str = "", client: Client | None = None):
    headers = {"Authorization": f"Bearer {secret}"}
    if key:
        headers["Idempotency-Key"] = key
    client = client or Client(enforce_csrf_checks=True)
    return client.post(URL, json.dumps(body), content_type="application/json", headers=headers)


def test_feedback_becomes_a_submission(project: Project, made) -> None:
    response = send(made[1])
    assert response.status_code == 201
    submission = Submission.objects.get()
    assert response.json() == {"submission": submission.uid, "kind": "pair", "status": "accepted"}
    assert submission.task.project == project
    assert submission.comparison.better.text == "Because."


def test_a_conversation_and_votes_are_taken_too(made) -> None:
    body = {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Why?"},
        ],
        "answers": [{"text": "So.", "vote": "down", "model": "theirs"}],
    }
    assert send(made[1], body).json()["kind"] == "rating"


def test_sent_again_under_one_key_it_is_stored_once_and_answered_alike(made) -> None:
    replies = [send(made[1], key="event 7").json() for _ in range(3)]
    assert replies[0] == replies[1] == replies[2]
    assert Submission.objects.count() == 1
    assert send(made[1], {**BODY, "chosen": 0}, key="event 7").status_code == 409
    send(made[1], key="event 8")
    assert Submission.objects.count() == 2


def test_without_a_standing_token_nothing_is_taken(project: Project, made) -> None:
    token, secret = made
    refused = Client().post(URL, json.dumps(BODY), content_type="application/json")
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, "Bearer")
    assert send("rondo_wrong").status_code == 401
    assert send("é").status_code == 401
    project_token_revoke(token=token)
    assert send(secret).status_code == 401
    assert not Submission.objects.exists()


def test_a_signed_in_person_is_no_product(project: Project) -> None:
    client = Client()
    client.force_login(make_member(project, "dana", Membership.Role.MANAGER).user)
    response = client.post(URL, json.dumps(BODY), content_type="application/json")
    assert response.status_code == 401


def test_a_token_opens_nothing_but_feedback(project: Project, made) -> None:
    client = Client(headers={"Authorization": f"Bearer {made[1]}"})
    for path in ("/api/v1/projects/", f"/api/v1/projects/{project.uid}/datasets/"):
        assert client.get(path).status_code in {401, 403}
    assert client.post(f"/api/v1/projects/{project.uid}/next/").status_code in {401, 403}


def test_too_much_at_once_is_told_to_wait(made, monkeypatch) -> None:
    monkeypatch.setattr(ProjectTokenThrottle, "THROTTLE_RATES", {"feedback": "2/min"})
    assert [send(made[1]).status_code for _ in range(3)] == [201, 201, 429]
    response = send(made[1])
    assert 0 < int(response["Retry-After"]) <= 60
    assert Submission.objects.count() == 2


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"answers"}),
        ({**BODY, "messages": [{"role": "user", "content": "Why?"}]}, {"messages"}),
        ({**BODY, "answers": []}, {"answers"}),
        ({**BODY, "answers": [{"text": "a"}] * 10}, {"answers"}),
        ({**BODY, "answers": [{"text": "a", "html": "b"}]}, {"answers"}),
        ({**BODY, "chosen": 99}, {"chosen"}),
        ({**BODY, "user": "anna@example.org"}, {"user"}),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_field(made, body: dict, fields: set) -> None:
    response = send(made[1], body)
    assert response.status_code == 400
    assert set(response.json()["extra"]["fields"]) == fields
    assert not Candidate.objects.exists()


@pytest.mark.parametrize("text", ["\x00", "\ud800"])
def test_text_that_no_database_keeps_is_refused(made, text: str) -> None:
    assert send(made[1], {**BODY, "prompt": text}).status_code == 400
