"""Which task comes next: four orders, loading ahead, tests, tasks with a known answer."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotation.models import Assignment, Membership, Project, Question, Task
from annotation.selectors import open_count, shown_order, tasks_open, tasks_open_in_turn
from annotation.selectors.queue import WINDOW
from annotation.services.assignments import (
    assignment_next,
    assignment_pause,
    assignment_renew,
    assignment_skip,
    assignments_expire,
    draft_save,
)
from annotation.services.rankings import ranking_submit
from modelhub.errors import ConflictError
from tests.builders import make_batch, make_member, make_prompt, make_ranking_task

pytestmark = pytest.mark.django_db
State, Order = Assignment.State, Project.Order


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def ben(project: Project) -> Membership:
    return make_member(project, "ben")


def given(membership: Membership, **wanted) -> Assignment:
    assignment = assignment_next(membership=membership, **wanted)
    assert assignment is not None
    return assignment


def submit(assignment: Assignment) -> None:
    tiers = [[uid] for uid in shown_order(assignment=assignment)]
    ranking_submit(assignment=assignment, tiers=tiers)


def ordered(project: Project, order: str) -> None:
    Project.objects.filter(pk=project.pk).update(queue_order=order)


def many(project: Project, count: int, **fields) -> list[Task]:
    """Tasks without candidates, quickly: enough to be handed out."""
    prompt = make_prompt(project)
    values = {"overlap": 1, "slots_free": 1, **fields}
    return Task.objects.bulk_create(
        Task(project=project, kind="ranking", prompt=prompt, **values) for _ in range(count)
    )


def all_of(membership: Membership) -> list[int]:
    """The tasks in the order in which the member is given them, each skipped."""
    found = []
    while (assignment := assignment_next(membership=membership)) is not None:
        found.append(assignment.task_id)
        assignment_skip(assignment=assignment, reason="the next")
    return found


# Orders


def test_at_random_is_by_lot_and_not_by_age(project: Project, ann: Membership) -> None:
    ordered(project, Order.RANDOM)
    tasks = many(project, 12)
    assert len({task.lottery for task in tasks}) == 12
    assert all_of(ann) == [task.pk for task in sorted(tasks, key=lambda task: task.lottery)]


def test_the_least_covered_first_then_the_oldest(project: Project, ann: Membership) -> None:
    ordered(project, Order.LEAST_COVERED)
    twice, once = many(project, 1, overlap=5, slots_free=3), many(project, 2, overlap=2)
    never = many(project, 1, overlap=1)
    wanted = [*never, *once, *twice]
    assert all_of(ann) == [task.pk for task in wanted]


def test_what_the_reward_model_doubts_most_is_first(project: Project, ann: Membership) -> None:
    ordered(project, Order.DOUBT)
    sure, torn, wary = (many(project, 1, doubt=doubt)[0] for doubt in (0.1, 0.9, 0.4))
    assert all_of(ann) == [torn.pk, wary.pk, sure.pk]


@pytest.mark.parametrize("order", Order.values)
def test_each_order_finds_its_first_task_by_an_index_and_sorts_nothing(
    project: Project, ann: Membership, order: str
) -> None:
    ordered(project, order)
    many(project, 5)
    ann.refresh_from_db()
    name = "task_open" if order == Order.PRIORITY else f"task_open_{order}"
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert tasks_open(membership=ann).first() is not None
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {captured.captured_queries[-1]['sql']}")
            plan = " | ".join(row[3] for row in cursor.fetchall())
        assert f"USING INDEX {name} " in plan
        assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("order", Order.values)
def test_a_member_who_had_all_that_is_in_front_does_not_pay_for_what_is_behind(
    project: Project, ann: Membership, order: str
) -> None:
    """Each row of the front is found by its key; nothing is walked but the front's own index."""
    ordered(project, order)
    many(project, 5)
    ann.refresh_from_db()
    front = next(tasks_open_in_turn(membership=ann))
    with CaptureQueriesContext(connection) as captured:
        assert front.first() is not None
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {captured.captured_queries[0]['sql']}")
            plan = [row[3] for row in cursor.fetchall()]
        assert "SEARCH annotation_task USING INTEGER PRIMARY KEY (rowid=?)" in plan
        assert sum("task_open" in step for step in plan) == 1


