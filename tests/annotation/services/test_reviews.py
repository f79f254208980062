"""Reviews and adjudications: what each does to a submission, its slot and its annotator."""

import pytest

from annotation.models import (
    Adjudication,
    Assignment,
    Membership,
    Notification,
    Project,
    Review,
    Submission,
    Task,
)
from annotation.selectors.judgements import judgement_of
from annotation.services.adjudications import adjudication_submit
from annotation.services.assignments import assignment_next
from annotation.services.rankings import ranking_submit
from annotation.services.reviews import review_submit, submissions_accept
from modelhub.errors import ApplicationError, ConflictError, RefusedError
from tests.annotation.judging import choose, make_task, rank
from tests.builders import make_member, make_project

pytestmark = pytest.mark.django_db
Status = Submission.Status
Role = Membership.Role


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def rev(project: Project) -> Membership:
    return make_member(project, "rev", Role.REVIEWER)


@pytest.fixture
def submission(project: Project, ann: Membership) -> Submission:
    return rank(make_task(project, "ranking", overlap=1), ann, "0>1")


def free(submission: Submission) -> int:
    return Task.objects.get(pk=submission.task_id).slots_free


def status(submission: Submission) -> str:
    return Submission.objects.get(pk=submission.pk).status


def test_a_rejected_submission_gives_its_slot_to_another_person(
    submission: Submission, rev: Membership, project: Project
) -> None:
    review_submit(submission=submission, reviewer=rev, verdict="reject", reason="Read it again.")
    assert status(submission) == Status.REJECTED
    assert free(submission) == 1
    told = Notification.objects.get(recipient=submission.annotator)
    assert "Read it again." in told.line
    ben = make_member(project, "ben")
    given = assignment_next(membership=ben)
    assert given is not None and given.task_id == submission.task_id


def test_rejected_twice_gives_one_slot_back(submission: Submission, rev: Membership) -> None:
    for _ in range(2):
        review_submit(submission=submission, reviewer=rev, verdict="reject", reason="No.")
    assert free(submission) == 1


def test_what_was_rejected_counts_again_when_it_is_accepted(
    submission: Submission, rev: Membership
) -> None:
    review_submit(submission=submission, reviewer=rev, verdict="reject", reason="No.")
    review_submit(submission=submission, reviewer=rev, verdict="accept")
    assert (status(submission), free(submission)) == (Status.ACCEPTED, 0)
    assert submission.reviews.first().verdict == Review.Verdict.ACCEPT


def test_accepted_after_its_place_was_taken_it_is_surplus(
    submission: Submission, rev: Membership, project: Project
) -> None:
    review_submit(submission=submission, reviewer=rev, verdict="reject", reason="No.")
    rank(submission.task, make_member(project, "ben"), "1>0")
    review_submit(submission=submission, reviewer=rev, verdict="accept")
    assert (status(submission), free(submission)) == (Status.SURPLUS, 0)


def test_accepting_what_counts_changes_nothing_but_says_so(
    submission: Submission, rev: Membership
) -> None:
    review_submit(submission=submission, reviewer=rev, verdict="accept")
    assert (status(submission), free(submission)) == (Status.ACCEPTED, 0)
    assert submission.reviews.count() == 1
    assert not Notification.objects.exists()


def test_sent_back_it_waits_for_its_annotator_with_slot_and_draft(
    submission: Submission, rev: Membership, ann: Membership, project: Project
) -> None:
    review_submit(submission=submission, reviewer=rev, verdict="send_back", reason="Why so?")
    assert (status(submission), free(submission)) == (Status.WITHDRAWN, 0)
    assignment = Assignment.objects.get(pk=submission.assignment_id)
    assert assignment.state == Assignment.State.PAUSED
    assert assignment.draft["tiers"] == submission.ranking.tiers
    assert assignment_next(membership=make_member(project, "ben")) is None
    again = assignment_next(membership=ann)
    assert again is not None and again.pk == assignment.pk
    first, second = submission.ranking.tiers
    sent = ranking_submit(assignment=again, tiers=[second, first])
    assert sent.pk == submission.pk
    assert (status(submission), free(submission)) == (Status.ACCEPTED, 0)
    assert judgement_of(sent)["tiers"] == [second, first]
    assert sent.revisions.count() == 1


