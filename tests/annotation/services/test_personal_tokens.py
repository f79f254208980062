"""Tokens of a person: shown once, ended in time, renewed without a gap."""

from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from annotation.models import PersonalToken
from annotation.selectors.personal_tokens import personal_tokens_of
from annotation.services.personal_tokens import (
    MAX_TOKENS,
    MadeToken,
    personal_token_create,
    personal_token_renew,
    personal_token_revoke,
)
from modelhub.errors import ApplicationError, ConflictError
from tests.builders import make_user

pytestmark = pytest.mark.django_db
PROJECTS = "/api/v1/projects/"


@pytest.fixture
def ann() -> User:
    return make_user("ann")


def make(
    ann: User, name: str = "nightly export", *, days: int = 30, may_write: bool = False
) -> MadeToken:
    return personal_token_create(user=ann, name=name, may_write=may_write, days=days)


def lets_in(made: MadeToken) -> bool:
    answer = Client().get(PROJECTS, headers={"Authorization": f"Bearer {made.secret}"})
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


def test_the_database_holds_a_digest_and_a_beginning(ann: User) -> None:
    made = make(ann)
    assert made.secret.startswith("rondo_me_") and len(made.secret) == len("rondo_me_") + 64
    stored = PersonalToken.objects.values().get()
    assert made.secret not in str(stored)
    assert made.secret.startswith(stored["token_key"]) and len(stored["token_key"]) == 15


def test_a_token_ends_in_time(ann: User) -> None:
    made = make(ann, days=30)
    with time_machine.travel(timezone.now() + timedelta(days=29, hours=23)):
        assert lets_in(made)
    with time_machine.travel(timezone.now() + timedelta(days=30, seconds=1)):
        assert not lets_in(made)


def test_a_revoked_token_ends_at_once(ann: User) -> None:
    made, other = make(ann), make(ann, "another script")
    personal_token_revoke(token=made.token)
    revoked_at = PersonalToken.objects.get(pk=made.token.pk).revoked_at
    personal_token_revoke(token=made.token)
    assert not lets_in(made) and lets_in(other)
    # That there was one, and until when, is kept.
    assert PersonalToken.objects.get(pk=made.token.pk).revoked_at == revoked_at


def test_a_renewed_token_works_beside_the_new_one_for_a_day(ann: User) -> None:
    made = make(ann, days=90, may_write=True)
    new = personal_token_renew(token=made.token)
    assert (new.token.name, new.token.may_write) == ("nightly export", True)
    assert abs(new.token.expiry - timezone.now() - timedelta(days=90)) < timedelta(minutes=1)
    assert lets_in(made) and lets_in(new)
    with time_machine.travel(timezone.now() + timedelta(hours=24, minutes=1)):
        assert not lets_in(made)
        assert lets_in(new)


def test_renewing_lengthens_no_token(ann: User) -> None:
    made = make(ann, days=30)
    with time_machine.travel(timezone.now() + timedelta(days=29, hours=20)):
        new = personal_token_renew(token=made.token)
    assert PersonalToken.objects.get(pk=made.token.pk).expiry == made.token.expiry
    assert new.token.expiry - made.token.expiry > timedelta(days=29)


def test_a_token_is_renewed_once(ann: User) -> None:
    """Again, it would be one more for nothing; what has ended or was revoked makes no new one."""
    made = make(ann, days=365)
    new = personal_token_renew(token=made.token)
    made.token.refresh_from_db()
    with pytest.raises(ConflictError, match="renewed already"):
        personal_token_renew(token=made.token)
    later = personal_token_renew(token=new.token)
    assert abs(later.token.expiry - timezone.now() - timedelta(days=365)) < timedelta(minutes=1)
    personal_token_revoke(token=later.token)
    with pytest.raises(ConflictError):
        personal_token_renew(token=later.token)
    assert PersonalToken.objects.count() == 3


def test_many_renewed_tokens_stay_within_what_a_person_may_have(ann: User) -> None:
    made = [make(ann, f"script {number}") for number in range(MAX_TOKENS)]
    for one in made:
        personal_token_renew(token=one.token)
    assert personal_tokens_of(user=ann).filter(replaced_at=None).count() == MAX_TOKENS
    with pytest.raises(ApplicationError, match="Revoke one"):
        make(ann, "one more")


def test_a_new_password_ends_what_was_made_under_the_old_one(ann: User) -> None:
    """Whoever opened another's one-time link made it, say."""
    made = make(ann, days=365, may_write=True)
    assert lets_in(made)
    ann.set_password("a-long-passphrase")
    ann.save()
    assert not lets_in(made)
    assert not personal_tokens_of(user=ann).exists()
    with pytest.raises(ConflictError):
        personal_token_renew(token=made.token)
    assert lets_in(make(ann))


def test_it_is_told_nowhere_by_accident(ann: User) -> None:
    made = make(ann)
    assert made.secret not in repr(made)


def test_nobody_is_let_in_who_left(ann: User) -> None:
    made = make(ann)
    made.token.user.is_active = False
    made.token.user.save()
    assert not lets_in(made)


def test_a_person_has_so_many_and_no_more(ann: User) -> None:
    for number in range(MAX_TOKENS):
        make(ann, f"script {number}")
    with pytest.raises(ApplicationError, match="Revoke one"):
        make(ann, "one more")
    assert PersonalToken.objects.count() == MAX_TOKENS
    with time_machine.travel(timezone.now() + timedelta(days=31)):
        make(ann, "when they have ended")


@pytest.mark.parametrize(
    ("given", "field"),
    [({"name": "  "}, "name"), ({"name": "n" * 121}, "name"), ({"days": 36_500}, "days")],
)
def test_what_is_no_token_is_refused(ann: User, given: dict[str, object], field: str) -> None:
    with pytest.raises(ApplicationError) as refused:
        make(ann, **given)  # type: ignore[arg-type]
    assert refused.value.extra["field"] == field
    assert not PersonalToken.objects.exists()


def test_that_it_was_used_is_noted_once_a_minute(ann: User) -> None:
    made = make(ann)
    began = timezone.now()
    assert lets_in(made)
    used = PersonalToken.objects.get().used_at
    assert used is not None and used >= began
    assert lets_in(made)
    assert PersonalToken.objects.get().used_at == used
    with time_machine.travel(began + timedelta(minutes=2)):
        assert lets_in(made)
    assert PersonalToken.objects.get().used_at > used
