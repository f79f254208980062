"""One-time links: once, in time, for somebody who is still there."""

from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone

from annotation.models import SignInLink
from annotation.services.sign_in import sign_in_link_create, sign_in_link_use
from tests.builders import make_user

pytestmark = pytest.mark.django_db


def test_a_link_signs_in_once() -> None:
    ann = make_user("ann")
    token = sign_in_link_create(user=ann)
    assert sign_in_link_use(token=token) == ann
    assert sign_in_link_use(token=token) is None


def test_the_database_holds_no_token() -> None:
    token = sign_in_link_create(user=make_user("ann"))
    assert len(token) >= 43
    stored = SignInLink.objects.values().get()
    assert token not in str(stored)


def test_a_link_lapses(settings) -> None:
    token = sign_in_link_create(user=make_user("ann"))
    late = timezone.now() + timedelta(seconds=settings.SIGN_IN_LINK_LIFETIME_S + 1)
    with time_machine.travel(late):
        assert sign_in_link_use(token=token) is None


def test_a_new_link_ends_the_earlier_ones_of_the_same_person() -> None:
    ann, ben = make_user("ann"), make_user("ben")
    old, other = sign_in_link_create(user=ann), sign_in_link_create(user=ben)
    new = sign_in_link_create(user=ann)
    assert sign_in_link_use(token=old) is None
    assert sign_in_link_use(token=new) == ann
    assert sign_in_link_use(token=other) == ben


def test_somebody_who_is_not_active_is_not_signed_in() -> None:
    ann = make_user("ann")
    token = sign_in_link_create(user=ann)
    ann.is_active = False
    ann.save()
    assert sign_in_link_use(token=token) is None


@pytest.mark.parametrize("token", ["", "x", "\x00", "\ud800", "é" * 10_000])
def test_a_token_that_is_none_is_none(token: str) -> None:
    assert sign_in_link_use(token=token) is None
