"""The hub's API: for staff alone, strict about what it is given."""

import json

import pytest
from django.conf import settings
from django.test import Client

from modelhub import api
from modelhub.models import Run
from modelhub.services import runs
from tests import builders

HUB = "/api/v1/hub"


@pytest.fixture
def staff(eve, signed_in) -> Client:
    return signed_in(eve)


def send(client: Client, path: str, body: object = None, **headers: str):
    return client.post(
        f"{HUB}{path}",
        data=json.dumps({} if body is None else body),
        content_type="application/json",
        headers=headers,
    )


@pytest.fixture
def addresses(counting) -> list[tuple[str, str]]:
    run, version = counting(), builders.make_version("smol")
    return [
        ("get", "/models/"),
        ("get", f"/versions/{version.uid}/"),
        ("post", "/imports/"),
        ("get", "/runs/"),
        ("get", f"/runs/{run.uid}/"),
        ("get", f"/runs/{run.uid}/metrics/"),
        ("post", f"/runs/{run.uid}/cancel/"),
        ("post", f"/runs/{run.uid}/retry/"),
    ]


def test_the_api_does_not_exist_for_members(addresses, alice, bob, dana, charlie, signed_in):
    for user in (alice, bob, dana, charlie):
        client = signed_in(user)
        for method, path in addresses:
            response = send(client, path) if method == "post" else client.get(f"{HUB}{path}")
            assert response.status_code == 404, (user, path)
            assert response.json() == {"message": "Not found.", "extra": {}}
    assert Run.objects.get().status == Run.Status.QUEUED


def test_a_stranger_is_refused(addresses, client):
    for method, path in addresses:
        response = send(client, path) if method == "post" else client.get(f"{HUB}{path}")
        assert response.status_code in (302, 401, 403), path
    assert Run.objects.get().status == Run.Status.QUEUED


def test_a_post_needs_its_token(addresses, eve):
    client = Client(enforce_csrf_checks=True)
    client.force_login(eve)
    for method, path in addresses:
        if method == "post":
            assert send(client, path).status_code == 403
    assert Run.objects.get().status == Run.Status.QUEUED


def test_a_run_is_read_cancelled_and_retried(staff, counting):
    run = counting(seed=4)
    found = staff.get(f"{HUB}/runs/{run.uid}/").json()
    assert (found["status"], found["config"]["seed"]) == ("queued", 4)
    assert found["inputs"] == found["outputs"] == []
    assert "id" not in found
    assert send(staff, f"/runs/{run.uid}/cancel/").json()["status"] == "cancelled"
    assert send(staff, f"/runs/{run.uid}/retry/").json()["status"] == "queued"
    runs.run_claim(run_id=run.pk, owner="here")
    assert send(staff, f"/runs/{run.uid}/cancel/").json()["is_stopping"] is True


def test_a_success_is_not_cancelled(staff, counting):
    run = counting()
    Run.objects.filter(pk=run.pk).update(status="succeeded", result={})
    response = send(staff, f"/runs/{run.uid}/cancel/")
    assert response.status_code == 409
    assert response.json()["extra"] == {"status": "succeeded"}


@pytest.mark.parametrize(
    "body",
    [
        {"status": "succeeded"},
        {"fence": 9},
        {"attempts_left": 99},
        {"requested_by": 1},
        {"uid": "0" * 32},
        [],
        "cancel",
        17,
    ],
)
def test_a_field_that_is_not_asked_for_changes_nothing(staff, counting, body):
    run = counting()
    before = Run.objects.values().get(pk=run.pk)
    for act in ("cancel", "retry"):
        assert send(staff, f"/runs/{run.uid}/{act}/", body).status_code == 400
    assert Run.objects.values().get(pk=run.pk) == before


def test_runs_are_paged_and_filtered(staff, counting):
    made = [counting() for _ in range(5)]
    runs.run_cancel(run=made[0], actor=None)
    first = staff.get(f"{HUB}/runs/?page_size=2").json()
    assert [run["uid"] for run in first["results"]] == [made[4].uid, made[3].uid]
    second = staff.get(first["next"]).json()
    assert [run["uid"] for run in second["results"]] == [made[2].uid, made[1].uid]
    cancelled = staff.get(f"{HUB}/runs/?status=cancelled").json()["results"]
    assert [run["uid"] for run in cancelled] == [made[0].uid]


@pytest.mark.parametrize(
    "query", ["page_size=1000000000", "page_size=x", "status=nope", "owner=me", "page_size=0"]
)
def test_a_strange_query_is_refused(staff, db, query):
    assert staff.get(f"{HUB}/runs/?{query}").status_code == 400


def test_a_strange_cursor_is_refused(staff, db):
    assert staff.get(f"{HUB}/runs/?cursor=%00").status_code in (400, 404)
    assert staff.get(f"{HUB}/runs/?cursor=abc").status_code in (400, 404)


def test_models_and_versions_are_read(staff, db):
    version = builders.make_version("smol")
    (model,) = staff.get(f"{HUB}/models/").json()["results"]
    assert (model["name"], model["versions"][0]["uid"]) == ("smol", version.uid)
    found = staff.get(f"{HUB}/versions/{version.uid}/").json()
    assert (found["model"], found["number"], found["parent"]) == ("smol", 1, None)
    assert staff.get(f"{HUB}/versions/{'0' * 32}/").status_code == 404


@pytest.fixture
def body() -> dict[str, str]:
    folder = settings.IMPORT_ROOTS[0] / "smol"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return {"source": "directory", "location": "smol", "model": "smol"}


def test_an_import_with_a_key_is_queued_once(staff, body):
    replies = [send(staff, "/imports/", body, idempotency_key="k1") for _ in range(3)]
    assert {reply.status_code for reply in replies} == {202}
    assert {reply.json()["run"] for reply in replies} == {Run.objects.get().uid}
    other = send(staff, "/imports/", {**body, "model": "other"}, idempotency_key="k1")
    assert other.status_code == 409
    send(staff, "/imports/", body)
    assert Run.objects.count() == 2


@pytest.mark.parametrize(
    "change",
    [
        {"location": "/etc"},
        {"location": "../artifacts"},
        {"location": ["smol"]},
        {"location": "smol\x00"},
        {"location": ""},
        *(
            {"location": location}
            for location in (
                "/",
                "/etc",
                "/proc/self/environ",
                "file:///etc/passwd",
                "~",
                "../artifacts",
                "smol/../../artifacts",
            )
        ),
        {"source": "s3"},
        {"model": "../x"},
        {"role": "critic"},
        {"requested_by": "dana"},
        {"trust_remote_code": True},
    ],
)
def test_a_refused_import_queues_nothing(staff, body, change):
    response = send(staff, "/imports/", {**body, **change})
    assert response.status_code == 400
    assert response.json()["message"]
    assert not Run.objects.exists()


def test_every_field_that_goes_out_is_named(db):
    """S13: no serializer gives a model's fields wholesale."""
    for name, value in vars(api).items():
        assert not hasattr(getattr(value, "Meta", None), "fields"), name
