"""A pair asked again mirrored: to the same person, later, sides swapped, and counted once."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from annotation.mirroring import TASKS_BETWEEN
from annotation.models import Assignment, Membership, Project, Report, Submission, Task
from annotation.overviews import slot_counts
from annotation.selectors import assignment_payload, shown_order
from annotation.selectors.judged import judgements_newest
from annotation.selectors.mirrors import self_agreements
from annotation.selectors.quality import quality_report
from annotation.selectors.tasks import task_counts
from annotation.services.assignments import assignment_next, assignment_release
from annotation.services.datasets import preference_dataset_freeze
from annotation.services.pairs import pair_submit
from annotation.services.reports import report_decide, report_submit, task_skip
from annotation.services.tasks import tasks_create
from tests.builders import make_batch, make_member, make_task

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def mirrored_project(project: Project) -> Project:
    project.mirrored_share = 0.5
    project.overlap = 2
    project.save()
    return project


def work(member: Membership, tasks: int, side: int | None = None) -> list[Assignment]:
    """Judge so many tasks: by the answer's text, or always the answer on one side."""
    done = []
    for _ in range(tasks):
        assignment = assignment_next(membership=member)
        assert assignment is not None
        shown = shown_order(assignment=assignment)
        better = shown[side] if side is not None else min(shown)
        pair_submit(assignment=assignment, better=better, degree=2)
        done.append(assignment)
    return done


def mirrored(assignments: list[Assignment]) -> list[Assignment]:
    return [one for one in assignments if one.task.mirror_of_id is not None]


def test_the_same_answers_come_back_later_with_their_sides_swapped(
    mirrored_project: Project, ann: Membership
) -> None:
    for _ in range(30):
        make_task(mirrored_project, "pair")
    done = work(ann, 30)
    again = mirrored(done)
    assert len(again) == pytest.approx(15, abs=6)
    for one in again:
        first = one.task.mirror_of
        assert first is not None
        assert first.annotator == ann
        assert shown_order(assignment=one) == first.shown_order[::-1]
        assert done.index(one) - done.index(first.assignment) > TASKS_BETWEEN
    originals = [one.task.mirror_of_id for one in again]
    assert len(set(originals)) == len(originals)


def test_nothing_tells_the_annotator_and_nobody_else_is_given_it(
    mirrored_project: Project, ann: Membership
) -> None:
    for _ in range(14):
        make_task(mirrored_project, "pair")
    (one, *_) = mirrored(work(ann, 14))
    payload = assignment_payload(assignment=one)
    assert set(payload["task"]) == {"uid", "kind", "is_sensitive"}
    assert "mirror" not in str(payload)
    bea = make_member(mirrored_project, "bea")
    # Let go of, its slot is free; still it is no one else's.
    slot_free = Task.objects.filter(pk=one.task_id)
    slot_free.update(slots_free=1)
    seen = {assignment.task_id for assignment in work(bea, 9)}
    assert one.task_id not in seen


def test_a_mirrored_pair_that_lapsed_comes_back_to_the_same_person(
    mirrored_project: Project, ann: Membership
) -> None:
    for _ in range(30):
        make_task(mirrored_project, "pair")
    work(ann, TASKS_BETWEEN + 1)
    assignment = assignment_next(membership=ann)
    while assignment is not None and assignment.task.mirror_of_id is None:
        pair_submit(assignment=assignment, better=None, degree=0)
        assignment = assignment_next(membership=ann)
    assert assignment is not None
    assert assignment_release(assignment=assignment)
    assert assignment_next(membership=ann) == assignment


def test_it_is_in_no_dataset_no_agreement_and_no_count_of_the_work(
    mirrored_project: Project, ann: Membership
) -> None:
    for _ in range(14):
        make_task(mirrored_project, "pair")
    done = work(ann, 14)
    count = 14 - len(mirrored(done))
    assert count < 14
    dataset = preference_dataset_freeze(project=mirrored_project, kind="pair")
    assert dataset.counts["total"] == dataset.counts["used"] == count
    assert len(judgements_newest(project=mirrored_project)) == count
    assert slot_counts(project=mirrored_project).accepted == count
    assert Submission.objects.count() == 14


def test_who_chooses_by_the_answer_agrees_with_themselves_and_who_takes_a_side_does_not(
    mirrored_project: Project, ann: Membership
) -> None:
    bea = make_member(mirrored_project, "bea")
    for _ in range(30):
        make_task(mirrored_project, "pair")
    work(ann, 30)
    taken = len(mirrored(work(bea, 30, side=0)))
    figures = self_agreements(project=mirrored_project)
    assert figures[ann.pk].same == figures[ann.pk].pairs > 5
    assert figures[ann.pk].took_the_side == 0
    assert (figures[bea.pk].pairs, figures[bea.pk].same) == (taken, 0)
    assert figures[bea.pk].took_the_side == taken
    reasons = {
        person.membership: person.reasons
        for person in quality_report(project=mirrored_project).people
    }
    assert "chooses otherwise when the sides are swapped" in reasons[bea]
    assert "chooses otherwise when the sides are swapped" not in reasons[ann]


