"""S33: a NUL reaches no query of a database, by whatever way it comes. S35: nothing is mailed."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.urls import reverse

from annotation.models import Project

ROOT = Path(__file__).parents[2]


def test_an_address_with_a_nul_leads_nowhere(project: Project, dana: User, signed_in) -> None:
    for path in ("/projects/%00/", f"/projects/{project.uid}%00/", "/api/v1/rounds/a%00b/"):
        assert signed_in(dana).get(path).status_code == 404


def test_a_query_or_form_with_a_nul_is_refused(project: Project, dana: User, signed_in) -> None:
    client, path = signed_in(dana), reverse("project_prompts", args=[project.uid])
    assert client.get(path, {"q": "a\x00b"}).status_code == 400
    assert client.get(path, {"a\x00b": "q"}).status_code == 400
    assert client.get(path, {"q": "ab"}).status_code == 200
    form = {"username": "new", "role": "annotator", "a\x00": "b"}
    assert client.post(reverse("project_members", args=[project.uid]), form).status_code == 400
    assert project.memberships.count() == 1


def test_without_its_middleware_a_nul_comes_through(
    project: Project, dana: User, signed_in, monkeypatch
) -> None:
    """The mutant."""
    name = "config.storable.StorableTextMiddleware"
    monkeypatch.setattr(settings, "MIDDLEWARE", [m for m in settings.MIDDLEWARE if m != name])
    with pytest.raises(AssertionError):
        test_a_query_or_form_with_a_nul_is_refused(project, dana, signed_in)


def test_the_site_sends_no_mail_so_that_no_header_can_be_forged() -> None:
    """People get a link from their manager. Whoever adds mail here adds its tests."""
    for app in ("annotation", "alignment", "modelhub", "config"):
        for path in (ROOT / app).rglob("*.py"):
            assert not re.search(r"core\.mail|smtplib|AdminEmail|email_user", path.read_text()), (
                path
            )
    handlers = {one["class"] for one in settings.LOGGING["handlers"].values()}
    assert handlers == {"logging.StreamHandler"}
    assert settings.LOGGING["loggers"]["django"]["handlers"] == []
