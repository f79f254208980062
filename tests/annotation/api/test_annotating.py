"""The API of the annotator's page: one round trip a task, blind, once however often sent."""

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotation.models import (
    Assignment,
    Membership,
    Project,
    Ranking,
    Submission,
    SubmissionRevision,
    Task,
)
from annotation.selectors.payloads import assignment_payload
from annotation.services.projects import guideline_publish, membership_remove
from annotation.services.reviews import review_submit
from tests.builders import make_batch, make_member, make_project, make_ranking_task, make_version

pytestmark = pytest.mark.django_db


@pytest.fixture
def client_of(signed_in):
    return signed_in


@pytest.fixture
def ann(project: Project, client_of) -> Client:
    return client_of(make_member(project, "ann").user)


def post(client: Client, path: str, body: object = None, **headers: str):
    return client.post(
        f"/api/v1/{path}", data=json.dumps(body or {}), content_type="application/json", **headers
    )


def next_of(client: Client, project: Project) -> dict:
    response = post(client, f"projects/{project.uid}/next/")
    assert response.status_code == 200, response.content
    return response.json()


def tiers_of(page: dict) -> list[list[str]]:
    return [[one["uid"]] for one in page["candidates"]]


def submit(client: Client, page: dict, key: str = "", **body: object):
    headers = {"HTTP_IDEMPOTENCY_KEY": key} if key else {}
    return post(
        client,
        f"assignments/{page['assignment']['uid']}/submit/",
        {"tiers": tiers_of(page)} | body,
        **headers,
    )


def test_the_next_task_is_all_that_the_page_needs(project: Project, ann: Client) -> None:
    guideline_publish(project=project, text="Be **fair**.", author=None)
    task = make_ranking_task(project, texts=("One *two*.", "<b>x</b>", "a b c"))
    page = next_of(ann, project)
    assignment = Assignment.objects.get()
    assert page["assignment"]["uid"] == assignment.uid
    assert page["assignment"]["state"] == "live"
    assert page["assignment"]["draft"] is None
    assert page["task"] == {"uid": task.uid, "kind": "ranking", "is_sensitive": False}
    assert [one["letter"] for one in page["candidates"]] == ["A", "B", "C"]
    html = {one["uid"]: (one["html"], one["words"]) for one in page["candidates"]}
    uids = [one.candidate.uid for one in task.task_candidates.all()]
    assert html[uids[0]] == ("<p>One <em>two</em>.</p>\n", 2)
    assert "<b>" not in html[uids[1]][0]
    html = "<p>Be <strong>fair</strong>.</p>\n"
    assert page["guideline"] == {"number": 1, "html": html, "read": 0}
    assert page["progress"] == {"submitted_today": 0, "open": 0}
    assert page["prompt"]["messages"][0]["role"] == "user"


def test_nothing_to_do_is_204(project: Project, ann: Client) -> None:
    response = post(ann, f"projects/{project.uid}/next/")
    assert (response.status_code, response.content) == (204, b"")


def test_the_page_is_blind(project: Project, client_of) -> None:
    """Neither the model, its decoding nor the sampled order can be told from what is sent."""
    version = make_version("secret-model")
    orders = set()
    for n in range(12):
        make_ranking_task(
            project,
            texts=("first", "second", "third", "fourth"),
            batch=make_batch(project, version=version),
        )
        client = client_of(make_member(project, f"p{n}").user)
        page = next_of(client, project)
        sent = json.dumps(page)
        for told in ("secret-model", version.uid, "finish", "decoding", "temperature", "index"):
            assert told not in sent
        orders.add(tuple(one["html"] for one in page["candidates"]))
    assert len(orders) > 4


def test_a_submission_answers_with_the_next_task(project: Project, ann: Client) -> None:
    first, second = make_ranking_task(project), make_ranking_task(project)
    page = next_of(ann, project)
    response = submit(ann, page, rationale=" why ", active_s=3, unacceptable=tiers_of(page)[-1])
    assert response.status_code == 200, response.content
    reply = response.json()
    submission = Submission.objects.get()
    assert reply["submission"] == {"uid": submission.uid, "status": "accepted", "notice": ""}
    assert reply["next"]["task"]["uid"] == second.uid
    assert reply["next"]["progress"]["submitted_today"] == 1
    assert submission.task == first
    assert submission.ranking.tiers == tiers_of(page)
    assert (submission.rationale, submission.active_s) == (" why ", 3.0)
    last = submit(ann, reply["next"]).json()
    assert last["next"] is None


