"""The managers' page of tokens."""

import re

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from annotation.models import Project, ProjectToken
from annotation.services.feedback import ShownAnswer, feedback_record
from annotation.services.tokens import project_token_create, project_token_use
from tests.builders import make_project

pytestmark = pytest.mark.django_db


def test_a_manager_makes_a_token_and_sees_its_secret_once(
    project: Project, dana: User, signed_in
) -> None:
    client = signed_in(dana)
    url = reverse("project_tokens", args=[project.uid])
    shown = client.post(url, {"name": "Kitchen <b>"}).content.decode()
    (secret,) = re.findall(r'value="(rondo_[^"]+)"', shown)
    assert "Kitchen &lt;b&gt;" in shown
    token = project_token_use(secret=secret)
    assert token is not None and token.project == project
    again = client.get(url).content.decode()
    assert secret not in again and "Kitchen" in again


def test_a_token_without_a_name_is_refused_on_the_page(
    project: Project, dana: User, signed_in
) -> None:
    response = signed_in(dana).post(reverse("project_tokens", args=[project.uid]), {"name": " "})
    assert response.status_code == 400
    assert "needs a name" in response.content.decode()
    assert not ProjectToken.objects.exists()


def test_a_manager_revokes_a_token_of_their_own_project_alone(
    project: Project, dana: User, signed_in
) -> None:
    token, secret = project_token_create(project=project, name="Kitchen")
    other, _ = project_token_create(project=make_project("Other"), name="Else")
    client = signed_in(dana)
    assert client.post(reverse("token_revoke", args=[project.uid, other.uid])).status_code == 404
    response = client.post(reverse("token_revoke", args=[project.uid, token.uid]), follow=True)
    assert "revoked" in response.content.decode()
    assert project_token_use(secret=secret) is None


def test_reviewers_read_the_name_of_the_product_and_not_of_its_account(
    project: Project, dana: User, signed_in
) -> None:
    token, _ = project_token_create(project=project, name="Kitchen helper")
    shown = [ShownAnswer(text="Fry it."), ShownAnswer(text="Ten minutes.")]
    asked = [{"role": "user", "content": "An egg?"}]
    submission = feedback_record(token=token, messages=asked, answers=shown, chosen=1)
    client = signed_in(dana)
    pages = [
        reverse(f"project_{name}", args=[project.uid])
        for name in ("detail", "reviews", "quality", "members")
    ]
    pages.append(reverse("review_detail", args=[project.uid, submission.uid]))
    pages.append(reverse("project_quality", args=[project.uid]) + "?table=people&format=csv")
    for path in pages:
        page = client.get(path).content.decode()
        assert "Kitchen helper" in page, path
        assert token.membership.user.username not in page, path


def test_feedback_alone_is_frozen_from_the_page(project: Project, dana: User, signed_in) -> None:
    token, _ = project_token_create(project=project, name="Kitchen")
    shown = [ShownAnswer(text="Fry it."), ShownAnswer(text="Ten minutes.")]
    asked = [{"role": "user", "content": "An egg?"}]
    feedback_record(token=token, messages=asked, answers=shown, chosen=1)
    client = signed_in(dana)
    url = reverse("project_datasets", args=[project.uid])
    assert client.post(url, {"kind": "pair", "origin": "person"}).status_code == 400
    page = client.post(url, {"kind": "pair", "origin": "product"}, follow=True).content.decode()
    assert "judgements of users of products" in page
    by_source = project.datasets.get().counts["used_by_source"]
    assert by_source == {"person": 0, "simulated": 0, "model": 0, "product": 1}
