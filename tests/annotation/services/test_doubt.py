"""The queue in the order of the reward model's doubt."""

import pytest

from annotation.models import Project, Task
from annotation.services.assignments import assignment_next
from annotation.services.doubt import doubts_set
from modelhub.errors import ApplicationError
from tests.builders import make_member, make_project, make_ranking_task

pytestmark = pytest.mark.django_db


def scored(task: Task, *rows: list[float]) -> dict[str, list[float]]:
    uids = task.task_candidates.values_list("candidate__uid", flat=True)
    return dict(zip(uids, rows, strict=True))


def doubt(task: Task) -> float:
    return Task.objects.get(pk=task.pk).doubt


def test_the_tasks_it_is_least_sure_of_are_handed_out_first(project: Project) -> None:
    sure, torn, unscored = (make_ranking_task(project, texts=("a", "b")) for _ in range(3))
    scores = scored(sure, [5.0, 6.0], [0.0, 0.0]) | scored(torn, [1.0, -1.0], [0.0, 0.0])
    assert doubts_set(project=project, scores=scores) == 2
    assert doubt(torn) == pytest.approx(1)
    assert 0 < doubt(sure) < 0.1
    assert doubt(unscored) == 0
    Project.objects.filter(pk=project.pk).update(queue_order=Project.Order.DOUBT)
    given = assignment_next(membership=make_member(project, "ann"))
    assert given is not None and given.task == torn


def test_a_task_with_an_answer_that_is_not_scored_keeps_its_doubt(project: Project) -> None:
    task = make_ranking_task(project, texts=("a", "b", "c"))
    Task.objects.filter(pk=task.pk).update(doubt=0.25)
    scores = scored(task, [0.0], [0.0], [0.0])
    scores.popitem()
    assert doubts_set(project=project, scores=scores) == 0
    assert doubt(task) == 0.25


def test_the_tasks_of_other_projects_are_left_alone(project: Project) -> None:
    task = make_ranking_task(make_project("Other"), texts=("a", "b"))
    assert doubts_set(project=project, scores=scored(task, [0.0], [0.0])) == 0
    assert doubt(task) == 0


@pytest.mark.parametrize("rows", [([0.0, 1.0], [0.0]), ([float("inf")], [0.0]), ([], [])])
def test_scores_of_uneven_ensembles_are_refused(project: Project, rows) -> None:
    task = make_ranking_task(project, texts=("a", "b"))
    with pytest.raises(ApplicationError) as refused:
        doubts_set(project=project, scores=scored(task, *rows))
    assert refused.value.extra == {"field": "scores"}
