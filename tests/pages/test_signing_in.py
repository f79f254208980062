"""By password, by a link that works once, and out again."""

from urllib.parse import urljoin, urlsplit

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotation.models import SignInLink
from annotation.services.sign_in import sign_in_link_create

PASSWORD = "a-long-passphrase"


def sign_in(client: Client, name: str, password: str = PASSWORD, after: str = ""):
    return client.post(reverse("sign_in"), {"username": name, "password": password, "next": after})


def test_whoever_is_not_signed_in_is_sent_to_the_door_and_back(alice, project) -> None:
    client = Client()
    wanted = reverse("project_detail", args=[project.uid])
    answer = client.get(wanted)
    assert answer.status_code == 302
    assert answer.url == f"{reverse('sign_in')}?next={wanted}"
    assert sign_in(client, "alice", after=wanted).url == wanted
    assert client.get(wanted).status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example",
        "https:evil.example",
        "http:///evil.example",
        "\\evil.example",
        "\\\\evil.example",
        "/\\evil.example",
        "/%09/evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "///evil.example",
        "/\r\nLocation: https://evil.example",
    ],
)
def test_after_signing_in_nobody_is_sent_elsewhere(alice, target) -> None:
    answer = sign_in(Client(), "alice", after=target)
    assert answer.status_code == 302
    landing = urlsplit(urljoin("http://testserver/sign-in/", answer.url.replace("\\", "/")))
    assert (landing.scheme, landing.netloc) == ("http", "testserver")
    assert "\n" not in answer["Location"]


def test_a_wrong_password_and_an_unknown_name_are_answered_alike(alice) -> None:
    answers = [sign_in(Client(), name, "wrong").content.decode() for name in ("alice", "nobody")]
    same = [text.replace("alice", "x").replace("nobody", "x") for text in answers]
    errors = [text.split('role="alert"')[1].split("</div>")[0] for text in same]
    assert errors[0] == errors[1]


def test_after_eight_failures_the_name_is_locked_for_this_address(alice, settings) -> None:
    settings.AXES_ENABLED = True
    client = Client()
    for _ in range(8):
        answer = sign_in(client, "alice", "wrong")
    assert answer.status_code == 429
    assert "Locked for a while" in answer.content.decode()
    assert sign_in(client, "alice").status_code == 429


def test_opening_a_link_does_not_use_it_up(alice) -> None:
    url = reverse("sign_in_link", args=[sign_in_link_create(user=alice)])
    for _ in range(3):
        answer = Client().get(url)
        assert answer.status_code == 200
        assert answer["Referrer-Policy"] == "strict-origin"
        assert "no-store" in answer["Cache-Control"]
    client = Client(enforce_csrf_checks=True)
    page = client.get(url)
    token = page.context["csrf_token"]
    assert client.post(url).status_code == 403
    assert client.post(url, {"csrfmiddlewaretoken": str(token)}).url == reverse("home")
    assert client.session["_auth_user_id"] == str(alice.pk)


def test_a_link_signs_in_once_and_says_so_the_second_time(alice) -> None:
    url = reverse("sign_in_link", args=[sign_in_link_create(user=alice)])
    first, second = Client(), Client()
    assert first.post(url).status_code == 302
    answer = second.post(url)
    assert answer.status_code == 410
    assert "This link is used up" in answer.content.decode()
    assert "_auth_user_id" not in second.session


def test_an_old_or_invented_link_signs_nobody_in(alice) -> None:
    token = sign_in_link_create(user=alice)
    SignInLink.objects.update(expires_at=timezone.now())
    for one in (token, "invented", "x" * 500):
        client = Client()
        assert client.post(reverse("sign_in_link", args=[one])).status_code == 410
        assert "_auth_user_id" not in client.session


def test_a_link_used_by_somebody_signed_in_leaves_nothing_of_their_session(alice, dana) -> None:
    client = Client()
    client.force_login(dana)
    before = client.session.session_key
    client.post(reverse("sign_in_link", args=[sign_in_link_create(user=alice)]))
    assert client.session["_auth_user_id"] == str(alice.pk)
    assert not Session.objects.filter(session_key=before).exists()


def test_signing_in_and_out_changes_the_session(alice) -> None:
    client = Client()
    client.get(reverse("sign_in"))
    client.cookies["sessionid"] = "chosenbysomebodyelse"
    sign_in(client, "alice")
    key = client.session.session_key
    assert key != "chosenbysomebodyelse"
    assert client.get(reverse("sign_out")).status_code == 405
    assert client.post(reverse("sign_out")).status_code == 302
    assert not Session.objects.filter(session_key=key).exists()


def test_changing_the_password_signs_other_devices_out(alice) -> None:
    here, there = Client(), Client()
    sign_in(here, "alice")
    sign_in(there, "alice")
    new = "quite another phrase"
    answer = here.post(
        reverse("password_change"),
        {"old_password": PASSWORD, "new_password1": new, "new_password2": new},
    )
    assert answer.status_code == 302
    assert here.get(reverse("home")).status_code == 200
    assert there.get(reverse("home")).status_code == 302
    assert User.objects.get(username="alice").check_password(new)


def test_whoever_came_by_a_link_chooses_a_password_without_an_old_one(db) -> None:
    nora = User.objects.create_user("nora")
    here, there = Client(), Client()
    for client in (here, there):
        client.post(reverse("sign_in_link", args=[sign_in_link_create(user=nora)]))
    unused = sign_in_link_create(user=nora)
    page = here.get(reverse("password_change")).content.decode()
    assert "<h1>Choose a password</h1>" in page
    assert "old_password" not in page
    assert "Change password" not in page
    url, new = reverse("password_change"), "quite another phrase"
    short = here.post(url, {"new_password1": "short", "new_password2": "short"})
    assert "at least 10 characters" in short.content.decode()
    answer = here.post(url, {"new_password1": new, "new_password2": new}, follow=True)
    assert "You have a password now" in answer.content.decode()
    assert answer.wsgi_request.user == nora  # this session goes on
    assert there.get(reverse("home")).status_code == 302
    assert Client().post(reverse("sign_in_link", args=[unused])).status_code == 410
    assert sign_in(Client(), "nora", new).status_code == 302


def test_whoever_has_a_password_cannot_change_it_without_the_old_one(alice) -> None:
    here = Client()
    sign_in(here, "alice")
    assert "<h1>Change your password</h1>" in here.get(reverse("password_change")).content.decode()
    new = "quite another phrase"
    here.post(reverse("password_change"), {"new_password1": new, "new_password2": new})
    assert User.objects.get(username="alice").check_password(PASSWORD)


def test_the_admin_is_entered_by_the_same_door(alice, eve) -> None:
    answer = Client().get("/admin/auth/", follow=True)
    assert answer.redirect_chain[-1][0] == f"{reverse('sign_in')}?next=%2Fadmin%2Fauth%2F"
    assert sign_in(Client(), "eve", after="/admin/").url == "/admin/"
    inside = Client()
    inside.force_login(eve)
    assert inside.get("/admin/").status_code == 200
    outside = Client()
    outside.force_login(alice)
    assert outside.get("/admin/", follow=True).status_code == 404
