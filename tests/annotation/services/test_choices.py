"""Pairs and ratings: what they say, and what is refused of them."""

from typing import Any

import pytest

from annotation.models import Assignment, Membership, Project, TaskForm
from annotation.selectors import shown_order
from annotation.services.assignments import assignment_next
from annotation.services.pairs import pair_submit
from annotation.services.ratings import rating_submit
from modelhub.errors import ApplicationError
from tests.builders import make_member, make_task

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


def handed(project: Project, ann: Membership, kind: str, **settings: Any) -> Assignment:
    TaskForm.objects.create(project=project, kind=kind, settings=settings)
    make_task(project, kind)
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    return assignment


def refused_field(act: Any) -> str:
    with pytest.raises(ApplicationError) as refused:
        act()
    return str(refused.value.extra["field"])


def test_a_choice_is_a_comparison_and_its_degree_a_margin(
    project: Project, ann: Membership
) -> None:
    assignment = handed(project, ann, "pair", safety_labels=True)
    one, other = shown_order(assignment=assignment)
    submission = pair_submit(assignment=assignment, better=other, degree=4, unsafe=[one])
    comparison = submission.comparison
    assert (comparison.better.uid, comparison.worse.uid) == (other, one)
    assert comparison.get_degree_display() == "significantly better"
    assert comparison.unsafe == [one]


def test_a_tie_is_degree_0_over_nobody(project: Project, ann: Membership) -> None:
    assignment = handed(project, ann, "pair")
    comparison = pair_submit(assignment=assignment, better=None, degree=0).comparison
    assert comparison.degree == 0
    assert {comparison.better.uid, comparison.worse.uid} == set(shown_order(assignment=assignment))


PAIRS_REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a degree of 5": ({}, {"better": 0, "degree": 5}, "degree"),
    "a choice without degree": ({}, {"better": 0, "degree": 0}, "better"),
    "a degree without choice": ({}, {"better": None, "degree": 2}, "better"),
    "a tie where a choice is asked": ({"ties": False}, {"better": None, "degree": 0}, "better"),
    "an answer of another task": ({}, {"better": "f" * 32, "degree": 1}, "better"),
    "labels that are not asked for": ({}, {"better": 0, "degree": 1, "unsafe": [0]}, "unsafe"),
    "a label twice": (
        {"safety_labels": True},
        {"better": 0, "degree": 1, "unsafe": [0, 0]},
        "unsafe",
    ),
    "a label on nothing": (
        {"safety_labels": True},
        {"better": 0, "degree": 1, "unsafe": ["f" * 32]},
        "unsafe",
    ),
}


@pytest.mark.parametrize("case", PAIRS_REFUSED)
def test_of_a_pair_is_refused(project: Project, ann: Membership, case: str) -> None:
    settings, judgement, field = PAIRS_REFUSED[case]
    assignment = handed(project, ann, "pair", **settings)
    shown = shown_order(assignment=assignment)

    def named(value: Any) -> Any:
        return shown[value] if isinstance(value, int) else value

    judgement = judgement | {"better": named(judgement["better"])}
    judgement["unsafe"] = [named(one) for one in judgement.get("unsafe", [])]
    assert refused_field(lambda: pair_submit(assignment=assignment, **judgement)) == field


def test_flags_have_one_order(project: Project, ann: Membership) -> None:
    assignment = handed(project, ann, "rating")
    one, other = shown_order(assignment=assignment)
    submission = rating_submit(
        assignment=assignment,
        ratings={
            one: {"overall": 1, "flags": ["wrong", "harmful"]},
            other: {"overall": 7, "flags": []},
        },
    )
    assert submission.rating.ratings == {
        one: {"overall": 1, "flags": ["harmful", "wrong"]},
        other: {"overall": 7, "flags": []},
    }


RATINGS_REFUSED: dict[str, Any] = {
    "one left out": lambda one, other: {one: {"overall": 3, "flags": []}},
    "8 of 7": lambda one, other: {
        one: {"overall": 8, "flags": []},
        other: {"overall": 1, "flags": []},
    },
    "an unknown flag": lambda one, other: {
        one: {"overall": 3, "flags": ["boring"]},
        other: {"overall": 1, "flags": []},
    },
    "a flag twice": lambda one, other: {
        one: {"overall": 3, "flags": ["wrong", "wrong"]},
        other: {"overall": 1, "flags": []},
    },
    "somebody else's answer": lambda one, other: {
        uid: {"overall": 3, "flags": []} for uid in (one, other, "f" * 32)
    },
}


@pytest.mark.parametrize("case", RATINGS_REFUSED)
def test_of_ratings_is_refused(project: Project, ann: Membership, case: str) -> None:
    assignment = handed(project, ann, "rating")
    ratings = RATINGS_REFUSED[case](*shown_order(assignment=assignment))
    field = refused_field(lambda: rating_submit(assignment=assignment, ratings=ratings))
    assert field.startswith("ratings")