def test_the_same_key_again_changes_nothing_and_answers_alike(
    project: Project, ann: Client
) -> None:
    for _ in range(3):
        make_ranking_task(project)
    page = next_of(ann, project)
    first = submit(ann, page, key="k1")
    again = submit(ann, page, key="k1")
    assert first.json() == again.json()
    assert Submission.objects.count() == 1
    assert Assignment.objects.count() == 2
    other = submit(ann, page, key="k1", rationale="changed")
    assert other.status_code == 409
    assert not SubmissionRevision.objects.exists()


def test_a_key_is_its_users_own(project: Project, ann: Client, client_of) -> None:
    make_ranking_task(project, overlap=2)
    ben = client_of(make_member(project, "ben").user)
    for client in (ann, ben):
        assert submit(client, next_of(client, project), key="same").status_code == 200
    assert Submission.objects.count() == 2


def test_a_refused_submission_leaves_its_key_free(project: Project, ann: Client) -> None:
    make_ranking_task(project)
    page = next_of(ann, project)
    assert submit(ann, page, key="k", tiers=[tiers_of(page)[0]]).status_code == 400
    assert submit(ann, page, key="k").status_code == 200


def test_a_second_tab_is_told_that_its_ranking_was_put_beside(
    project: Project, ann: Client
) -> None:
    make_ranking_task(project)
    page = next_of(ann, project)
    submit(ann, page, key="tab-1")
    reply = submit(ann, page, key="tab-2", tiers=tiers_of(page)[::-1]).json()
    assert "Both are kept" in reply["submission"]["notice"]
    assert Ranking.objects.get().tiers == tiers_of(page)
    assert SubmissionRevision.objects.get().payload["tiers"] == tiers_of(page)[::-1]


def test_a_surplus_submission_is_told_so(project: Project, ann: Client) -> None:
    make_ranking_task(project)
    page = next_of(ann, project)
    Assignment.objects.update(state="expired")
    reply = submit(ann, page).json()
    assert reply["submission"]["status"] == "surplus"
    assert "kept" in reply["submission"]["notice"]


def test_a_draft_is_kept_and_comes_back(project: Project, ann: Client) -> None:
    make_ranking_task(project)
    page = next_of(ann, project)
    path = f"assignments/{page['assignment']['uid']}/draft/"
    reply = post(ann, path, {"draft": {"lanes": [["x"]]}, "sequence": 3}).json()
    assert reply["saved"] is True and reply["sequence"] == 3 and reply["state"] == "live"
    stale = post(ann, path, {"draft": {}, "sequence": 2}).json()
    assert stale["saved"] is False and "newer" in stale["notice"]
    again = next_of(ann, project)
    assert again["assignment"]["draft"] == {"lanes": [["x"]]}
    assert again["assignment"]["draft_sequence"] == 3


def test_skipping_answers_with_the_next_task(project: Project, ann: Client) -> None:
    make_ranking_task(project)
    second = make_ranking_task(project)
    page = next_of(ann, project)
    path = f"assignments/{page['assignment']['uid']}/skip/"
    reply = post(ann, path, {"reason": "unclear"}).json()
    assert reply["state"] == "skipped"
    assert reply["next"]["task"]["uid"] == second.uid
    assert post(ann, path, {"reason": ""}).status_code == 400


def test_renewing_says_until_when(project: Project, ann: Client) -> None:
    make_ranking_task(project)
    page = next_of(ann, project)
    reply = post(ann, f"assignments/{page['assignment']['uid']}/renew/").json()
    assert reply["state"] == "live"
    assert reply["lease_until"] > page["assignment"]["lease_until"]


HOSTILE = {
    "is_staff": True,
    "role": "manager",
    "project": "x",
    "status": "accepted",
    "created_by": 1,
    "annotator": 1,
    "source": "simulated",
    "is_simulated": True,
    "shown_order": [],
    "overlap": 99,
    "uid": "0" * 32,
    "id": 1,
    "state": "live",
    "lease_until": "2099-01-01T00:00:00Z",
    "fence": 1,
}


@pytest.mark.parametrize("field", HOSTILE)
@pytest.mark.parametrize("act", ["submit", "draft", "skip"])
def test_a_field_that_is_not_the_callers_to_set_is_refused(
    project: Project, ann: Client, act: str, field: str
) -> None:
    make_ranking_task(project)
    page = next_of(ann, project)
    body = {
        "submit": {"tiers": tiers_of(page)},
        "draft": {"draft": {}, "sequence": 1},
        "skip": {"reason": "x"},
    }[act]
    before = Assignment.objects.values().get()
    response = post(
        ann, f"assignments/{page['assignment']['uid']}/{act}/", body | {field: HOSTILE[field]}
    )
    assert response.status_code == 400
    assert response.json()["extra"]["fields"] == {field: ["Unknown field."]}
    assert Assignment.objects.values().get() == before
    assert not Submission.objects.exists()


