"""S33, S62: bodies, forms, queries and addresses that no database or parser likes, on every route.

Nothing that is sent is a fault of the server: every answer is below 500. Walked on the database at
hand; PostgreSQL refuses more (NUL, integers beyond 64 bits).
"""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import get_resolver, reverse
from rest_framework import serializers
from rest_framework.views import APIView

from annotation.models import Membership
from config import json_parser
from tests.test_authorization import RollbackError, parameters, routes, table_read
from tests.world import World, make_world

pytestmark = [pytest.mark.slow]
BODIES = {
    "empty": b"",
    "cut off": b"{",
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "NUL": b'{"x": "a\\u0000b"}',
    "lone surrogate": b'{"x": "\\ud800"}',
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "key twice": b'{"x": 1, "x": 2}',
    "1e999": b'{"x": 1e999}',
    "NaN": b'{"x": NaN}',
    "10^20": b'{"x": 100000000000000000000}',
    "5000 digits": b'{"x": ' + b"9" * 5000 + b"}",
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"x": "y"}'.encode("utf-16"),
    "not UTF-8": b'{"x": "\xff\xfe"}',
    "5 MB": b'{"x": "' + b"a" * (5 << 20) + b'"}',
}
KINDS = ("application/json", "application/json; charset=utf-7", "application/json; charset=none")
OTHERWISE = {"NUL", "not UTF-8"}  # sent under each charset
# What one field may hold that another field of the same type would not.
VALUES: list[Any] = [
    *("", "a\x00b", "\u202e", "x" * 100_000, "10" * 30, "\ud83d", -1, 10**20, 1e308, float("inf")),
    *(True, None, [[[]]], {"a": {"b": [1]}}, ["x"] * 100_000, {str(n): n for n in range(10_000)}),
]
TEXTS = ["", "a\x00b", "\udcff", "9" * 5000, str(10**20), "-1", "1e999", "NaN", "x" * 100_000]
TEXTS += ["\u202e\u2028", "[" * 5000, "0001-01-01T00:00"]
ALONE = {"9" * 5000, str(10**20), "1e999", "x" * 100_000}
ROUTE_LENGTHS = 4000


@pytest.fixture
def world(db) -> World:
    return make_world()


@pytest.fixture
def everybody(world: World) -> Client:
    """Somebody whom every route lets in: annotator, manager, staff and superuser in one."""
    user = world.a.annotator.user
    user.is_staff = user.is_superuser = True
    user.save()
    Membership.objects.filter(pk=world.a.annotator.pk).update(role=Membership.Role.MANAGER)
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def paths(world: World) -> Iterator[tuple[str, str, str]]:
    """(name, verb, path) of what the table of authorization lets in, sign-out left out."""
    patterns, values = dict(routes()), {**world.a.uids(), "token": "0" * 43}
    for name, verb in table_read():
        if name != "sign_out" and name in patterns:
            kwargs = {one: values[one] for one in parameters(patterns[name])}
            yield name, verb, reverse(name, kwargs=kwargs)


def sent(client: Client, verb: str, path: str, body: Any, kind: str) -> int:
    """The status of a request, whose effects are undone."""
    status, cookies = 0, dict(client.cookies)
    try:
        with transaction.atomic():
            answer = client.generic(verb, path, data=body, content_type=kind)
            status = answer.status_code
            if answer.streaming:
                b"".join(answer.streaming_content)
            raise RollbackError
    except RollbackError:
        client.cookies.clear()
        client.cookies.update(cookies)
        return status


def fault(status: int) -> bool:
    return status >= 500


def wrong_bodies(world: World, client: Client, only: str = "api_") -> tuple[list[str], int]:
    """What was sent to the routes of this name and answered wrongly, and how much was sent."""
    wrong, asked = [], 0
    for name, verb, path in paths(world):
        if verb == "GET" or not path.startswith("/api/") or not name.startswith(only):
            continue
        for what, body in BODIES.items():
            if what == "5 MB" and name not in {"api_submit", "api_prompts_import"}:
                continue
            for kind in KINDS if what in OTHERWISE else KINDS[:1]:
                status = sent(client, verb, path, body, kind)
                asked += 1
                unread = (name, verb) in NOTHING_ASKED
                if fault(status) or (what in REFUSED and status < 400 and not unread):
                    wrong.append(f"{name} {verb} {what} as {kind}: {status}")
    return wrong, asked


def test_no_body_is_a_fault_of_the_server(world: World, everybody: Client) -> None:
    wrong, asked = wrong_bodies(world, everybody)
    assert not wrong, "\n".join(wrong)
    assert asked > 400


REFUSED = {"cut off", "NUL", "lone surrogate", "deep", "key twice", "1e999", "NaN", "10^20"}
REFUSED |= {"5000 digits", "UTF-16", "not UTF-8", "5 MB"}
# These read no body, whatever it is.
NOTHING_ASKED = {("api_member", "DELETE"), ("api_renew", "POST")}


def input_of(name: str) -> type[serializers.Serializer[Any]] | None:
    """What an API route reads, if it says so."""
    for entry in _entries(get_resolver()):
        if entry.name == name:
            view = getattr(entry.callback, "cls", None) or getattr(
                entry.callback, "view_class", None
            )
            found = getattr(view, "InputSerializer", None) if issubclass(view, APIView) else None
            return found if isinstance(found, type) else None
    return None


def _entries(resolver: Any) -> Iterator[Any]:
    for entry in resolver.url_patterns:
        if hasattr(entry, "url_patterns"):
            yield from _entries(entry)
        else:
            yield entry