def test_a_claim_costs_the_same_few_queries_however_many_tasks_there_are(
    project: Project, ann: Membership
) -> None:
    costs = []
    for count in (3, 300):
        many(project, count)
        with CaptureQueriesContext(connection) as captured:
            assignment = given(ann)
        costs.append(len(captured))
        assignment_skip(assignment=assignment, reason="the next")
    assert costs[0] == costs[1] <= 7  # with the test's own savepoint


# Far ahead of the others


@pytest.mark.parametrize("order", Order.values)
def test_a_member_far_ahead_is_given_every_task_once(
    project: Project, ann: Membership, order: str
) -> None:
    """Past the window the search goes on after the last task handed out, and misses nothing."""
    ordered(project, order)
    tasks = many(project, WINDOW * 2 + 10, overlap=3, slots_free=3)
    done = []
    while (assignment := assignment_next(membership=ann)) is not None:
        done.append(assignment.task_id)
        Assignment.objects.filter(pk=assignment.pk).update(state=State.SUBMITTED)
    assert len(done) == len(tasks)
    assert set(done) == {task.pk for task in tasks}


def test_a_member_far_ahead_is_still_given_what_is_urgent_first(
    project: Project, ann: Membership
) -> None:
    many(project, WINDOW * 2, overlap=2, slots_free=2)
    for _ in range(WINDOW + 5):
        Assignment.objects.filter(pk=given(ann).pk).update(state=State.SUBMITTED)
    assert open_count(membership=ann) == WINDOW - 5
    (urgent,) = many(project, 1, priority=9)
    assert given(ann).task == urgent


def test_a_slot_that_came_back_behind_a_member_far_ahead_is_found_in_the_end(
    project: Project, ann: Membership, ben: Membership
) -> None:
    first = many(project, 1)[0]
    many(project, WINDOW + 2, overlap=2, slots_free=2)
    held = given(ben)
    assert held.task == first
    for _ in range(WINDOW + 2):
        Assignment.objects.filter(pk=given(ann).pk).update(state=State.SUBMITTED)
    assert assignment_next(membership=ann) is None
    assignment_skip(assignment=held, reason="unclear")
    assert given(ann).task == first


# Loaded ahead


def test_the_task_after_this_one_can_be_loaded_ahead_and_comes_next(
    project: Project, ann: Membership
) -> None:
    one, two, _three = (make_ranking_task(project) for _ in range(3))
    current = given(ann)
    ahead = given(ann, after=current.uid)
    assert (current.task, ahead.task) == (one, two)
    assert given(ann).pk == current.pk
    submit(current)
    assert given(ann).pk == ahead.pk


def test_nobody_holds_more_than_two(project: Project, ann: Membership) -> None:
    for _ in range(4):
        make_ranking_task(project)
    current = given(ann)
    ahead = given(ann, after=current.uid)
    assert given(ann, after=current.uid).pk == ahead.pk
    assert given(ann, after="f" * 32).pk == current.pk
    assert given(ann, after=ahead.uid).pk == current.pk
    assert Assignment.objects.filter(annotator=ann, state=State.LIVE).count() == 2


def test_a_lapsed_task_is_not_loaded_ahead_of_itself(project: Project, ann: Membership) -> None:
    make_ranking_task(project)
    current = given(ann)
    Assignment.objects.filter(pk=current.pk).update(
        lease_until=timezone.now() - timedelta(seconds=1)
    )
    assignments_expire()
    assert assignment_next(membership=ann, after=current.uid) is None
    assert given(ann).pk == current.pk


# Paused by a question


def test_a_paused_task_keeps_its_slot_and_another_is_given_meanwhile(
    project: Project, ann: Membership, ben: Membership
) -> None:
    asked_about, other = make_ranking_task(project), make_ranking_task(project)
    paused = assignment_pause(assignment=given(ann))
    question = Question.objects.create(assignment=paused, text="Is it?")
    Assignment.objects.filter(pk=paused.pk).update(lease_until=timezone.now() - timedelta(days=1))
    assert assignments_expire() == 0
    meanwhile = given(ann)
    assert meanwhile.task == other
    assert assignment_next(membership=ben) is None
    assert assignment_renew(assignment=paused).state == State.PAUSED

    Question.objects.filter(pk=question.pk).update(answer="It is.", answered_at=timezone.now())
    back = given(ann)
    assert (back.pk, back.task, back.state) == (paused.pk, asked_about, State.LIVE)
    assert back.lease_until > timezone.now()
    submit(back)
    assert given(ann).pk == meanwhile.pk


