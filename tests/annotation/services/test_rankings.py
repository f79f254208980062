"""Submitting a ranking: what is accepted, what is surplus, what is refused."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.models import Assignment, Membership, Project, Submission, SubmissionRevision, Task
from annotation.selectors import shown_order
from annotation.services.assignments import assignment_next, assignment_skip, assignments_expire
from annotation.services.batches import batch_tasks_close
from annotation.services.rankings import ranking_submit
from modelhub.errors import ApplicationError
from tests.builders import make_batch, make_member, make_project, make_ranking_task

pytestmark = pytest.mark.django_db
Status = Submission.Status


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def ben(project: Project) -> Membership:
    return make_member(project, "ben")


@pytest.fixture
def task(project: Project) -> Task:
    return make_ranking_task(project)


def given(membership: Membership) -> Assignment:
    assignment = assignment_next(membership=membership)
    assert assignment is not None
    return assignment


def lapse(assignment: Assignment) -> None:
    Assignment.objects.filter(pk=assignment.pk).update(
        lease_until=timezone.now() - timedelta(seconds=1)
    )
    assert assignments_expire() == 1


def uids(task: Task) -> list[str]:
    return [one.candidate.uid for one in task.task_candidates.order_by("position")]


def slots_free(task: Task) -> int:
    return Task.objects.get(pk=task.pk).slots_free


def test_a_ranking_is_stored_with_what_the_annotator_saw(task: Task, ann: Membership) -> None:
    a, b, c = uids(task)
    assignment = given(ann)
    submission = ranking_submit(
        assignment=assignment,
        tiers=[[b], [c, a]],
        unacceptable=[c],
        rationale="clear",
        active_s=12.5,
    )
    stored = Submission.objects.get()
    assert stored == submission
    assert stored.status == Status.ACCEPTED
    assert stored.ranking.tiers == [[b], sorted([a, c])]
    assert stored.ranking.unacceptable == [c]
    assert (stored.rationale, stored.active_s) == ("clear", 12.5)
    assert stored.shown_order == shown_order(assignment=assignment)
    assert stored.is_simulated is False
    assignment.refresh_from_db()
    assert assignment.state == Assignment.State.SUBMITTED
    assert slots_free(task) == 0


@pytest.mark.parametrize(
    ("tiers", "field", "words"),
    [
        ("[[a], [b]]", "tiers", "is not ranked"),
        ("[[a], [b, b], [c]]", "tiers", "ranked 2 times"),
        ("[[a], [b], [c], [a]]", "tiers", "ranked 2 times"),
        ("[[a], [], [b, c]]", "tiers", "A tier is empty"),
        ("[[a], [b], [c], ['0' * 32]]", "tiers", "is not a candidate"),
        ("[]", "tiers", "is not ranked"),
    ],
)
def test_tiers_hold_each_candidate_once(
    task: Task, ann: Membership, tiers: str, field: str, words: str
) -> None:
    a, b, c = uids(task)
    assignment = given(ann)
    with pytest.raises(ApplicationError) as refused:
        ranking_submit(assignment=assignment, tiers=eval(tiers, {"a": a, "b": b, "c": c}))
    assert refused.value.extra == {"field": field}
    assert words in refused.value.message
    assignment.refresh_from_db()
    assert assignment.state == Assignment.State.LIVE
    assert not Submission.objects.exists()


def test_a_candidate_of_another_project_is_refused_by_name(task: Task, ann: Membership) -> None:
    foreign = uids(make_ranking_task(make_project("Other")))[0]
    a, b, c = uids(task)
    with pytest.raises(ApplicationError, match=foreign):
        ranking_submit(assignment=given(ann), tiers=[[a], [b], [c], [foreign]])
    with pytest.raises(ApplicationError, match=foreign):
        ranking_submit(assignment=given(ann), tiers=[[a], [b], [c]], unacceptable=[foreign])
    assert not Submission.objects.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("rationale", "x" * 20_001), ("active_s", -1.0), ("active_s", float("nan"))],
)
def test_what_is_out_of_range_is_refused(
    task: Task, ann: Membership, field: str, value: object
) -> None:
    with pytest.raises(ApplicationError) as refused:
        ranking_submit(assignment=given(ann), tiers=[uids(task)], **{field: value})
    assert refused.value.extra == {"field": field}


def test_a_late_submission_is_accepted_where_the_slot_is_free(task: Task, ann: Membership) -> None:
    assignment = given(ann)
    lapse(assignment)
    assert ranking_submit(assignment=assignment, tiers=[uids(task)]).status == Status.ACCEPTED
    assert slots_free(task) == 0


def test_a_submission_past_a_lease_that_nobody_reaped_is_accepted(
    task: Task, ann: Membership
) -> None:
    assignment = given(ann)
    Assignment.objects.update(lease_until=timezone.now() - timedelta(hours=1))
    assert ranking_submit(assignment=assignment, tiers=[uids(task)]).status == Status.ACCEPTED
    assert slots_free(task) == 0


def test_a_late_submission_is_surplus_where_another_has_the_slot(
    task: Task, ann: Membership, ben: Membership
) -> None:
    slow = given(ann)
    lapse(slow)
    quick = given(ben)
    assert ranking_submit(assignment=quick, tiers=[uids(task)]).status == Status.ACCEPTED
    kept = ranking_submit(assignment=slow, tiers=[uids(task)], rationale="an hour of thought")
    assert kept.status == Status.SURPLUS
    assert kept.rationale == "an hour of thought"
    assert slots_free(task) == 0


def test_a_submission_to_a_closed_task_is_surplus_and_gives_its_slot_back(
    project: Project, ann: Membership
) -> None:
    batch = make_batch(project)
    task = make_ranking_task(project, batch=batch)
    assignment = given(ann)
    batch_tasks_close(batch=batch)
    assert ranking_submit(assignment=assignment, tiers=[uids(task)]).status == Status.SURPLUS
    assert slots_free(task) == 1


def test_a_skip_may_be_thought_better_of(task: Task, ann: Membership) -> None:
    assignment = given(ann)
    assignment_skip(assignment=assignment, reason="unclear")
    assert ranking_submit(assignment=assignment, tiers=[uids(task)]).status == Status.ACCEPTED
    assignment.refresh_from_db()
    assert assignment.skip_reason == ""
    assert slots_free(task) == 0


def test_the_same_ranking_twice_is_one_submission(task: Task, ann: Membership) -> None:
    a, b, c = uids(task)
    assignment = given(ann)
    first = ranking_submit(assignment=assignment, tiers=[[a, b], [c]])
    again = ranking_submit(assignment=assignment, tiers=[[b, a], [c]])
    assert first == again
    assert not SubmissionRevision.objects.exists()


def test_another_ranking_from_a_second_tab_is_kept_as_a_revision(
    task: Task, ann: Membership
) -> None:
    a, b, c = uids(task)
    assignment = given(ann)
    second_tab = given(ann)
    assert second_tab == assignment
    first = ranking_submit(assignment=assignment, tiers=[[a], [b], [c]])
    for _ in range(2):
        again = ranking_submit(assignment=second_tab, tiers=[[c], [b], [a]], rationale="no: c")
        assert again == first
    revision = SubmissionRevision.objects.get()
    assert revision.payload == {
        "tiers": [[c], [b], [a]],
        "unacceptable": [],
        "rationale": "no: c",
    }
    first.refresh_from_db()
    assert first.ranking.tiers == [[a], [b], [c]]
    assert slots_free(task) == 0


def test_what_a_program_ranks_is_marked_for_ever(project: Project, task: Task) -> None:
    robot = make_member(project, "robot", simulated=True)
    submission = ranking_submit(assignment=given(robot), tiers=[uids(task)])
    assert submission.is_simulated is True


def test_slots_reconcile_with_what_is_live_and_accepted(
    project: Project, ann: Membership, ben: Membership
) -> None:
    task = make_ranking_task(project, overlap=2)
    for step in (
        lambda: lapse(given(ann)),
        lambda: ranking_submit(assignment=given(ben), tiers=[uids(task)]),
        lambda: given(make_member(project, "cat")),
        lambda: ranking_submit(
            assignment=Assignment.objects.get(annotator=ann), tiers=[uids(task)]
        ),
    ):
        step()
        live = task.assignments.filter(state=Assignment.State.LIVE).count()
        accepted = task.submissions.filter(status=Status.ACCEPTED).count()
        assert slots_free(task) + live + accepted == task.overlap
    assert task.submissions.get(annotator=ann).status == Status.SURPLUS
