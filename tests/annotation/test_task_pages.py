"""The manager's page of tasks."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from annotation.models import Candidate, Membership, PreferenceDataset, Project, Task
from annotation.selectors.dashboards import coverage
from annotation.services.assignments import assignment_next
from tests.annotation import judging
from tests.builders import (
    make_artifact,
    make_batch,
    make_member,
    make_project,
    make_prompt,
    make_task,
)

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
    assert (pair.tasks, pair.open, pair.slots, pair.judged) == (1, 1, 3, 1)
    assert told["dialogue"].tasks == 0
    assert "1 of 3" in page.content.decode()


def test_a_task_that_somebody_has_now_is_not_judged_by_them_yet(
    project: Project, client: Client
) -> None:
    """Of two people wanted nobody, one or both have judged; then others have what is left."""
    ann, ben = (make_member(project, name) for name in ("ann", "ben"))
    tasks = [judging.make_task(project, "pair", overlap=2) for _ in range(3)]
    for task, judged in zip(tasks, ((), (ann,), (ann, ben)), strict=True):
        for member in judged:
            judging.choose(task, member, 0)

    def told() -> tuple[str, tuple[int, ...]]:
        (pair,) = [one for one in client.get(path_of(project)).context["counts"] if one.tasks]
        (kind,) = coverage(project=project)
        figures = (kind.tasks, kind.none, kind.some, kind.full, kind.closed)
        return f"{pair.judged} of {pair.slots}", figures

    assert told() == ("3 of 6", (3, 1, 1, 1, 0))
    for name, task in (("cleo", tasks[0]), ("dan", tasks[0]), ("eva", tasks[1])):
        held = assignment_next(membership=make_member(project, name))
        assert held is not None and held.task == task
    assert not Task.objects.filter(slots_free__gt=0).exists()
    assert told() == ("3 of 6", (3, 1, 1, 1, 0))
    Task.objects.filter(pk=tasks[1].pk).update(closed_at=timezone.now())
    assert told() == ("3 of 6", (3, 1, 0, 1, 1))


def test_tasks_are_made_of_a_batch_or_of_prompts(project: Project, client: Client) -> None:
    batch, prompt = make_batch(project), make_prompt(project)
    for index in range(2):
        Candidate.objects.create(prompt=prompt, batch=batch, index=index, text=str(index))
    asked = {"kind": "pair", "batch": batch.uid, "overlap": 2, "priority": 5}
    page = client.post(path_of(project), asked, follow=True)
    assert "1 task was made." in page.content.decode()
    page = client.post(path_of(project), asked, follow=True)
    assert "0 tasks were made. 1 prompt has such a task already." in page.content.decode()
    task = Task.objects.get()
    assert (task.kind, task.batch, task.overlap, task.priority) == ("pair", batch, 2, 5)
    client.post(path_of(project), {**asked, "kind": "demonstration", "batch": ""})
    assert Task.objects.get(kind="demonstration").prompt == prompt


def test_no_task_made_is_no_success_and_says_why(project: Project, client: Client) -> None:
    asked = {"kind": "pair", "batch": "", "overlap": 2, "priority": 0}
    page = client.post(path_of(project), asked, follow=True)
    assert "There is no prompt to make one of" in page.content.decode()
    make_prompt(project), make_prompt(project)
    for kind, why in (
        ("pair", "2 prompts have fewer than two different answers."),
        ("edit", "2 prompts have no answer."),
    ):
        page = client.post(path_of(project), {**asked, "kind": kind}, follow=True)
        (told,) = page.context["messages"]
        assert (told.level_tag, told.message) == ("warning", f"0 tasks were made. {why}")


def test_dialogues_want_their_models_chosen_first(project: Project, client: Client) -> None:
    make_prompt(project)
    asked = {"kind": "dialogue", "batch": "", "overlap": 2, "priority": 0}
    page = client.post(path_of(project), asked)
    assert page.status_code == 400
    assert "Settings → Kinds of task → Dialogue" in page.content.decode()
    assert not Task.objects.exists()


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


def test_the_overview_tells_how_many_people_open_tasks_want_and_what_a_dataset_holds(
    project: Project, client: Client
) -> None:
    overview = f"/projects/{project.uid}/"
    make_task(project, "pair", overlap=2)
    PreferenceDataset.objects.create(
        project=project,
        number=1,
        kind="pair",
        query={},
        counts={"used": 3},
        artifact=make_artifact(),
    )
    page = client.get(overview).content.decode()
    assert project.overlap == 1 and "2 people for each task" in page
    assert "3 judgements" in page and "rankings" not in page
    make_task(project, "rating", overlap=4)
    assert "2 to 4 people for each task" in client.get(overview).content.decode()
    Task.objects.update(closed_at=timezone.now(), slots_free=0)
    assert "No task is open." in client.get(overview).content.decode()
