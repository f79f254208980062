"""Making tasks of any kind, once."""

import json
from typing import Any

import pytest

from annotation.models import Candidate, CandidateBatch, Membership, Project, Prompt, Task, TaskForm
from annotation.selectors import assignment_payload
from annotation.services.assignments import assignment_next
from annotation.services.prompts import prompts_import
from annotation.services.tasks import ANSWERS, tasks_create
from modelhub.errors import ApplicationError
from tests.builders import make_batch, make_member, make_project, make_prompt

pytestmark = pytest.mark.django_db
KINDS = list(ANSWERS)


@pytest.fixture
def batch(project: Project) -> CandidateBatch:
    """Three prompts: with three different answers of four, with twice the same, with one."""
    batch = make_batch(project)
    for texts in (["a", "b", " a ", "c"], ["same", "same"], ["alone"]):
        prompt = make_prompt(project)
        for index, text in enumerate(texts):
            Candidate.objects.create(prompt=prompt, batch=batch, index=index, text=text)
    return batch


def models_choose(project: Project) -> None:
    sides = [{"endpoint": "small"}, {"endpoint": "large"}]
    TaskForm.objects.create(project=project, kind="dialogue", settings={"sides": sides})


def answers_of(kind: str) -> list[list[str]]:
    return [
        [one.candidate.text for one in task.task_candidates.order_by("position")]
        for task in Task.objects.filter(kind=kind).order_by("prompt_id")
    ]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("ranking", [["a", "b", "c"]]),
        ("pair", [["a", "b"]]),
        ("rating", [["a", "b", "c"], ["same"], ["alone"]]),
        ("edit", [["a", "b", "c"], ["same"], ["alone"]]),
        ("demonstration", [["a", "b", "c"], ["same"], ["alone"]]),
        ("dialogue", [[], [], []]),
    ],
)
def test_a_kind_takes_the_different_answers_that_it_needs(
    project: Project, batch: CandidateBatch, kind: str, wanted: list[list[str]]
) -> None:
    models_choose(project)
    made = tasks_create(project=project, kind=kind, batch=batch, overlap=3, priority=7)
    assert (made.made, made.existing, made.too_few) == (len(wanted), 0, 3 - len(wanted))
    assert answers_of(kind) == wanted
    for task in Task.objects.all():
        assert (task.overlap, task.slots_free, task.priority, task.batch) == (3, 3, 7, batch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of_batch", [True, False])
def test_asked_twice_nothing_is_made_twice(
    project: Project, batch: CandidateBatch, kind: str, of_batch: bool
) -> None:
    models_choose(project)
    asked = {"project": project, "kind": kind, "batch": batch if of_batch else None}
    first = tasks_create(**asked)
    assert first.made
    again = tasks_create(**asked)
    assert (again.made, again.existing, again.too_few) == (0, first.made, first.too_few)
    make_prompt(project)
    more = tasks_create(**asked)
    assert more.made == (1 if kind in ("demonstration", "dialogue") and not of_batch else 0)


def test_no_more_answers_than_a_page_has_keys_for(project: Project) -> None:
    batch, prompt = make_batch(project), make_prompt(project)
    for index in range(12):
        Candidate.objects.create(prompt=prompt, batch=batch, index=index, text=str(index))
    tasks_create(project=project, kind="ranking", batch=batch)
    assert answers_of("ranking") == [[str(n) for n in range(9)]]


def test_of_prompts_alone_what_people_wrote_and_what_was_evaluated_is_not_judged(
    project: Project,
) -> None:
    prompt = make_prompt(project)
    evaluated = make_batch(project, purpose=CandidateBatch.Purpose.EVALUATING)
    for index, batch in enumerate((None, evaluated, make_batch(project))):
        Candidate.objects.create(prompt=prompt, batch=batch, text=str(index))
    tasks_create(project=project, kind="rating")
    assert answers_of("rating") == [["2"]]


@pytest.mark.parametrize("kind", ["ranking", "pair", "rating", "edit"])
def test_answers_that_a_file_brought_are_judged_at_once(project: Project, kind: str) -> None:
    line = b'{"prompt": "Why?", "answers": ["a", {"text": "b", "model": "ours-7b"}]}'
    prompts_import(project=project, lines=[line], name="p.jsonl")
    assert tasks_create(project=project, kind=kind).made == 1
    assert answers_of(kind) == [["a", "b"]]
    handed = assignment_next(membership=make_member(project, "ann"))
    assert handed is not None
    shown = json.dumps(assignment_payload(assignment=handed), default=str)
    assert '"a"' in shown and "ours-7b" not in shown


def test_what_was_written_to_a_live_model_is_asked_of_nobody(project: Project) -> None:
    make_prompt(project)
    talk = make_prompt(project)
    Prompt.objects.filter(pk=talk.pk).update(source=Prompt.OF_DIALOGUE)
    assert tasks_create(project=project, kind="demonstration").made == 1
    assert not Task.objects.filter(prompt=talk).exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "essay"}, "kind"),
        ({"overlap": 0}, "overlap"),
        ({"overlap": 51}, "overlap"),
        ({"priority": 2**31}, "priority"),
    ],
)
def test_what_does_not_fit_is_named(project: Project, change: dict[str, Any], field: str) -> None:
    with pytest.raises(ApplicationError) as refused:
        tasks_create(**{"project": project, "kind": "pair", **change})
    assert refused.value.extra == {"field": field}


def test_a_batch_of_another_project_is_refused(project: Project) -> None:
    theirs = make_batch(make_project("Other"))
    with pytest.raises(ApplicationError, match="not of this project"):
        tasks_create(project=project, kind="pair", batch=theirs)


def test_managers_set_forms_and_make_tasks_by_the_api(
    project: Project, batch: CandidateBatch, signed_in: Any
) -> None:
    client = signed_in(make_member(project, "dana", Membership.Role.MANAGER).user)
    path = f"/api/v1/projects/{project.uid}"

    def send(verb: str, place: str, body: dict[str, Any]) -> Any:
        return getattr(client, verb)(f"{path}/{place}/", data=body, content_type="application/json")

    settings = {"ties": False, "safety_labels": True}
    reply = send("put", "task-forms", {"kind": "pair", "settings": settings})
    assert reply.json()["settings"] == {"rationale": "optional", **settings}
    listed = client.get(f"{path}/task-forms/").json()
    assert {one["kind"] for one in listed} == set(KINDS)
    assert [one for one in listed if one["kind"] == "pair"] == [reply.json()]
    refused = send("put", "task-forms", {"kind": "pair", "settings": {"ties": "no"}})
    assert (refused.status_code, refused.json()["extra"]) == (400, {"field": "ties"})
    sides = {"sides": [{"endpoint": "nowhere"}] * 2}
    refused = send("put", "task-forms", {"kind": "dialogue", "settings": sides})
    assert refused.json()["extra"] == {"field": "sides[0].endpoint"}
    made = send("post", "tasks", {"kind": "pair", "batch": batch.uid})
    assert (made.status_code, made.json()) == (
        201,
        {"made": 1, "existing": 0, "too_few": 2},
    )
    made = send("post", "tasks", {"kind": "rating", "splits": ["held_out"]})
    assert made.json() == {"made": 0, "existing": 0, "too_few": 0}
    refused = send("post", "tasks", {"kind": "dialogue"})
    assert (refused.status_code, refused.json()["extra"]) == (400, {"field": "kind"})
    assert "Settings → Kinds of task → Dialogue" in refused.json()["message"]
    assert not Task.objects.filter(kind="dialogue").exists()
    assert send("post", "tasks", {"kind": "pair", "batch": "f" * 32}).status_code == 400
