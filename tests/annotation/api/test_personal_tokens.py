"""The API by a token: as its owner, without a cookie, and no more than the token may."""

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotation.models import Membership
from annotation.services.personal_tokens import personal_token_create
from annotation.services.tokens import project_token_create
from tests.builders import make_project

pytestmark = pytest.mark.django_db
PROJECTS = "/api/v1/projects/"


def client_of(user: User, *, may_write: bool = False) -> Client:
    made = personal_token_create(user=user, name="script", may_write=may_write, days=30)
    # As a real server: a request by a token needs no CSRF token, for it brings no cookie.
    return Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {made.secret}"})


def test_a_token_reads_as_its_owner(dana: User, eve: User) -> None:
    project = make_project()
    Membership.objects.get_or_create(
        project=project, user=dana, defaults={"role": Membership.Role.MANAGER}
    )
    shown = client_of(dana).get(PROJECTS).json()
    assert project.uid in {one["uid"] for one in shown}
    assert client_of(dana).get("/api/v1/hub/runs/").status_code == 404
    assert client_of(eve).get("/api/v1/hub/runs/").status_code == 200
    other = make_project()
    assert client_of(dana).get(f"{PROJECTS}{other.uid}/members/").status_code == 404


def test_a_token_that_reads_writes_nothing(dana: User) -> None:
    project = make_project()
    Membership.objects.create(project=project, user=dana, role=Membership.Role.MANAGER)
    path, body = (
        f"{PROJECTS}{project.uid}/preview/",
        json.dumps({"text": "**so**"}),
    )  # a write by its verb alone
    refused = client_of(dana).post(path, body, content_type="application/json")
    assert refused.status_code == 403
    assert "may only read" in refused.json()["message"]
    done = client_of(dana, may_write=True).post(path, body, content_type="application/json")
    assert done.status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        "Bearer rondo_me_" + "0" * 64,
        "Bearer two words",
        "Bearer rondo_me_\x00" + "0" * 63,
        "Bearer \xff\xfe",
        "Bearer " + "n" * 5000,
    ],
)
def test_what_is_no_token_is_nobody(header: str) -> None:
    answer = Client().get(PROJECTS, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer.json()["message"]


def test_a_token_counts_in_its_header_alone(dana: User) -> None:
    made = personal_token_create(user=dana, name="script", may_write=True, days=30)
    assert Client().get(PROJECTS, {"token": made.secret}).status_code == 401
    assert Client().get(PROJECTS, {"Authorization": made.secret}).status_code == 401


def test_a_token_opens_no_page(dana: User) -> None:
    assert client_of(dana).get("/tokens/").status_code == 302


def test_a_products_token_is_nobodys(dana: User) -> None:
    project = make_project()
    _, secret = project_token_create(project=project, name="a product")
    answer = Client().get(PROJECTS, headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 401


def test_a_token_goes_before_a_session_and_a_bad_one_is_not_made_good_by_it(
    dana: User, eve: User, signed_in
) -> None:
    made = personal_token_create(user=eve, name="script", may_write=False, days=30)
    client = signed_in(dana)
    assert client.get("/api/v1/hub/runs/").status_code == 404
    with_token = {"Authorization": f"Bearer {made.secret}"}
    assert client.get("/api/v1/hub/runs/", headers=with_token).status_code == 200
    bad = {"Authorization": f"Bearer {made.secret[:-1]}"}
    assert client.get(PROJECTS, headers=bad).status_code == 401


def test_a_person_sends_no_products_feedback(dana: User) -> None:
    client = client_of(dana, may_write=True)
    answer = client.post("/api/v1/feedback", "{}", content_type="application/json")
    assert answer.status_code == 401