def test_what_waits_for_its_annotator_is_not_reviewed(
    submission: Submission, rev: Membership
) -> None:
    review_submit(submission=submission, reviewer=rev, verdict="send_back", reason="Why so?")
    with pytest.raises(ConflictError):
        review_submit(submission=submission, reviewer=rev, verdict="accept")
    assert submission.reviews.count() == 1


def test_nobody_reviews_their_own_work(project: Project, rev: Membership) -> None:
    """S09: not by the service, whatever the role."""
    boss = make_member(project, "boss", Role.MANAGER)
    for member in (rev, boss):
        own = rank(make_task(project, "ranking"), member, "0>1")
        for verdict in Review.Verdict.values:
            with pytest.raises(RefusedError):
                review_submit(submission=own, reviewer=member, verdict=verdict, reason="Fine.")
        assert status(own) == Status.ACCEPTED
    assert not Review.objects.exists()


def test_accepting_many_passes_over_ones_own(
    project: Project, submission: Submission, rev: Membership
) -> None:
    own = rank(make_task(project, "ranking"), rev, "0>1")
    done = submissions_accept(submissions=[submission, own], reviewer=rev)
    assert (done.accepted, done.own, done.gone) == (1, 1, 0)
    assert not own.reviews.exists()


def test_only_standing_reviewers_of_the_project_review(
    submission: Submission, project: Project
) -> None:
    stranger = make_member(make_project("Elsewhere"), "zed", Role.MANAGER)
    for member in (make_member(project, "ben"), stranger):
        with pytest.raises(RefusedError):
            review_submit(submission=submission, reviewer=member, verdict="accept")


@pytest.mark.parametrize(
    ("verdict", "reason", "field"),
    [
        ("reject", " ", "reason"),
        ("send_back", "", "reason"),
        ("maybe", "x", "verdict"),
        ("reject", "x" * 5001, "reason"),
    ],
)
def test_a_review_that_says_too_little_is_refused(
    submission: Submission, rev: Membership, verdict: str, reason: str, field: str
) -> None:
    with pytest.raises(ApplicationError) as refused:
        review_submit(submission=submission, reviewer=rev, verdict=verdict, reason=reason)
    assert refused.value.extra == {"field": field}


def test_a_reviewer_decides_which_judgement_stands(project: Project, rev: Membership) -> None:
    task = make_task(project)
    one, other = (choose(task, make_member(project, name), n) for n, name in enumerate("ab"))
    adjudication_submit(task=task, reviewer=rev, submission=one)
    adjudication_submit(task=task, reviewer=rev, submission=other, reason="It names its source.")
    (stands,) = Adjudication.objects.all()
    assert (stands.submission, stands.reason) == (other, "It names its source.")


def test_nobody_decides_a_task_they_judged(project: Project, rev: Membership) -> None:
    task = make_task(project)
    other = choose(task, make_member(project, "ann"), 0)
    choose(task, rev, 1)
    with pytest.raises(RefusedError):
        adjudication_submit(task=task, reviewer=rev, submission=other)


def test_only_a_judgement_of_the_task_that_counts_can_stand(
    project: Project, rev: Membership, submission: Submission
) -> None:
    task = make_task(project)
    rejected = choose(task, make_member(project, "ben"), 0)
    review_submit(submission=rejected, reviewer=rev, verdict="reject", reason="No.")
    for one in (submission, rejected):
        with pytest.raises(ApplicationError) as refused:
            adjudication_submit(task=task, reviewer=rev, submission=one)
        assert refused.value.extra == {"field": "submission"}