@pytest.mark.parametrize("shape", ["text", "list", "number", "nested", "null"])
def test_candidates_of_another_project_change_nothing(
    project: Project, ann: Client, shape: str
) -> None:
    theirs = make_ranking_task(make_project("Other"))
    foreign = theirs.task_candidates.first().candidate
    make_ranking_task(project)
    page = next_of(ann, project)
    tiers = {
        "text": [*tiers_of(page), [foreign.uid]],
        "list": [*tiers_of(page)[:-1], [foreign.uid, foreign.uid]],
        "number": [*tiers_of(page), [foreign.pk]],
        "nested": [*tiers_of(page), [[foreign.uid]]],
        "null": [*tiers_of(page), None],
    }[shape]
    response = submit(ann, page, tiers=tiers)
    assert response.status_code == 400
    assert not Submission.objects.exists()
    assert Task.objects.get(pk=theirs.pk).slots_free == 1


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b'{"tiers": [["\\ud800"]]}',
        b'{"tiers": [["a\\u0000b"]]}',
        b'{"tiers": 1e999}',
        b'{"active_s": NaN}',
        b'{"tiers": [["a"]], "tiers": [["b"]]}',
        b"[" * 100_000,
        b'{"tiers": ' + b"9" * 5000 + b"}",
        '{"tiers": []}'.encode("utf-16"),
    ],
)
def test_hostile_json_is_a_400_on_every_route(project: Project, ann: Client, body: bytes) -> None:
    make_ranking_task(project)
    page = next_of(ann, project)
    for act in ("submit", "draft", "skip"):
        response = ann.post(
            f"/api/v1/assignments/{page['assignment']['uid']}/{act}/",
            data=body,
            content_type="application/json",
        )
        assert response.status_code == 400, (act, response.content)
    assert not Submission.objects.exists()


def test_what_is_another_persons_does_not_exist(project: Project, ann: Client, client_of) -> None:
    make_ranking_task(project)
    page = next_of(ann, project)
    bella: User = make_member(make_project("Other"), "bella", Membership.Role.MANAGER).user
    colleague = make_member(project, "dana", Membership.Role.MANAGER).user
    for user in (bella, colleague):
        client = client_of(user)
        answers = set()
        for uid in (page["assignment"]["uid"], "f" * 32):
            for act in ("submit", "draft", "skip", "renew"):
                response = post(client, f"assignments/{uid}/{act}/")
                answers.add((response.status_code, response.content))
        assert answers == {(404, b'{"message":"Not found.","extra":{}}')}
    assert post(client_of(bella), f"projects/{project.uid}/next/").status_code == 404


def test_somebody_who_left_is_outside_at_once(project: Project, client_of) -> None:
    make_ranking_task(project)
    make_member(project, "dana", Membership.Role.MANAGER)
    membership = make_member(project, "ann")
    client = client_of(membership.user)
    page = next_of(client, project)
    membership_remove(membership=membership)
    assert submit(client, page).status_code == 404
    assert post(client, f"projects/{project.uid}/next/").status_code == 404


def test_nobody_is_let_in_without_signing_in(project: Project) -> None:
    client = Client()
    for path in (f"projects/{project.uid}/next/", f"assignments/{'f' * 32}/submit/"):
        assert post(client, path).status_code == 401
        assert client.get(f"/api/v1/{path}").status_code == 401


def test_a_task_costs_one_request_and_few_queries(
    project: Project, ann: Client, django_assert_max_num_queries
) -> None:
    for _ in range(3):
        make_ranking_task(project)
    page = next_of(ann, project)
    with django_assert_max_num_queries(45):
        assert submit(ann, page, key="k").json()["next"]


def test_what_was_sent_back_comes_with_who_sent_it_back_and_why_until_it_is_sent_again(
    project: Project, ann: Client
) -> None:
    make_ranking_task(project)
    page = next_of(ann, project)
    assert page["sent_back"] is None
    submit(ann, page)
    rita = make_member(project, "rita", Membership.Role.REVIEWER)
    for reason in ("Read B again.", "And C."):
        submission = Submission.objects.get()
        review_submit(submission=submission, reviewer=rita, verdict="send_back", reason=reason)
        page = next_of(ann, project)
        assert page["sent_back"] == {"by": "rita", "reason": reason}
        submit(ann, page)
    # Sent again, it is no longer sent back: nor where it comes back another way.
    assignment = Assignment.objects.get()
    assert assignment_payload(assignment=assignment)["sent_back"] is None
