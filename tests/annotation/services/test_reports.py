"""A task with which something is wrong waits for a reviewer: reported, or skipped too often."""

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from annotation.models import Assignment, Membership, Notification, Project, Report, Submission
from annotation.services.assignments import assignment_next
from annotation.services.pairs import pair_submit
from annotation.services.reports import report_decide, report_submit, task_skip
from modelhub.errors import ApplicationError, ConflictError, RefusedError
from tests.builders import make_member, make_project, make_task

pytestmark = pytest.mark.django_db


@pytest.fixture
def people(project: Project) -> list[Membership]:
    return [make_member(project, name) for name in ("ann", "ben", "cat", "dan")]


@pytest.fixture
def reviewer(project: Project) -> Membership:
    return make_member(project, "rob", Membership.Role.REVIEWER)


def take(member: Membership) -> Assignment:
    assignment = assignment_next(membership=member)
    assert assignment is not None
    return assignment


def test_a_reported_task_is_finished_by_who_has_it_and_given_to_nobody_else(
    project: Project, people: list[Membership], reviewer: Membership
) -> None:
    task = make_task(project, "pair", overlap=3)
    given = take(people[0])
    report = report_submit(assignment=given, text=" The second is cut off. ")
    assert report_submit(assignment=given, text="The second is cut off.") == report
    assert assignment_next(membership=people[1]) is None
    (told,) = Notification.objects.all()
    assert told.recipient == reviewer
    assert told.path == reverse("project_reports", args=[project.uid])
    submission = pair_submit(assignment=given, better=None, degree=0)
    assert submission.status == Submission.Status.ACCEPTED

    report_decide(report=report, reviewer=reviewer, decision="keep")
    assert take(people[1]).task == task
    assert Notification.objects.filter(recipient=people[0]).count() == 1
    with pytest.raises(ConflictError):
        report_decide(report=report, reviewer=reviewer, decision="retire")


def test_a_retired_task_wants_nobody_more(
    project: Project, people: list[Membership], reviewer: Membership
) -> None:
    task = make_task(project, "pair", overlap=3)
    given = take(people[0])
    report = report_submit(assignment=given, text="Nonsense.")
    pair_submit(assignment=given, better=None, degree=0)
    report_decide(report=report, reviewer=reviewer, decision="retire")
    task.refresh_from_db()
    assert (task.overlap, task.slots_free) == (1, 0)
    assert task.closed_at is not None
    assert assignment_next(membership=people[1]) is None


def test_a_task_that_three_people_skip_goes_to_the_reviewers_by_itself(
    project: Project, people: list[Membership], reviewer: Membership
) -> None:
    make_task(project, "pair")
    for member, reason in zip(people[:3], ("Unclear", "Broken", "Unclear"), strict=True):
        assert not Report.objects.exists()
        task_skip(assignment=take(member), reason=reason)
    report = Report.objects.get()
    assert report.reporter is None
    assert report.text == "Unclear (× 2); Broken"
    assert Notification.objects.get().recipient == reviewer
    assert assignment_next(membership=people[3]) is None

    # Kept, it is out again; the skips before that are over and done with.
    report_decide(report=report, reviewer=reviewer, decision="keep")
    task_skip(assignment=take(people[3]), reason="Unclear")
    assert Report.objects.count() == 1


def test_a_project_may_never_route_skips(project: Project, people: list[Membership]) -> None:
    project.skips_to_review = 0
    project.save()
    make_task(project, "pair")
    for member in people:
        task_skip(assignment=take(member), reason="Unclear")
    assert not Report.objects.exists()


@pytest.mark.parametrize("text", ["", "  ", "x" * 2001])
def test_a_report_says_what_is_wrong(project: Project, people: list[Membership], text: str) -> None:
    make_task(project, "pair")
    with pytest.raises(ApplicationError) as refused:
        report_submit(assignment=take(people[0]), text=text)
    assert refused.value.extra == {"field": "text"}
    assert not Report.objects.exists()


def test_who_is_no_reviewer_of_the_project_decides_nothing(
    project: Project, people: list[Membership]
) -> None:
    make_task(project, "pair")
    report = report_submit(assignment=take(people[0]), text="Cut off.")
    elsewhere = make_member(make_project("Other"), "zoe", Membership.Role.MANAGER)
    for member in (people[0], elsewhere):
        with pytest.raises(RefusedError):
            report_decide(report=report, reviewer=member, decision="keep")


def test_a_reviewer_decides_on_the_page(
    project: Project, people: list[Membership], bob: User, signed_in
) -> None:
    make_task(project, "pair")
    report = report_submit(assignment=take(people[0]), text="The second is cut off.")
    url = reverse("project_reports", args=[project.uid])
    client = signed_in(bob)
    assert "The second is cut off." in client.get(url).content.decode()
    client.post(url, {"report": report.uid, "decision": "retire"})
    report.refresh_from_db()
    assert report.decision == "retire"
    assert "retired" in client.get(url).content.decode()
    assert signed_in(people[0].user).get(url).status_code == 404