def test_a_draft_of_a_paused_task_is_kept(project: Project, ann: Membership) -> None:
    make_ranking_task(project)
    paused = assignment_pause(assignment=given(ann))
    assert draft_save(assignment=paused, draft={"n": 1}, sequence=1).saved
    paused.refresh_from_db()
    assert (paused.state, paused.draft) == (State.PAUSED, {"n": 1})


def test_skipping_a_paused_task_frees_its_slot(
    project: Project, ann: Membership, ben: Membership
) -> None:
    task = make_ranking_task(project)
    assignment_skip(assignment=assignment_pause(assignment=given(ann)), reason="unclear")
    assert given(ben).task == task


def test_what_is_over_cannot_be_paused(project: Project, ann: Membership, ben: Membership) -> None:
    make_ranking_task(project)
    assignment = given(ann)
    Assignment.objects.filter(pk=assignment.pk).update(
        lease_until=timezone.now() - timedelta(seconds=1)
    )
    submit(given(ben))
    with pytest.raises(ConflictError):
        assignment_pause(assignment=assignment)


# Tests and tasks with a known answer


def test_before_the_test_is_passed_there_is_the_test_alone(
    project: Project, ann: Membership, ben: Membership
) -> None:
    Project.objects.filter(pk=project.pk).update(qualification_pass=0.5)
    (work,) = many(project, 1)
    (test,) = many(project, 1, is_qualification=True, overlap=9, slots_free=9)
    Membership.objects.filter(pk=ben.pk).update(qualified_at=timezone.now())
    assert given(ann).task == test
    assert open_count(membership=make_member(project, "cat")) == 1
    submit(given(ann))
    assert assignment_next(membership=ann) is None
    assert given(ben).task == work
    Membership.objects.filter(pk=ann.pk).update(qualified_at=timezone.now())
    assert assignment_next(membership=ann) is None


def test_without_a_pass_mark_the_tests_are_given_to_nobody(
    project: Project, ann: Membership
) -> None:
    many(project, 1, is_qualification=True)
    assert assignment_next(membership=ann) is None


def test_tasks_with_a_known_answer_are_the_projects_share_of_what_is_given(
    project: Project, ann: Membership
) -> None:
    Project.objects.filter(pk=project.pk).update(gold_share=0.2)
    many(project, 60)
    gold = {task.pk for task in many(project, 30, overlap=50, slots_free=50, gold={"tiers": []})}
    found = []
    for _ in range(50):
        assignment = given(ann)
        found.append(assignment.task_id in gold)
        Assignment.objects.filter(pk=assignment.pk).update(state=State.SUBMITTED)
    assert sum(found) == 10
    assert sum(found[:25]) == 5


def test_without_a_share_tasks_with_a_known_answer_are_not_given(
    project: Project, ann: Membership
) -> None:
    many(project, 1, gold={"tiers": []})
    assert assignment_next(membership=ann) is None


def test_when_the_known_answers_have_run_out_the_work_goes_on(
    project: Project, ann: Membership
) -> None:
    Project.objects.filter(pk=project.pk).update(gold_share=0.5)
    many(project, 10)
    many(project, 1, overlap=50, slots_free=50, gold={"tiers": []})
    assert len(all_of(ann)) == 11


def test_a_batch_is_done_whole_whatever_is_known_of_it(project: Project, ann: Membership) -> None:
    Project.objects.filter(pk=project.pk).update(gold_share=0.5, queue_order=Order.RANDOM)
    batch = make_batch(project)
    wanted = [make_ranking_task(project, batch=batch) for _ in range(3)]
    Task.objects.filter(pk=wanted[0].pk).update(gold={"tiers": []})
    make_ranking_task(project)
    done = set()
    while (assignment := assignment_next(membership=ann, batch=batch)) is not None:
        done.add(assignment.task)
        submit(assignment)
    assert done == set(wanted)