def plausible(field: serializers.Field[Any, Any, Any, Any]) -> Any:
    """A value that a field of this type would take."""
    if isinstance(field, serializers.ChoiceField):
        return next(iter(field.choices))
    if isinstance(field, serializers.ListSerializer | serializers.ListField):
        return []
    if isinstance(field, serializers.Serializer):
        return {name: plausible(one) for name, one in field.fields.items()}
    kinds: list[tuple[type[Any], Any]] = [
        *((serializers.BooleanField, False), (serializers.IntegerField, 1)),
        *((serializers.FloatField, 1.0), (serializers.DictField, {}), (serializers.JSONField, {})),
    ]
    return next((value for kind, value in kinds if isinstance(field, kind)), "x")


def test_no_value_of_a_field_is_a_fault_of_the_server(world: World, everybody: Client) -> None:
    """Every field of every input, with each hostile value, beside plausible others."""
    wrong, asked = [], 0
    for name, verb, path in paths(world):
        if verb == "GET" or not path.startswith("/api/"):
            continue
        told = input_of(name)
        if told is None:
            continue
        usual = {one: plausible(field) for one, field in told().fields.items()}
        for field in usual:
            for value in VALUES:
                body = json.dumps(usual | {field: value})
                status = sent(everybody, verb, path, body, "application/json")
                asked += 1
                if fault(status):
                    wrong.append(f"{name} {verb} {field} = {str(value)[:40]!r}: {status}")
    assert not wrong, "\n".join(wrong)
    assert asked > 500


def test_no_form_and_no_query_is_a_fault_of_the_server(world: World, everybody: Client) -> None:
    """Every field of every form of a page, and whatever its links and filters ask by."""
    wrong, asked = [], 0
    for name, verb, path in paths(world):
        if verb != "GET" or name in {"words", "healthz"}:
            continue
        page = everybody.get(path)
        text = "" if page.streaming else page.content.decode()
        main = text.partition("<main")[2]
        fields = set(re.findall(r'<(?:input|select|textarea)[^>]*\bname="([^"]+)"', main))
        queries = set(re.findall(r"[?&;]([a-z_]+)=", main)) | fields | {"q", "page", "cursor"}
        queries |= {"split", "status", "format", "layout", "file_format", "kind", "table", "after"}
        fields -= {"csrfmiddlewaretoken"}
        for value in TEXTS:
            # No longer than servers take: dozens of these are one address.
            query = "&".join(f"{one}={quoted(value[:5000])}" for one in sorted(queries))
            jobs = [("GET", f"{path}?{query}", "", "text/plain")]
            # All fields at once, and those values that no form refuses by itself one by one.
            forms = [dict.fromkeys(fields, value)] if fields else []
            if value in ALONE:
                forms += [dict.fromkeys(fields, "1") | {one: value} for one in sorted(fields)]
            for form in forms:
                body = "&".join(f"{quoted(key)}={quoted(held)}" for key, held in form.items())
                jobs.append(("POST", path, body, "application/x-www-form-urlencoded"))
            for job in jobs:
                status = sent(everybody, *job)
                asked += 1
                if fault(status):
                    wrong.append(f"{name} {job[0]} {job[1][:90]} {job[2][:60]}: {status}")
    assert not wrong, "\n".join(wrong[:40])
    assert asked > 700


@functools.cache
def quoted(text: str) -> str:
    """A value as a form sends it; a lone surrogate as the byte that it came from."""
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(f"%{byte:02X}" for byte in raw) if len(raw) < 6000 else raw.decode()


def test_no_form_that_is_none_is_a_fault_of_the_server(world: World, everybody: Client) -> None:
    wrong = []
    bodies = [
        b"",
        b"\xff",
        b"a=%FF&b=%00",
        b"=&=&&&",
        b"--x\r\n",
        b"a" * 100_000,
        b"&".join([b"a=1"] * 5000),
    ]
    kinds = ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=none")
    kinds += ("multipart/form-data", "multipart/form-data; boundary=x", "text/plain; charset=utf-7")
    for name, verb, path in paths(world):
        if verb == "POST" and not path.startswith("/api/"):
            for body in bodies:
                for kind in kinds if len(body) < 20 else kinds[:1]:
                    status = sent(everybody, verb, path, body, kind)
                    if fault(status):
                        wrong.append(f"{name} {body[:20]!r} as {kind}: {status}")
    assert not wrong, "\n".join(wrong[:40])


def test_no_address_is_a_fault_of_the_server(world: World, everybody: Client) -> None:
    """What stands for an id may be anything: there is nothing there."""
    wrong, asked = [], 0
    values = {**world.a.uids(), "token": "0" * 43}
    for name, pattern in routes():
        names = parameters(pattern)
        for one in names:
            for value in ("a\x00b", "x" * ROUTE_LENGTHS, "\u202e", "..", "'"):
                kwargs = {other: values[other] for other in names} | {one: value}
                for verb in ("GET", "POST", "DELETE"):
                    path = reverse(name, kwargs=kwargs)
                    status = sent(everybody, verb, path, b"", "application/json")
                    asked += 1
                    if fault(status):
                        wrong.append(f"{name} {verb} {one}={value[:20]!r}: {status}")
    assert not wrong, "\n".join(wrong[:40])
    assert asked > 500


def test_without_the_strict_parser_hostile_bodies_come_through(
    world: World, everybody: Client, monkeypatch
) -> None:
    """The mutant: JSON as Python reads it."""
    monkeypatch.setattr(
        json_parser.StrictJSONParser,
        "parse",
        lambda self, stream, media_type=None, parser_context=None: json.loads(stream.read()),
    )
    wrong, _ = wrong_bodies(world, everybody, only="api_submit")
    assert wrong
