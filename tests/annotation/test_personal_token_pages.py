"""A person's page of tokens: made, renewed and revoked there, the secret shown once."""

import re

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from annotation.models import PersonalToken
from annotation.services.personal_tokens import personal_token_create

pytestmark = pytest.mark.django_db
ASKED = {"key": "k", "name": "nightly export", "access": "read", "days": "30"}


def secret_in(page: str) -> str | None:
    found = re.search(r'value="(rondo_me_[0-9a-f]{64})"', page)
    return found[1] if found else None


def test_the_secret_is_shown_once(signed_in, alice: User) -> None:
    client = signed_in(alice)
    address = reverse("personal_tokens")
    assert "No token yet" in client.get(address).content.decode()
    made = client.post(address, ASKED).content.decode()
    assert secret_in(made) and "nightly export" in made
    later = client.get(address).content.decode()
    assert secret_in(later) is None and "nightly export" in later
    token = PersonalToken.objects.get()
    assert (token.user, token.may_write) == (alice, False)
    assert f"<code>{token.token_key}…</code>" in later


@pytest.mark.parametrize(
    "change", [{"name": ""}, {"access": "all"}, {"days": "36500"}, {"name": "n" * 121}]
)
def test_a_refused_token_says_why(signed_in, alice: User, change: dict[str, str]) -> None:
    answer = signed_in(alice).post(reverse("personal_tokens"), {**ASKED, **change})
    assert answer.status_code == 400
    assert 'class="error"' in answer.content.decode()
    assert not PersonalToken.objects.exists()


def test_a_token_is_renewed_and_revoked_by_its_owner_alone(
    signed_in, alice: User, bob: User
) -> None:
    token = personal_token_create(user=alice, name="export", may_write=True, days=90).token
    renew = reverse("personal_token_renew", args=[token.uid])
    revoke = reverse("personal_token_revoke", args=[token.uid])
    for address in (renew, revoke):
        assert signed_in(bob).post(address).status_code == 404
    assert PersonalToken.objects.get() == token
    client = signed_in(alice)
    page = client.post(renew).content.decode()
    assert secret_in(page) and "goes on working for a day" in page
    assert PersonalToken.objects.count() == 2
    # Asked again it makes no further one, and the replaced one offers it no more.
    again = client.post(renew, follow=True).content.decode()
    assert "was renewed already" in again and PersonalToken.objects.count() == 2
    assert "replaced" in again and again.count(">Renew</button>") == 1
    # Opened anew, the address of a secret makes no further one.
    assert client.get(renew).url == reverse("personal_tokens")
    told = client.post(revoke, follow=True).content.decode()
    assert "export is let in no more." in told
    assert PersonalToken.objects.get(pk=token.pk).revoked_at is not None
    assert client.get(renew).url == reverse("personal_tokens")


def test_a_form_sent_twice_makes_one_token(signed_in, alice: User) -> None:
    client = signed_in(alice)
    first = client.post(reverse("personal_tokens"), ASKED).content.decode()
    again = client.post(reverse("personal_tokens"), ASKED, follow=True).content.decode()
    assert secret_in(first) and secret_in(again) is None
    assert "made already" in again
    assert PersonalToken.objects.count() == 1
    changed = client.post(reverse("personal_tokens"), {**ASKED, "name": "another"})
    assert changed.status_code == 400


def test_a_new_password_ends_the_tokens_and_says_so(signed_in, alice: User) -> None:
    alice.set_unusable_password()
    alice.save()
    client = signed_in(alice)
    client.post(reverse("personal_tokens"), ASKED)
    given = {"new_password1": "a-long-passphrase", "new_password2": "a-long-passphrase"}
    client.post(reverse("password_change"), given)
    assert "No token yet" in client.get(reverse("personal_tokens")).content.decode()
