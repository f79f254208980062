"""The manager's page of tasks."""

from typing import Any

import pytest
from django.test import Client

from annotation.models import Candidate, Membership, Project, Task
from tests.builders import make_batch, make_member, make_project, make_prompt, make_task

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(project: Project, signed_in: Any) -> Client:
    return signed_in(make_member(project, "dana", Membership.Role.MANAGER).user)


def path_of(project: Project) -> str:
    return f"/projects/{project.uid}/tasks/"


def test_tasks_are_counted_by_kind(project: Project, client: Client) -> None:
    make_task(project, "pair", overlap=3)
    Task.objects.update(slots_free=2)
    page = client.get(path_of(project))
    told = {one.kind: one for one in page.context["counts"]}
    pair = told["pair"]
    assert (pair.tasks, pair.open, pair.slots, pair.slots_taken) == (1, 1, 3, 1)
    assert told["dialogue"].tasks == 0
    assert "1 of 3" in page.content.decode()


def test_tasks_are_made_of_a_batch_or_of_prompts(project: Project, client: Client) -> None:
    batch, prompt = make_batch(project), make_prompt(project)
    for index in range(2):
        Candidate.objects.create(prompt=prompt, batch=batch, index=index, text=str(index))
    asked = {"kind": "pair", "batch": batch.uid, "overlap": 2, "priority": 5}
    for made in (1, 0):
        page = client.post(path_of(project), asked, follow=True)
        assert f"{made} tasks were made." in page.content.decode()
    task = Task.objects.get()
    assert (task.kind, task.batch, task.overlap, task.priority) == ("pair", batch, 2, 5)
    client.post(path_of(project), {**asked, "kind": "demonstration", "batch": ""})
    assert Task.objects.get(kind="demonstration").prompt == prompt


@pytest.mark.parametrize("change", [{"overlap": 0}, {"kind": "essay"}, {"priority": 2**40}])
def test_what_does_not_fit_keeps_the_form(
    project: Project, client: Client, change: dict[str, Any]
) -> None:
    asked = {"kind": "pair", "overlap": 2, "priority": 0, **change}
    assert client.post(path_of(project), asked).status_code == 400
    assert not Task.objects.exists()


def test_a_batch_of_another_project_is_none(project: Project, client: Client) -> None:
    theirs = make_batch(make_project("Other"))
    asked = {"kind": "pair", "batch": theirs.uid, "overlap": 2, "priority": 0}
    assert client.post(path_of(project), asked).status_code == 400
    assert theirs.uid not in client.get(path_of(project)).content.decode()
