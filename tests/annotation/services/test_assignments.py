"""Handing tasks out, drafts, skips and leases, one person at a time."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotation.models import Assignment, Membership, Project, Task
from annotation.selectors import shown_order
from annotation.services.assignments import (
    assignment_next,
    assignment_renew,
    assignment_skip,
    assignments_expire,
    draft_save,
)
from annotation.services.batches import batch_tasks_close
from annotation.services.projects import guideline_publish, membership_remove
from annotation.services.rankings import ranking_submit
from modelhub.errors import ApplicationError, ConflictError
from tests.builders import make_batch, make_member, make_ranking_task

pytestmark = pytest.mark.django_db
State = Assignment.State


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def ben(project: Project) -> Membership:
    return make_member(project, "ben")


def given(membership: Membership) -> Assignment:
    assignment = assignment_next(membership=membership)
    assert assignment is not None
    return assignment


def lapse(assignment: Assignment) -> None:
    Assignment.objects.filter(pk=assignment.pk).update(
        lease_until=timezone.now() - timedelta(seconds=1)
    )


def submit(assignment: Assignment):
    tiers = [[uid] for uid in shown_order(assignment=assignment)]
    return ranking_submit(assignment=assignment, tiers=tiers)


def slots_free(task: Task) -> int:
    return Task.objects.get(pk=task.pk).slots_free


def test_nothing_to_do_is_none(ann: Membership) -> None:
    assert assignment_next(membership=ann) is None


def test_a_task_is_handed_out_with_a_lease_and_its_slot_is_taken(
    project: Project, ann: Membership, settings
) -> None:
    task = make_ranking_task(project)
    settings.ASSIGNMENT_LEASE_S = 60
    before = timezone.now()
    assignment = given(ann)
    assert assignment.task == task
    assert assignment.state == State.LIVE
    held = assignment.lease_until - before
    assert timedelta(seconds=60) <= held < timedelta(seconds=70)
    assert slots_free(task) == 0


def test_the_highest_priority_is_first_then_the_oldest(project: Project, ann: Membership) -> None:
    late = make_ranking_task(project)
    later = make_ranking_task(project)
    urgent = make_ranking_task(project, priority=5)
    order = []
    for _ in range(3):
        assignment = given(ann)
        order.append(assignment.task)
        submit(assignment)
    assert order == [urgent, late, later]


def test_asking_again_gives_the_same_task_and_renews_the_lease(
    project: Project, ann: Membership
) -> None:
    make_ranking_task(project)
    make_ranking_task(project)
    first = given(ann)
    lapse(first)
    again = given(ann)
    assert again.pk == first.pk
    assert again.lease_until > timezone.now()


def test_one_slot_goes_to_one_person(project: Project, ann: Membership, ben: Membership) -> None:
    make_ranking_task(project)
    given(ann)
    assert assignment_next(membership=ben) is None


def test_a_task_of_overlap_two_goes_to_two_people_and_no_third(
    project: Project, ann: Membership, ben: Membership
) -> None:
    task = make_ranking_task(project, overlap=2)
    assert given(ann).task == given(ben).task == task
    assert assignment_next(membership=make_member(project, "cat")) is None


def test_a_submitted_task_never_comes_back_to_the_same_person(
    project: Project, ann: Membership
) -> None:
    task = make_ranking_task(project, overlap=2)
    submit(given(ann))
    assert slots_free(task) == 1
    assert assignment_next(membership=ann) is None


def test_a_skipped_task_goes_to_others_and_not_back(
    project: Project, ann: Membership, ben: Membership
) -> None:
    task = make_ranking_task(project)
    assignment = assignment_skip(assignment=given(ann), reason=" unclear ")
    assert (assignment.state, assignment.skip_reason) == (State.SKIPPED, "unclear")
    assert slots_free(task) == 1
    assert assignment_next(membership=ann) is None
    assert given(ben).task == task


@pytest.mark.parametrize("reason", ["", "   ", "x" * 301])
def test_a_skip_needs_a_reason(project: Project, ann: Membership, reason: str) -> None:
    make_ranking_task(project)
    assignment = given(ann)
    with pytest.raises(ApplicationError) as refused:
        assignment_skip(assignment=assignment, reason=reason)
    assert refused.value.extra == {"field": "reason"}
    assignment.refresh_from_db()
    assert assignment.state == State.LIVE


def test_skipping_twice_returns_one_slot(project: Project, ann: Membership) -> None:
    task = make_ranking_task(project)
    assignment = given(ann)
    assignment_skip(assignment=assignment, reason="unclear")
    assignment_skip(assignment=assignment, reason="unclear")
    assert slots_free(task) == 1


def test_what_was_submitted_cannot_be_skipped(project: Project, ann: Membership) -> None:
    make_ranking_task(project)
    assignment = given(ann)
    submit(assignment)
    with pytest.raises(ConflictError):
        assignment_skip(assignment=assignment, reason="too late")


def test_a_lapsed_lease_frees_the_slot_once(
    project: Project, ann: Membership, ben: Membership
) -> None:
    task = make_ranking_task(project)
    assignment = given(ann)
    assert assignments_expire() == 0
    lapse(assignment)
    assert assignments_expire() == 1
    assert assignments_expire() == 0
    assignment.refresh_from_db()
    assert assignment.state == State.EXPIRED
    assert slots_free(task) == 1
    assert given(ben).task == task


def test_a_claim_takes_back_lapsed_slots_without_the_scheduler(
    project: Project, ann: Membership, ben: Membership
) -> None:
    task = make_ranking_task(project)
    lapse(given(ann))
    assert given(ben).task == task


def test_what_was_begun_comes_back_before_what_is_new_drafts_first(
    project: Project, ann: Membership
) -> None:
    drafted = given_task = make_ranking_task(project)
    make_ranking_task(project, priority=9)
    first = given(ann)  # the urgent one
    assignment_skip(assignment=first, reason="not mine")
    second = given(ann)
    assert second.task == given_task
    draft_save(assignment=second, draft={"tiers": []}, sequence=1)
    lapse(second)
    assignments_expire()
    make_ranking_task(project, priority=99)
    resumed = given(ann)
    assert resumed.pk == second.pk
    assert resumed.task == drafted
    assert (resumed.state, resumed.draft) == (State.LIVE, {"tiers": []})
    assert slots_free(drafted) == 0


def test_what_was_begun_and_has_gone_to_another_does_not_come_back(
    project: Project, ann: Membership, ben: Membership
) -> None:
    make_ranking_task(project)
    lapse(given(ann))
    given(ben)
    assert assignment_next(membership=ann) is None


def test_renewing_extends_and_revives_where_the_slot_is_free(
    project: Project, ann: Membership, ben: Membership
) -> None:
    task = make_ranking_task(project)
    assignment = given(ann)
    lapse(assignment)
    assert assignment_renew(assignment=assignment).lease_until > timezone.now()
    lapse(assignment)
    assignments_expire()
    assert assignment_renew(assignment=assignment).state == State.LIVE
    assert slots_free(task) == 0
    lapse(assignment)
    given(ben)
    assert assignment_renew(assignment=assignment).state == State.EXPIRED


def test_the_newest_draft_wins_in_whatever_order_they_arrive(
    project: Project, ann: Membership
) -> None:
    make_ranking_task(project)
    assignment = given(ann)
    receipts = [draft_save(assignment=assignment, draft={"n": n}, sequence=n) for n in (1, 3, 2, 3)]
    assert [one.saved for one in receipts] == [True, True, False, False]
    assert [one.sequence for one in receipts] == [1, 3, 3, 3]
    assert receipts[0].notice == "" and "newer" in receipts[2].notice
    assignment.refresh_from_db()
    assert (assignment.draft, assignment.draft_sequence) == ({"n": 3}, 3)


def test_a_draft_renews_the_lease(project: Project, ann: Membership) -> None:
    make_ranking_task(project)
    assignment = given(ann)
    lapse(assignment)
    draft_save(assignment=assignment, draft={}, sequence=1)
    assert assignments_expire() == 0


def test_a_draft_is_kept_though_the_lease_has_gone_to_another(
    project: Project, ann: Membership, ben: Membership
) -> None:
    make_ranking_task(project)
    assignment = given(ann)
    lapse(assignment)
    given(ben)
    receipt = draft_save(assignment=assignment, draft={"n": 1}, sequence=1)
    assert receipt.saved and receipt.state == State.EXPIRED
    assert "still send" in receipt.notice


def test_a_draft_after_the_submission_is_not_kept(project: Project, ann: Membership) -> None:
    make_ranking_task(project)
    assignment = given(ann)
    submit(assignment)
    receipt = draft_save(assignment=assignment, draft={"n": 1}, sequence=1)
    assert not receipt.saved
    assert "already submitted" in receipt.notice


@pytest.mark.parametrize("sequence", [0, -1, 2**31])
def test_a_draft_sequence_out_of_range_is_refused(
    project: Project, ann: Membership, sequence: int
) -> None:
    make_ranking_task(project)
    with pytest.raises(ApplicationError) as refused:
        draft_save(assignment=given(ann), draft={}, sequence=sequence)
    assert refused.value.extra == {"field": "sequence"}


def test_a_huge_draft_is_refused(project: Project, ann: Membership) -> None:
    make_ranking_task(project)
    with pytest.raises(ApplicationError) as refused:
        draft_save(assignment=given(ann), draft={"text": "x" * 200_000}, sequence=1)
    assert refused.value.extra == {"field": "draft"}


def test_a_closed_batch_is_handed_out_no_more(
    project: Project, ann: Membership, ben: Membership
) -> None:
    batch = make_batch(project)
    task = make_ranking_task(project, batch=batch)
    make_ranking_task(project, batch=batch)
    held = given(ann)
    assert batch_tasks_close(batch=batch) == 2
    assert batch_tasks_close(batch=batch) == 0
    assert assignment_next(membership=ben) is None
    assert assignment_next(membership=ann) is None
    held.refresh_from_db()
    assert held.state == State.EXPIRED
    assert slots_free(task) == 1


def test_only_the_tasks_of_a_batch_when_one_is_named(project: Project, ann: Membership) -> None:
    make_ranking_task(project)
    batch = make_batch(project)
    wanted = make_ranking_task(project, batch=batch)
    assignment = assignment_next(membership=ann, batch=batch)
    assert assignment is not None and assignment.task == wanted


def test_the_tasks_of_other_projects_are_not_handed_out(ann: Membership) -> None:
    from tests.builders import make_project

    make_ranking_task(make_project("Other"))
    assert assignment_next(membership=ann) is None


def test_a_member_who_left_is_given_nothing_and_holds_nothing(
    project: Project, ann: Membership, ben: Membership
) -> None:
    task = make_ranking_task(project)
    held = given(ann)
    draft_save(assignment=held, draft={"n": 1}, sequence=1)
    membership_remove(membership=ann)
    held.refresh_from_db()
    assert (held.state, held.draft) == (State.EXPIRED, {"n": 1})
    assert slots_free(task) == 1
    assert assignment_next(membership=ann) is None
    assert given(ben).task == task


def test_the_guideline_in_force_is_noted(project: Project, ann: Membership) -> None:
    make_ranking_task(project)
    make_ranking_task(project)
    first = given(ann)
    assert first.guideline is None
    submit(first)
    guideline_publish(project=project, text="Be fair.", author=None)
    newest = guideline_publish(project=project, text="Be fair and quick.", author=None)
    assert given(ann).guideline == newest


def test_the_shown_order_is_stable_and_differs_between_people(project: Project) -> None:
    task = make_ranking_task(project, texts=tuple("abcdef"), overlap=20)
    sampled = [one.candidate.uid for one in task.task_candidates.all()]
    orders = []
    for number in range(20):
        assignment = given(make_member(project, f"person-{number}"))
        order = shown_order(assignment=assignment)
        assert order == shown_order(assignment=Assignment.objects.get(pk=assignment.pk))
        assert sorted(order) == sorted(sampled)
        orders.append(tuple(order))
    assert len(set(orders)) > 10


@pytest.mark.parametrize("slots", [-1, 2])
def test_the_database_itself_refuses_slots_outside_the_overlap(
    project: Project, slots: int
) -> None:
    task = make_ranking_task(project)
    with pytest.raises(IntegrityError), transaction.atomic():
        Task.objects.filter(pk=task.pk).update(slots_free=slots)


def test_the_database_itself_refuses_a_second_assignment_of_a_task(
    project: Project, ann: Membership
) -> None:
    make_ranking_task(project, overlap=2)
    held = given(ann)
    with pytest.raises(IntegrityError), transaction.atomic():
        Assignment.objects.create(
            task=held.task, annotator=ann, lease_until=timezone.now(), shuffle_seed=1
        )
