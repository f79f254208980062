"""RELIABILITY S01, S02, S05, S06, S14, S15: every URL, every verb, every role, against one table.

tests/authorization.txt is the table: a line for each route and verb, a status for each role. What
is not in it must be refused to everybody; a new route fails here until it has its line.
The admin is walked too: only staff pass.
"""

import math
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from annotation.models import Membership
from tests import builders
from tests.world import Side, World, make_world

ROLES = ("anonymous", "annotator", "reviewer", "manager", "outsider", "staff")
VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE")
TABLE = Path(__file__).with_name("authorization.txt")
REFUSALS = {403, 404, 405}
OPEN_TO_ALL = {"sign_in", "sign_in_link", "healthz"}


class RollbackError(Exception):
    """Raised to undo what a request did."""


def routes(resolver: URLResolver | None = None, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield (name, pattern) of every route outside the admin."""
    for entry in (resolver or get_resolver()).url_patterns:
        pattern = above + str(entry.pattern)
        if isinstance(entry, URLResolver):
            if entry.namespace != "admin":
                yield from routes(entry, pattern)
        elif isinstance(entry, URLPattern):
            assert entry.name, f"the route {pattern} has no name"
            yield entry.name, pattern


def parameters(pattern: str) -> list[str]:
    return re.findall(r"<(?:\w+:)?(\w+)>", pattern)


def table_read() -> dict[tuple[str, str], list[set[int]]]:
    """(route, verb) → the statuses allowed to each role; "200/302" allows either."""
    table = {}
    for line in TABLE.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, verb, *statuses = line.split()
            assert len(statuses) == len(ROLES), line
            assert (name, verb) not in table, line
            table[name, verb] = [{int(one) for one in status.split("/")} for status in statuses]
    return table


def status_of(client: Client, verb: str, path: str, body: bytes = b"{}") -> int:
    """The status of a request, whose effects are undone, in the database and in the cookies."""
    status, cookies = 0, dict(client.cookies)
    try:
        with transaction.atomic():
            kind = "application/json" if path.startswith("/api/") else None
            if verb == "GET":
                status = client.get(path).status_code
            elif kind or verb != "POST":
                request = getattr(client, verb.lower())
                status = request(path, data=body, content_type="application/json").status_code
            else:
                status = client.post(path).status_code
            raise RollbackError
    except RollbackError:
        client.cookies.clear()
        client.cookies.update(cookies)
        return status


def clients_of(world: World) -> dict[str, Client]:
    clients = {}
    for role, user in world.people.items():
        clients[role] = Client(raise_request_exception=False)
        if user is not None:
            clients[role].force_login(user)
    return clients


def wrong_cells(world: World, *, only: str = "") -> tuple[list[str], int]:
    """The cells that are not as the table says, and how many were walked.

    `only` is what the names of the routes to walk begin with.
    """
    table, clients = table_read(), clients_of(world)
    values = {**world.a.uids(), "token": "0" * 43}
    wrong, cells, seen = [], 0, set()
    for name, pattern in routes():
        seen.add(name)
        if not name.startswith(only):
            continue
        names = parameters(pattern)
        path = reverse(name, kwargs={one: values[one] for one in names})
        for verb in VERBS:
            row = table.get((name, verb))
            for place, role in enumerate(ROLES):
                cells += 1
                status = status_of(clients[role], verb, path)
                allowed = REFUSALS | ({302, 401} if role == "anonymous" else set())
                if row is not None:
                    allowed = row[place]
                if status not in allowed:
                    wrong.append(f"{name} {verb} {role}: {status}, not {sorted(allowed)}")
    wrong += [f"{name} is in the table, not in the site" for name, _ in table if name not in seen]
    return wrong, cells


@pytest.fixture
def world(db) -> World:
    return make_world()


def test_every_cell_is_as_the_table_says(world: World) -> None:
    wrong, cells = wrong_cells(world)
    assert not wrong, "\n".join(wrong)
    assert cells > 500


@pytest.mark.urls("tests.config.planted_urls")
def test_a_planted_hole_is_found(world: World) -> None:
    wrong, _ = wrong_cells(world, only="planted_")
    assert any(line.startswith("planted_open GET anonymous: 200") for line in wrong)


def test_a_childs_uid_of_another_project_is_a_uid_that_does_not_exist(world: World) -> None:
    """S02: with A's parent in the path, B's child answers exactly as a missing one."""
    client = Client(raise_request_exception=False)
    client.force_login(world.a.manager.user)
    ours, theirs = world.a.uids(), world.b.uids()
    hub_is_not_by_project = {"number", "model_name", "name", "sha256"}
    tried = 0
    for name, pattern in routes():
        names = parameters(pattern)
        for child in [one for one in names if one.endswith("_uid")]:
            kwargs = {one: ours.get(one, "x") for one in names if one not in hub_is_not_by_project}
            if set(names) - set(kwargs):
                continue
            for verb in ("GET", "POST"):
                foreign = reverse(name, kwargs={**kwargs, child: theirs[child]})
                missing = reverse(name, kwargs={**kwargs, child: "f" * 32})
                answers = [
                    status_of(client, verb, foreign),
                    status_of(client, verb, missing),
                ]
                assert answers[0] == answers[1], (name, verb, child, answers)
                assert answers[0] in REFUSALS, (name, verb, child, answers)
                tried += 1
    assert tried >= 20


def body_and_headers(client: Client, path: str) -> tuple[bytes, dict[str, str]]:
    """What an answer says, without what differs from any answer to the next."""
    answer = client.get(path)
    body = re.sub(rb'nonce="[^"]*"|[A-Za-z0-9]{32,}', b"*", answer.content)
    headers = {name: re.sub(r"nonce-[^']+", "*", text) for name, text in answer.headers.items()}
    return body, headers


def rank_sum_p(one: list[float], other: list[float]) -> float:
    """Two-sided p of the Mann-Whitney U test, normal approximation, ties as they come."""
    order = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks = sum(place for place, (_, which) in enumerate(order, start=1) if which == 0)
    n, m = len(one), len(other)
    u = ranks - n * (n + 1) / 2
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))


def test_a_missing_and_a_forbidden_id_are_answered_alike_to_the_last_header(world: World) -> None:
    """S05: status, body and headers of 200 pairs, and no telling from the time it takes."""
    client = Client()
    client.force_login(world.a.manager.user)
    theirs = world.b.uids()
    pairs = [
        (name, parameter)
        for name, pattern in routes()
        for parameter in parameters(pattern)
        if len(parameters(pattern)) == 1 and parameter in {"project_uid", "dataset_uid"}
    ]
    assert len(pairs) >= 10
    for name, parameter in pairs:
        foreign = reverse(name, kwargs={parameter: theirs[parameter]})
        missing = reverse(name, kwargs={parameter: "f" * 32})
        assert body_and_headers(client, foreign) == body_and_headers(client, missing), name
    for _ in range(4):  # a busy machine may favour one side for a moment, and not four times
        # What one learns over a network is coarser than what this machine's clock can tell.
        times: dict[str, list[float]] = {theirs["project_uid"]: [], "f" * 32: []}
        for number in range(400):
            uid = list(times)[(number // 2 + number) % 2]  # each first as often as second
            began = time.perf_counter()
            client.get(f"/projects/{uid}/")
            times[uid].append(time.perf_counter() - began)
        theirs_s, missing_s = map(statistics.median, times.values())
        if rank_sum_p(*times.values()) > 0.01 or abs(theirs_s / missing_s - 1) < 0.05:
            return
    raise AssertionError(
        f"told by the time: medians {list(map(statistics.median, times.values()))}"
    )


def test_a_role_is_raised_by_nobody_but_a_manager_and_the_last_one_stays(world: World) -> None:
    """S06: twelve ways up, by page and by API, for oneself and for another."""
    project, held = world.a.project, Membership.objects.filter(project=world.a.project)
    before = dict(held.values_list("uid", "role"))
    base = f"/api/v1/projects/{project.uid}/members/"
    reviewer = held.get(role=Membership.Role.REVIEWER)
    tried = 0
    for role in ("annotator", "reviewer", "outsider"):
        user = world.people[role]
        client = Client()
        client.force_login(user)
        for member in (world.a.annotator, reviewer):
            body, kind = {"role": "manager"}, "application/json"
            assert client.patch(f"{base}{member.uid}/", body, kind).status_code == 404
            page = reverse("member_role", args=[project.uid, member.uid])
            assert client.post(page, {"role": "manager"}).status_code == 404
            tried += 2
        invited = {"username": "friend", "role": "manager"}
        assert client.post(base, invited, "application/json").status_code == 404
        client.post(reverse("password_change"), {"role": "manager", "is_staff": "1"})
        tried += 2
    manager = Client()
    manager.force_login(world.a.manager.user)
    own = f"{base}{world.a.manager.uid}/"
    assert manager.delete(own).status_code in {400, 409}
    demoted = manager.patch(own, {"role": "annotator"}, "application/json")
    assert demoted.status_code in {400, 409}
    raised = manager.patch(own, {"role": "superuser", "is_staff": True}, "application/json")
    assert raised.status_code == 400
    assert tried + 3 >= 12
    assert dict(held.values_list("uid", "role")) == before
    assert not User.objects.filter(username="friend").exists()
    assert not User.objects.filter(is_superuser=True).exists()


def admin_pages(world: World) -> dict[str, tuple[str, list[str]]]:
    """Label of each registered model → its changelist; and adding, its oldest row, its newest."""
    pages = {}
    for model, model_admin in site._registry.items():
        base = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        acts = [reverse(f"{base}_add")]
        rows = model_admin.model._default_manager.order_by("pk")
        acts += [
            reverse(f"{base}_change", args=[row.pk])
            for row in filter(None, dict.fromkeys((rows.first(), rows.last())))
        ]
        pages[model._meta.label] = (reverse(f"{base}_changelist"), acts)
    return pages


def test_only_staff_enter_the_admin(world: World) -> None:
    """Every page of every model: not one for whoever is not staff."""
    pages = admin_pages(world)
    assert len(pages) >= 15
    for role, client in clients_of(world).items():
        for path in ("/admin/", *(changelist for changelist, _ in pages.values())):
            status = status_of(client, "GET", path)
            assert (status == 200) <= (role == "staff"), (role, path, status)
        if role == "staff":
            assert status_of(client, "GET", "/admin/") == 200
            continue
        for _, acts in pages.values():
            for path in acts[:2]:
                assert status_of(client, "GET", path) in {302, 403, 404}, (role, path)


def test_staff_see_of_the_projects_they_do_not_manage_nothing(world: World) -> None:
    """Not in the changelists (their rows and filters), not by the page of a row.

    The hub is one for all staff; what belongs to a project is shown to its managers.
    """
    both = builders.make_user("erin", is_staff=True)
    Membership.objects.create(project=world.a.project, user=both, role=Membership.Role.MANAGER)
    Membership.objects.create(project=world.b.project, user=both, role=Membership.Role.ANNOTATOR)
    theirs = re.compile("Beta|bella|charlie|" + "|".join(names_of(world.b) - names_of(world.a)))
    of_a_manager, of_nobody = Client(), Client()
    of_a_manager.force_login(both)
    assert world.people["staff"] is not None
    of_nobody.force_login(world.people["staff"])
    shown = 0
    for label, (changelist, acts) in admin_pages(world).items():
        if label.startswith("modelhub."):
            continue
        assert of_nobody.get(changelist).status_code == 403, label
        assert of_nobody.get(acts[-1]).status_code in {302, 403, 404}, label
        for path in (changelist, *acts):
            answer = of_a_manager.get(path)
            if answer.status_code == 200:
                shown += 1
                found = theirs.search(answer.content.decode())
                assert found is None, (path, found)
    assert shown >= 20


def names_of(side: Side) -> set[str]:
    """The ids of what is a project's own."""
    hub = {
        "method",
        "version_uid",
        "model_uid",
        "model_name",
        "name",
        "run_uid",
        "number",
        "server_uid",
        "mixture_uid",
        "sha256",
    }
    return {value for name, value in side.uids().items() if name not in hub}


def test_unsafe_requests_without_a_token_change_nothing(world: World) -> None:
    """S15: every route that takes POST refuses a session's request without the CSRF token."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.force_login(world.a.manager.user)
    values = {**world.a.uids(), "token": "0" * 43}
    tried = 0
    for (name, verb), statuses in table_read().items():
        if verb == "GET" or name in OPEN_TO_ALL:
            continue
        (pattern,) = {pattern for one, pattern in routes() if one == name}
        path = reverse(name, kwargs={one: values[one] for one in parameters(pattern)})
        manager = statuses[ROLES.index("manager")]
        if manager <= {401, 404}:  # 401: a token is asked for, and a cookie counts for nothing
            continue
        for body_type in ("application/x-www-form-urlencoded", "text/plain", "application/json"):
            with transaction.atomic():
                response = client.generic(verb, path, data="{}", content_type=body_type)
            # The API refuses a body it does not read before it looks at who sends it.
            refusals = {403, 415} if path.startswith("/api/") else {403}
            assert response.status_code in refusals, (name, verb, body_type, response.status_code)
        tried += 1
    assert tried >= 10


def test_sign_in_and_sign_out_need_a_token_too(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    assert client.post("/sign-in/", {"username": "a", "password": "b"}).status_code == 403
    client.force_login(world.a.manager.user)
    assert client.post("/sign-out/").status_code == 403
    assert client.get("/").status_code == 200


def test_a_token_from_another_origin_is_refused(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.a.manager.user)
    page = client.get(reverse("project_new"))
    token = page.cookies["csrftoken"].value if "csrftoken" in page.cookies else ""
    for origin in ("https://evil.example", "null"):
        response = client.post(
            reverse("project_new"), {"csrfmiddlewaretoken": token}, HTTP_ORIGIN=origin
        )
        assert response.status_code == 403
