"""What holds for a judgement of any kind: kept once, revised, undone, done again."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from annotation.models import (
    Assignment,
    Membership,
    Project,
    Review,
    Submission,
    SubmissionRevision,
    Task,
    TaskForm,
)
from annotation.selectors import judgement_of, shown_order
from annotation.services.assignments import assignment_next, assignment_skip
from annotation.services.batches import batch_tasks_close
from annotation.services.kinds import judgement_submit
from annotation.services.submissions import UNDO_S, submission_reopen, submission_undo
from modelhub.errors import ApplicationError, ConflictError
from tests.builders import make_member, make_task

pytestmark = pytest.mark.django_db
State = Assignment.State
Status = Submission.Status

# Kind → two different judgements of a task with two answers, whose uids are given.
JUDGEMENTS: dict[str, Callable[[list[str]], list[dict[str, Any]]]] = {
    "ranking": lambda uids: [
        {"tiers": [[uids[0]], [uids[1]]], "unacceptable": []},
        {"tiers": [sorted(uids)], "unacceptable": [uids[1]]},
    ],
    "pair": lambda uids: [
        {"better": uids[1], "degree": 4, "unsafe": []},
        {"better": None, "degree": 0, "unsafe": []},
    ],
    "rating": lambda uids: [
        {"ratings": {uid: {"overall": 5, "flags": []} for uid in uids}},
        {"ratings": {uid: {"overall": 2, "flags": ["harmful", "wrong"]} for uid in uids}},
    ],
    "edit": lambda uids: [
        {"original": uids[0], "text": "It is Paris, on the Seine."},
        {"original": uids[1], "text": "Paris!"},
    ],
    "demonstration": lambda uids: [
        {"text": "Paris, since 508.", "started_from": uids[0], "turns": []},
        {"text": "Paris.", "started_from": None, "turns": []},
    ],
}


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture(params=JUDGEMENTS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def given(project: Project, ann: Membership, kind: str) -> Assignment:
    make_task(project, kind)
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    return assignment


@pytest.fixture
def judgements(given: Assignment, kind: str) -> list[dict[str, Any]]:
    return JUDGEMENTS[kind](shown_order(assignment=given))


def stored() -> Submission:
    return Submission.objects.get()


def test_a_judgement_is_read_back_as_it_was_given(
    given: Assignment, judgements: list[dict[str, Any]], ann: Membership
) -> None:
    settled = judgement_submit(
        assignment=given, judgement=judgements[0], rationale="So.", active_s=4.5
    )
    assert settled.stands
    submission = stored()
    assert settled.submission == submission
    assert judgement_of(submission) == judgements[0]
    assert submission.status == Status.ACCEPTED
    assert submission.source == ann.source == "person"
    assert (submission.rationale, submission.active_s) == ("So.", 4.5)
    assert submission.shown_order == shown_order(assignment=given)
    given.refresh_from_db()
    assert given.state == State.SUBMITTED


def test_a_judgement_of_another_kind_is_refused(given: Assignment, kind: str) -> None:
    from annotation.services.kinds import KINDS
    from annotation.services.submissions import submission_settle

    other = KINDS["ranking" if kind != "ranking" else "pair"]
    with pytest.raises(ApplicationError, match="not a"):
        submission_settle(other, assignment=given, judgement={})


def test_sent_twice_it_is_one_and_sent_otherwise_it_lies_beside(
    given: Assignment, judgements: list[dict[str, Any]]
) -> None:
    first, second = judgements
    for _ in range(2):
        assert judgement_submit(assignment=given, judgement=first).stands
    assert not SubmissionRevision.objects.exists()
    for _ in range(2):
        assert not judgement_submit(assignment=given, judgement=second).stands
    assert judgement_of(stored()) == first
    assert SubmissionRevision.objects.get().payload == {**second, "rationale": ""}


def test_undone_it_is_withdrawn_and_comes_back_as_the_draft(
    given: Assignment, judgements: list[dict[str, Any]], ann: Membership
) -> None:
    judgement_submit(assignment=given, judgement=judgements[0], rationale="Hm.")
    for _ in range(2):  # sent twice
        back = submission_undo(assignment=given)
    assert back.state == State.LIVE
    assert back.draft == {**judgements[0], "rationale": "Hm."}
    assert back.draft_sequence == 1
    assert stored().status == Status.WITHDRAWN
    assert Task.objects.get().slots_free == 0
    again = assignment_next(membership=ann)
    assert again == given


def test_done_again_the_same_submission_holds_the_new_judgement(
    given: Assignment, judgements: list[dict[str, Any]]
) -> None:
    first, second = judgements
    was = judgement_submit(assignment=given, judgement=first).submission
    back = submission_undo(assignment=given)
    settled = judgement_submit(assignment=back, judgement=second, active_s=9)
    assert settled.stands and settled.submission.pk == was.pk
    submission = stored()
    assert judgement_of(submission) == second
    assert (submission.status, submission.active_s) == (Status.ACCEPTED, 9)
    assert submission.created_at >= was.created_at
    assert SubmissionRevision.objects.get().payload == {**first, "rationale": ""}
    assert Task.objects.get().slots_free == 0


def test_done_again_as_it_was_it_leaves_no_revision(
    given: Assignment, judgements: list[dict[str, Any]]
) -> None:
    judgement_submit(assignment=given, judgement=judgements[0])
    judgement_submit(assignment=submission_undo(assignment=given), judgement=judgements[0])
    assert stored().status == Status.ACCEPTED
    assert not SubmissionRevision.objects.exists()


def test_undone_and_then_skipped_it_stays_withdrawn_and_frees_the_slot(
    given: Assignment, judgements: list[dict[str, Any]]
) -> None:
    judgement_submit(assignment=given, judgement=judgements[0])
    assignment_skip(assignment=submission_undo(assignment=given), reason="unclear")
    assert stored().status == Status.WITHDRAWN
    assert Task.objects.get().slots_free == 1


@pytest.fixture
def pair(project: Project, ann: Membership) -> Assignment:
    make_task(project, "pair")
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    better = shown_order(assignment=assignment)[0]
    judgement_submit(assignment=assignment, judgement={"better": better, "degree": 2, "unsafe": []})
    return assignment


def ended_before(assignment: Assignment, seconds: float) -> None:
    Assignment.objects.filter(pk=assignment.pk).update(
        ended_at=timezone.now() - timedelta(seconds=seconds)
    )


def test_undo_has_ten_seconds_and_what_the_way_takes(pair: Assignment) -> None:
    ended_before(pair, UNDO_S + 6)
    with pytest.raises(ConflictError, match="10 seconds"):
        submission_undo(assignment=pair)
    assert stored().status == Status.ACCEPTED
    ended_before(pair, UNDO_S + 4)
    submission_undo(assignment=pair)
    assert stored().status == Status.WITHDRAWN


def test_what_was_never_submitted_cannot_be_undone(project: Project, ann: Membership) -> None:
    make_task(project, "pair")
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    with pytest.raises(ConflictError, match="not submitted"):
        submission_undo(assignment=assignment)


def test_what_a_reviewer_has_seen_cannot_be_undone(project: Project, pair: Assignment) -> None:
    bob = make_member(project, "bob", Membership.Role.REVIEWER)
    Review.objects.create(submission=stored(), reviewer=bob, verdict="accept")
    with pytest.raises(ConflictError, match="reviewer"):
        submission_undo(assignment=pair)


def test_a_closed_task_keeps_what_it_was_given(pair: Assignment) -> None:
    assert pair.task.batch is not None
    batch_tasks_close(batch=pair.task.batch)
    with pytest.raises(ConflictError, match="stands"):
        submission_undo(assignment=pair)
    assert stored().status == Status.ACCEPTED


def test_a_surplus_submission_that_is_undone_takes_no_slot_that_is_not_there(
    pair: Assignment,
) -> None:
    Submission.objects.update(status=Status.SURPLUS)
    back = submission_undo(assignment=pair)
    assert back.state == State.EXPIRED
    assert Task.objects.get().slots_free == 0


def test_a_reopened_submission_waits_for_its_annotator(pair: Assignment) -> None:
    ended_before(pair, 3600)
    back = submission_reopen(submission=stored())
    assert (back.state, stored().status) == (State.LIVE, Status.WITHDRAWN)
    with pytest.raises(ConflictError, match="already"):
        submission_reopen(submission=stored())


def test_a_reason_is_asked_for_where_the_project_asks(project: Project, ann: Membership) -> None:
    TaskForm.objects.create(project=project, kind="pair", settings={"rationale": "required"})
    make_task(project, "pair")
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    judgement = {"better": None, "degree": 0, "unsafe": []}
    with pytest.raises(ApplicationError) as refused:
        judgement_submit(assignment=assignment, judgement=judgement, rationale=" ")
    assert refused.value.extra == {"field": "rationale"}
    assert judgement_submit(assignment=assignment, judgement=judgement, rationale="Same.").stands
