"""An annotator in doubt asks; the task waits; the answer brings it back."""

import json
from typing import Any

import pytest

from annotation.models import Assignment, Membership, Notification, Project, Question, Task
from annotation.services.assignments import assignment_next
from annotation.services.pairs import pair_submit
from annotation.services.questions import question_answer, question_ask
from modelhub.errors import ApplicationError, ConflictError, RefusedError
from tests.builders import make_member, make_project, make_task

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def bob(project: Project) -> Membership:
    return make_member(project, "bob", Membership.Role.REVIEWER)


@pytest.fixture
def given(project: Project, ann: Membership, bob: Membership) -> Assignment:
    make_task(project, "pair")
    make_task(project, "pair")
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    return assignment


def test_the_task_waits_with_its_slot_and_the_reviewers_are_told(
    project: Project, given: Assignment, ann: Membership, bob: Membership
) -> None:
    make_member(project, "cat")
    question = question_ask(assignment=given, text=" What is\n“concise”? ")
    given.refresh_from_db()
    assert given.state == Assignment.State.PAUSED
    assert Task.objects.get(pk=given.task_id).slots_free == 0
    (told,) = Notification.objects.all()
    assert told.recipient == bob
    assert told.line == "ann asks: What is “concise”?"
    following = assignment_next(membership=ann)
    assert following is not None and following != given
    assert question_ask(assignment=given, text="What is\n“concise”?") == question
    assert Notification.objects.count() == 1


def test_answered_it_comes_back_before_anything_else(
    given: Assignment, ann: Membership, bob: Membership
) -> None:
    question = question_ask(assignment=given, text="Why?")
    assignment_next(membership=ann)
    answered = question_answer(question=question, reviewer=bob, text="Because.")
    assert (answered.answer, answered.answered_by) == ("Because.", bob)
    assert answered.answered_at is not None
    told = Notification.objects.get(recipient=ann)
    assert told.line == "Your question was answered: Because."
    assert told.path.endswith("/annotate/")
    assert assignment_next(membership=ann) == given
    with pytest.raises(ConflictError, match="already"):
        question_answer(question=question, reviewer=bob, text="Or not.")


def test_a_waiting_task_can_still_be_sent(given: Assignment) -> None:
    """From another tab: what somebody has judged is not lost because they had asked."""
    question_ask(assignment=given, text="Why?")
    assert pair_submit(assignment=given, better=None, degree=0).status == "accepted"
    assert Task.objects.get(pk=given.task_id).slots_free == 0
    with pytest.raises(ConflictError):
        question_ask(assignment=given, text="And now?")


def test_nobody_answers_their_own_question_or_one_elsewhere(project: Project) -> None:
    """RELIABILITY S09, for questions."""
    bob = make_member(project, "bob", Membership.Role.REVIEWER)
    make_task(project, "pair")
    assignment = assignment_next(membership=bob)
    assert assignment is not None
    question = question_ask(assignment=assignment, text="Why?")
    other = make_project("Other")
    for reviewer in (
        bob,
        make_member(project, "ann"),
        make_member(other, "olga", Membership.Role.MANAGER),
    ):
        with pytest.raises(RefusedError):
            question_answer(question=question, reviewer=reviewer, text="Because.")
    assert Question.objects.get().answered_at is None


@pytest.mark.parametrize("text", ["", " \n", "x" * 5001])
def test_a_question_has_words_and_an_end(given: Assignment, text: str) -> None:
    with pytest.raises(ApplicationError) as refused:
        question_ask(assignment=given, text=text)
    assert refused.value.extra == {"field": "text"}


def test_by_api_and_by_page(
    project: Project, given: Assignment, ann: Membership, bob: Membership, signed_in: Any
) -> None:
    annotator, reviewer = signed_in(ann.user), signed_in(bob.user)

    def post(client: Any, path: str, body: dict[str, str]) -> Any:
        return client.post(
            f"/api/v1/{path}", data=json.dumps(body), content_type="application/json"
        )

    reply = post(annotator, f"assignments/{given.uid}/question/", {"text": "Why <b>?"}).json()
    assert reply["state"] == "paused"
    assert reply["next"]["assignment"]["uid"] != given.uid
    question = Question.objects.get()
    listed = reviewer.get(f"/api/v1/projects/{project.uid}/questions/").json()
    assert [one["text"] for one in listed] == ["Why <b>?"]
    page = reviewer.get(f"/projects/{project.uid}/questions/")
    assert "Why &lt;b&gt;?" in page.content.decode()
    path = f"/projects/{project.uid}/questions/"
    assert reviewer.post(path, {"question": question.uid, "text": " "}).status_code == 400
    assert reviewer.post(path, {"question": question.uid, "text": "So."}).status_code == 302
    again = post(reviewer, f"questions/{question.uid}/answer/", {"text": "So."})
    assert again.status_code == 409
    assert post(annotator, f"questions/{question.uid}/answer/", {"text": "So."}).status_code == 404
    assert annotator.get(path).status_code == 404