@pytest.mark.parametrize("change", [{"mirrored_share": 0.0}, {"source": "simulated"}])
def test_nothing_is_asked_again_where_it_is_not_wanted_or_a_program_judges(
    mirrored_project: Project, ann: Membership, change: dict[str, Any]
) -> None:
    for name, value in change.items():
        holder = mirrored_project if hasattr(mirrored_project, name) else ann
        setattr(holder, name, value)
        holder.save()
    for _ in range(20):
        make_task(mirrored_project, "pair")
    ann.refresh_from_db()
    assert not mirrored(work(Membership.objects.get(pk=ann.pk), 20))


def test_the_figure_is_on_the_page_of_quality(
    mirrored_project: Project, ann: Membership, bob: User, signed_in
) -> None:
    for _ in range(14):
        make_task(mirrored_project, "pair")
    work(ann, 14, side=1)
    page = signed_in(bob).get(reverse("project_quality", args=[mirrored_project.uid]))
    assert "Same when mirrored" in page.content.decode()
    assert "took the side" in page.content.decode()


def test_what_is_held_back_or_retired_is_not_asked_again(
    mirrored_project: Project, ann: Membership
) -> None:
    for _ in range(30):
        make_task(mirrored_project, "pair")
    work(ann, TASKS_BETWEEN)
    tasks = Task.objects.filter(assignments__annotator=ann)
    tasks.update(closed_at=timezone.now())
    work(ann, TASKS_BETWEEN)
    tasks.filter(closed_at=None).update(held_at=timezone.now())
    assert not mirrored(work(ann, TASKS_BETWEEN))
    tasks.update(closed_at=None, held_at=None)
    assert mirrored(work(ann, TASKS_BETWEEN))


def test_nothing_is_asked_again_before_the_test_is_passed(
    mirrored_project: Project, ann: Membership
) -> None:
    for _ in range(30):
        make_task(mirrored_project, "pair")
    work(ann, TASKS_BETWEEN + 1)
    mirrored_project.mirrored_share = 1.0
    mirrored_project.qualification_pass = 0.8
    mirrored_project.save()
    membership = Membership.objects.get(pk=ann.pk)
    assert assignment_next(membership=membership) is None
    Membership.objects.filter(pk=ann.pk).update(qualified_at=timezone.now())
    assert mirrored(work(Membership.objects.get(pk=ann.pk), 1))


def test_a_mirrored_pair_is_no_task_of_the_project_that_is_counted_or_was_made(
    mirrored_project: Project, ann: Membership
) -> None:
    batch = make_batch(mirrored_project)
    for _ in range(14):
        make_task(mirrored_project, "pair", batch=batch)
    again = mirrored(work(ann, 14))
    Task.objects.filter(pk=again[0].task_id).update(slots_free=1)
    held = Task.objects.filter(batch=batch, assignments__isnull=True).first()
    (counted,) = [one for one in task_counts(project=mirrored_project) if one.kind == "pair"]
    assert held is not None
    assert (counted.tasks, counted.open) == (14, 14)
    Task.objects.filter(pk=held.pk).update(held_at=timezone.now())
    (counted,) = [one for one in task_counts(project=mirrored_project) if one.kind == "pair"]
    assert (counted.tasks, counted.open) == (14, 13)
    # Asked for without a batch, every prompt has its own.
    assert tasks_create(project=mirrored_project, kind="pair").made == 14


def test_a_report_of_the_copy_holds_the_pair_that_others_are_given(
    mirrored_project: Project, ann: Membership
) -> None:
    for _ in range(30):
        make_task(mirrored_project, "pair")
    copy = mirrored(work(ann, 30))[-1]
    first = copy.task.mirror_of
    assert first is not None
    report = report_submit(assignment=copy, text="Both are in Latin.")
    assert report_submit(assignment=copy, text="Both are in Latin.") == report
    assert report.task == first.task
    assert list(Task.objects.exclude(held_at=None)) == [first.task]
    bob = make_member(mirrored_project, "bob", Membership.Role.REVIEWER)
    report_decide(report=report, reviewer=bob, decision="keep")
    assert not Task.objects.exclude(held_at=None).exists()


def test_skipping_the_copy_counts_as_skipping_the_pair(
    mirrored_project: Project, ann: Membership
) -> None:
    mirrored_project.skips_to_review = 1
    mirrored_project.save()
    for _ in range(30):
        make_task(mirrored_project, "pair")
    while (copy := assignment_next(membership=ann)) and copy.task.mirror_of is None:
        pair_submit(assignment=copy, better=shown_order(assignment=copy)[0], degree=2)
    assert copy is not None and copy.task.mirror_of is not None
    task_skip(assignment=copy, reason="unclear")
    assert Report.objects.get().task == copy.task.mirror_of.task
    assert list(Task.objects.exclude(held_at=None)) == [copy.task.mirror_of.task]
