"""S16: a session ends by itself, and nothing of it can be used again."""

import time

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from annotation.services.sign_in import sign_in_link_create

HOUR_S = 3600


def aged(client: Client, **hours_ago: float) -> None:
    """As if the session had begun, or had last been used, so long ago."""
    session = client.session
    for name, hours in hours_ago.items():
        session[name] = int(time.time() - hours * HOUR_S)
    session.save()


def is_in(client: Client) -> bool:
    return client.get(reverse("home")).status_code == 200


def test_twelve_hours_without_anything_end_a_session(alice: User, signed_in) -> None:
    client = signed_in(alice)
    assert is_in(client)
    aged(client, seen=11.9)
    assert is_in(client)
    aged(client, seen=12.1)
    key = client.cookies["sessionid"].value
    assert not is_in(client)
    assert not Session.objects.filter(session_key=key).exists()
    again = Client()
    again.cookies["sessionid"] = key
    assert not is_in(again)


def test_a_session_in_use_ends_after_seven_days(alice: User, signed_in) -> None:
    client = signed_in(alice)
    assert is_in(client)
    aged(client, began=7 * 24 - 0.1, seen=0.5)
    assert is_in(client)  # and being used does not make it younger
    aged(client, began=7 * 24 + 0.1, seen=0.1)
    assert not is_in(client)


def test_a_page_that_asks_by_itself_keeps_nobody_signed_in(alice: User, signed_in) -> None:
    client = signed_in(alice)
    assert is_in(client)
    aged(client, seen=11)
    before = client.session["seen"]
    unattended = client.get(reverse("home"), headers={"X-Unattended": "1"})
    assert unattended.status_code == 200
    assert client.session["seen"] == before
    aged(client, seen=12.1)
    assert client.get(reverse("home"), headers={"X-Unattended": "1"}).status_code != 200
    assert not is_in(client)


def test_what_is_used_often_is_written_seldom(alice: User, signed_in) -> None:
    client = signed_in(alice)
    assert is_in(client)
    before = Session.objects.get().session_data
    assert is_in(client)
    assert Session.objects.get().session_data == before
    aged(client, seen=1)
    assert is_in(client)
    assert client.session["seen"] > time.time() - 60


def test_a_sign_in_begins_a_new_session_that_scripts_and_other_sites_do_not_get(
    alice: User,
) -> None:
    client = Client()
    client.cookies["sessionid"] = "chosenbysomebodyelse"
    client.post(reverse("sign_in"), {"username": "alice", "password": "a-long-passphrase"})
    cookie = client.cookies["sessionid"]
    assert cookie.value != "chosenbysomebodyelse"
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert not Session.objects.filter(session_key="chosenbysomebodyelse").exists()
    assert time.time() - client.session["began"] < 60
    assert client.session["seen"] == client.session["began"]


def test_a_link_begins_a_session_that_ends_too(alice: User) -> None:
    client = Client()
    client.post(reverse("sign_in_link", args=[sign_in_link_create(user=alice)]))
    assert time.time() - client.session["began"] < 60
    aged(client, seen=12.1)
    assert not is_in(client)


@pytest.mark.parametrize(
    "watched",
    [
        test_twelve_hours_without_anything_end_a_session,
        test_a_session_in_use_ends_after_seven_days,
    ],
)
def test_without_its_middleware_a_session_goes_on(
    watched, alice: User, signed_in, monkeypatch
) -> None:
    """The mutant: Django's own expiry alone."""
    name = "config.session_lifetime.SessionLifetimeMiddleware"
    monkeypatch.setattr(settings, "MIDDLEWARE", [m for m in settings.MIDDLEWARE if m != name])
    with pytest.raises(AssertionError):
        watched(alice, signed_in)
