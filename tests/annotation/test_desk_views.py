"""Who comes to the annotator's page, and what is told to those who get no task there."""

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from annotation.models import Membership, Project
from tests.builders import make_user

PAGES = ("annotate", "project_dashboard")


@pytest.mark.parametrize("page", PAGES)
def test_a_superuser_who_is_no_member_is_told_how_to_become_one(
    page: str, project: Project, signed_in
) -> None:
    root = make_user("root", is_superuser=True)
    client = signed_in(root)
    reply = client.get(reverse(page, args=[project.uid]))
    shown = reply.content.decode()
    people = reverse("project_members", args=[project.uid])
    assert reply.status_code == 403
    assert f'action="{people}"' in shown and f'href="{people}"' in shown
    client.post(people, {"username": "root", "role": Membership.Role.ANNOTATOR})
    assert Membership.objects.get(user=root, project=project).role == Membership.Role.ANNOTATOR
    assert client.get(reverse(page, args=[project.uid])).status_code == 200


@pytest.mark.parametrize("page", [*PAGES, "rank"])
def test_outsiders_are_not_told_that_there_is_such_a_project(
    page: str, project: Project, charlie: User, eve: User, signed_in
) -> None:
    for outsider in (charlie, eve):  # who manages another project, and who is on the staff
        client = signed_in(outsider)
        there = client.get(reverse(page, args=[project.uid]))
        nowhere = client.get(reverse(page, args=["0" * 32]))
        assert there.status_code == nowhere.status_code == 404
        assert project.name not in there.content.decode()
        assert "a manager of the project can add you under People" in there.content.decode()
        elsewhere = client.get("/hub/nothing/")
        assert elsewhere.status_code == 404
        assert "under People" not in elsewhere.content.decode()
