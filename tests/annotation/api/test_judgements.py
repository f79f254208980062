"""Each kind over HTTP: sent, taken back, sent again; and what is no judgement of it."""

import json
from typing import Any

import pytest
from django.test import Client

from annotation.models import Assignment, Membership, Project, Submission
from annotation.selectors import judgement_of
from tests.annotation.services.test_submissions import JUDGEMENTS
from tests.builders import make_member, make_task

pytestmark = pytest.mark.django_db


@pytest.fixture
def member(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def client(member: Membership, signed_in: Any) -> Client:
    return signed_in(member.user)


def post(client: Client, path: str, body: dict[str, Any]) -> Any:
    return client.post(f"/api/v1/{path}", data=json.dumps(body), content_type="application/json")


def handed(client: Client, project: Project, kind: str) -> dict[str, Any]:
    make_task(project, kind)
    page: dict[str, Any] = post(client, f"projects/{project.uid}/next/", {}).json()
    assert page["task"]["kind"] == kind
    return page


@pytest.mark.parametrize("kind", JUDGEMENTS)
def test_sent_taken_back_and_sent_again(project: Project, client: Client, kind: str) -> None:
    page = handed(client, project, kind)
    first, second = JUDGEMENTS[kind]([one["uid"] for one in page["candidates"]])
    path = f"assignments/{page['assignment']['uid']}"
    sent = post(client, f"{path}/submit/", {**first, "rationale": "So.", "active_s": 2.5})
    assert sent.status_code == 200, sent.content
    uid = sent.json()["submission"]["uid"]
    back = post(client, f"{path}/undo/", {})
    assert back.status_code == 200
    assert back.json()["assignment"]["state"] == "live"
    assert back.json()["assignment"]["draft"] == {**first, "rationale": "So."}
    assert back.json()["form"]["rationale"] == "optional"
    again = post(client, f"{path}/submit/", second)
    assert again.json()["submission"] == {"uid": uid, "status": "accepted", "notice": ""}
    assert judgement_of(Submission.objects.get()) == second
    Assignment.objects.update(ended_at="2026-01-01T00:00:00Z")
    assert post(client, f"{path}/undo/", {}).status_code == 409


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("pair", {"better": None, "degree": True}, "degree"),
    ("pair", {"better": None, "degree": "0"}, "degree"),
    ("pair", {"better": None, "degree": 0.0}, "degree"),
    ("pair", {"degree": 0}, "better"),
    ("pair", {"better": None, "degree": 0, "tiers": []}, "tiers"),
    ("rating", {"ratings": []}, "ratings"),
    ("rating", {"ratings": {"a": {"overall": 3.5}}}, "ratings"),
    ("rating", {"ratings": {"a": {"overall": 3, "stars": 5}}}, "ratings"),
    ("edit", {"original": "a", "text": ["b"]}, "text"),
    ("edit", {"original": "a", "text": "b\x00"}, ""),  # the parser refuses the whole body
    ("edit", {"original": "a", "text": "b\ud800"}, ""),
    ("demonstration", {"text": "", "started_from": None}, "text"),
    ("demonstration", {"text": "a", "turns": [{"user": "b"}]}, "turns"),
    ("dialogue", {"turns": []}, "turns"),
    ("dialogue", {"turns": [{"user": "a", "candidates": ["b"], "chosen": "b"}]}, "turns"),
    ("ranking", {"text": "a"}, "text"),
]


@pytest.mark.parametrize(("kind", "body", "field"), REFUSED)
def test_what_is_no_judgement_of_a_kind_is_refused_by_field(
    project: Project, client: Client, kind: str, body: dict[str, Any], field: str
) -> None:
    page = handed(client, project, kind)
    response = post(client, f"assignments/{page['assignment']['uid']}/submit/", body)
    assert response.status_code == 400
    if field:
        assert field in response.json()["extra"]["fields"]
    assert not Submission.objects.exists()
