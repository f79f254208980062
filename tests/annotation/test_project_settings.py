"""How a project hands out its tasks: what its manager may set."""

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from annotation.models import Project
from annotation.services.project_settings import project_settings_change
from annotation.services.projects import project_describe
from modelhub.errors import ApplicationError

pytestmark = pytest.mark.django_db
GIVEN = {
    "overlap": 3,
    "queue_order": "random",
    "gold_share": 0.1,
    "qualification_pass": 0.8,
    "mirrored_share": 0.05,
    "skips_to_review": 4,
}


def test_settings_hold_from_the_next_task_on(project: Project) -> None:
    project_settings_change(project=project, **GIVEN)
    project.refresh_from_db()
    assert {name: getattr(project, name) for name in GIVEN} == GIVEN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("overlap", 0), ("overlap", 51), ("queue_order", "newest"), ("gold_share", 0.6)),
        *(("gold_share", float("nan")), ("qualification_pass", 1.1)),
        *(("mirrored_share", 0.6), ("skips_to_review", -1)),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(project: Project, field: str, value) -> None:
    with pytest.raises(ApplicationError) as refused:
        project_settings_change(project=project, **{**GIVEN, field: value})
    assert refused.value.extra == {"field": field}
    project.refresh_from_db()
    assert project.overlap == 1


def test_a_manager_sets_them_in_per_cent(project: Project, dana: User, signed_in) -> None:
    url = reverse("project_settings", args=[project.uid])
    client = signed_in(dana)
    given = {"overlap": 2, "queue_order": "doubt", "gold_percent": 12.5, "pass_percent": 75}
    given |= {"mirrored_percent": 5, "skips_to_review": 2}
    assert client.post(url, given)["Location"] == url
    project.refresh_from_db()
    assert (project.gold_share, project.qualification_pass) == (0.125, 0.75)
    assert (project.mirrored_share, project.skips_to_review) == (0.05, 2)
    assert 'value="12.5"' in client.get(url).content.decode()
    answer = client.post(url, {**given, "gold_percent": 80})
    assert answer.status_code == 400
    assert 'value="80"' in answer.content.decode()


def test_nobody_else_sees_them(project: Project, bob: User, alice: User, signed_in) -> None:
    url = reverse("project_settings", args=[project.uid])
    for user in (bob, alice):
        assert signed_in(user).get(url).status_code == 404
        assert signed_in(user).post(url, {}).status_code == 404


def test_a_manager_gives_another_name_and_description(
    project: Project, dana: User, signed_in
) -> None:
    page, url = (
        reverse(name, args=[project.uid]) for name in ("project_settings", "project_description")
    )
    client = signed_in(dana)
    kept = project.name, project.description
    for given, field in (
        ({"name": "  ", "description": "x"}, "name"),
        ({"name": "x" * 121, "description": "x"}, "name"),
        ({"name": "x", "description": "x" * 5001}, "description"),
    ):
        answer = client.post(url, given)
        assert answer.status_code == 400
        assert list(answer.context["description_form"].errors) == [field]
        with pytest.raises(ApplicationError) as refused:
            project_describe(project=project, **given)
        assert refused.value.extra == {"field": field}
        project.refresh_from_db()
        assert (project.name, project.description) == kept
    given = {"name": " Answers <2> ", "description": "Which is kinder."}
    assert client.post(url, given)["Location"] == page
    project.refresh_from_db()
    assert (project.name, project.description) == ("Answers <2>", "Which is kinder.")
    text = client.get(page).content.decode()
    assert 'value="Answers &lt;2&gt;"' in text and "Which is kinder.</textarea>" in text


def test_nobody_else_renames_it(project: Project, bob: User, alice: User, signed_in) -> None:
    url = reverse("project_description", args=[project.uid])
    for user in (bob, alice):
        assert signed_in(user).post(url, {"name": "Mine"}).status_code == 404
