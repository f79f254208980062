"""Demonstrations and edits: what a person wrote is a candidate."""

from typing import Any

import pytest

from annotation.models import Assignment, Candidate, Membership, Project, TaskForm
from annotation.selectors import shown_order
from annotation.services.assignments import assignment_next
from annotation.services.demonstrations import demonstration_submit
from annotation.services.edits import edit_submit
from annotation.services.submissions import submission_undo
from annotation.services.writings import MAX_TEXT_CHARS
from modelhub.errors import ApplicationError
from tests.builders import make_member, make_task

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


def handed(
    project: Project,
    ann: Membership,
    kind: str,
    texts: tuple[str, ...] = ("It is big.", "It is small."),
    **settings: Any,
) -> Assignment:
    TaskForm.objects.create(project=project, kind=kind, settings=settings)
    make_task(project, kind, texts)
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    return assignment


def refused_field(act: Any) -> str:
    with pytest.raises(ApplicationError) as refused:
        act()
    return str(refused.value.extra["field"])


def test_an_edit_is_better_than_its_original_and_says_what_changed(
    project: Project, ann: Membership
) -> None:
    assignment = handed(project, ann, "edit")
    original = Candidate.objects.get(text="It is big.")
    submission = edit_submit(assignment=assignment, original=original.uid, text="It is very big.")
    edit, comparison = submission.edit, submission.comparison
    assert edit.candidate.text == "It is very big."
    assert edit.candidate.author == ann.user
    assert edit.candidate.version is None
    assert edit.candidate.prompt == assignment.task.prompt
    assert edit.candidate.decoding["edited_from"] == original.uid
    assert edit.diff == [["=", "It is "], ["+", "very "], ["=", "big."]]
    assert edit.changed_share == 1 / 7  # of 3 and 4 words, one was put in
    assert (comparison.better, comparison.worse) == (edit.candidate, original)


def test_an_edit_that_is_undone_and_done_otherwise_keeps_both_texts(
    project: Project, ann: Membership
) -> None:
    assignment = handed(project, ann, "edit")
    uid = shown_order(assignment=assignment)[0]
    first = edit_submit(assignment=assignment, original=uid, text="One.").edit.candidate
    back = submission_undo(assignment=assignment)
    second = edit_submit(assignment=back, original=uid, text="Two.").edit.candidate
    assert first != second
    back = submission_undo(assignment=assignment)
    again = edit_submit(assignment=back, original=uid, text="One.").edit.candidate
    assert again == first
    assert Candidate.objects.filter(author=ann.user).count() == 2


@pytest.mark.parametrize(
    ("original", "text", "field"),
    [
        ("f" * 32, "Better.", "original"),
        (None, " It is big.\n", "text"),
        (None, " \n", "text"),
        (None, "a\x00b", "text"),
        (None, "x" * (MAX_TEXT_CHARS + 1), "text"),
    ],
)
def test_of_an_edit_is_refused(
    project: Project, ann: Membership, original: str | None, text: str, field: str
) -> None:
    assignment = handed(project, ann, "edit", ("It is big.",))
    uid = original or shown_order(assignment=assignment)[0]
    act = lambda: edit_submit(assignment=assignment, original=uid, text=text)  # noqa: E731
    assert refused_field(act) == field
    assert not Candidate.objects.filter(author=ann.user).exists()


def test_an_answer_from_nothing_and_one_from_a_draft(project: Project, ann: Membership) -> None:
    assignment = handed(project, ann, "demonstration", ("A draft.",))
    draft = Candidate.objects.get()
    written = demonstration_submit(
        assignment=assignment, text="A draft, done.", started_from=draft.uid
    ).demonstration
    assert (written.candidate.text, written.started_from) == ("A draft, done.", draft)
    assert written.candidate.author == ann.user
    back = submission_undo(assignment=assignment)
    written = demonstration_submit(assignment=back, text="My own.").demonstration
    assert (written.candidate.text, written.started_from) == ("My own.", None)


def test_several_answers_where_the_project_asks_for_a_talk(
    project: Project, ann: Membership
) -> None:
    assignment = handed(project, ann, "demonstration", (), turns=2)
    more = [{"user": "And Lyon?", "text": "Also in France."}]
    written = demonstration_submit(
        assignment=assignment, text="In France.", turns=more
    ).demonstration
    assert written.turns == more


@pytest.mark.parametrize(
    ("settings", "judgement", "field"),
    [
        ({"start": "nothing"}, {"started_from": 0}, "started_from"),
        ({"start": "draft"}, {}, "started_from"),
        ({}, {"started_from": "f" * 32}, "started_from"),
        ({}, {"turns": [{"user": "a", "text": "b"}]}, "turns"),
        ({"turns": 2}, {"turns": [{"user": "a", "text": " "}]}, "turns[0].text"),
        ({}, {"text": ""}, "text"),
    ],
)
def test_of_a_demonstration_is_refused(
    project: Project,
    ann: Membership,
    settings: dict[str, Any],
    judgement: dict[str, Any],
    field: str,
) -> None:
    assignment = handed(project, ann, "demonstration", ("A draft.",), **settings)
    if judgement.get("started_from") == 0:
        judgement = judgement | {"started_from": shown_order(assignment=assignment)[0]}
    asked = {"text": "Text.", **judgement}
    assert refused_field(lambda: demonstration_submit(assignment=assignment, **asked)) == field


def test_where_there_is_no_draft_one_writes_from_nothing(project: Project, ann: Membership) -> None:
    assignment = handed(project, ann, "demonstration", (), start="draft")
    assert (
        demonstration_submit(assignment=assignment, text="So.").demonstration.started_from is None
    )
