"""Who a request is from: the session and the account, each read by one compiled statement."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.builders import make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def signed_in() -> tuple[Client, User]:
    client, user = Client(HTTP_HOST="localhost"), make_user("dora")
    client.force_login(user, backend="config.backends.PersonBackend")
    return client, user


def lets_in(client: Client) -> bool:
    return client.get(reverse("api_projects")).status_code == 200


def test_a_session_lets_its_person_in(signed_in: tuple[Client, User]) -> None:
    assert lets_in(signed_in[0])
    assert not lets_in(Client(HTTP_HOST="localhost"))


def test_a_session_that_has_run_out_lets_nobody_in(signed_in: tuple[Client, User]) -> None:
    client, _ = signed_in
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert not lets_in(client)


def test_a_session_that_was_ended_elsewhere_lets_nobody_in(signed_in: tuple[Client, User]) -> None:
    client, _ = signed_in
    Session.objects.all().delete()
    assert not lets_in(client)


def test_an_account_that_was_closed_is_out_at_once(signed_in: tuple[Client, User]) -> None:
    client, user = signed_in
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert not lets_in(client)


def test_a_new_password_ends_the_sessions_of_the_old_one(signed_in: tuple[Client, User]) -> None:
    client, user = signed_in
    user.set_password("another one, and long")
    user.save()
    assert not lets_in(client)


def test_a_cookie_with_a_nul_in_it_is_a_stranger_s_and_asks_no_database(
    django_assert_num_queries,
) -> None:
    client = Client(HTTP_HOST="localhost")
    client.cookies["sessionid"] = "abcdefgh\x00ijk"
    with django_assert_num_queries(0):
        assert not lets_in(client)
