"""What is read: letters, progress, what is open, and the arithmetic of a batch."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation import selectors
from annotation.models import Membership, Project, Submission
from annotation.services.assignments import assignment_next, assignment_skip
from annotation.services.projects import membership_remove
from annotation.services.submissions import submission_reopen
from annotation.shown_order import order_shuffled
from annotation.tasks import expire_assignments
from tests.annotation.judged import make_answered_batch, rank_all
from tests.builders import make_batch, make_member, make_project, make_ranking_task

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


def test_letters_go_on_after_z() -> None:
    assert [selectors.letter_of(n) for n in (0, 1, 25, 26, 27, 51, 52, 701, 702)] == [
        *("A", "B", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA")
    ]


def test_the_shown_order_is_a_function_of_the_seed_alone() -> None:
    # sha256 of "7:a", "7:b", "7:c" begin with these, so b comes first.
    import hashlib

    starts = {uid: hashlib.sha256(f"7:{uid}".encode()).hexdigest() for uid in "abc"}
    assert order_shuffled("abc", seed=7) == sorted("abc", key=starts.__getitem__)
    assert order_shuffled("cab", seed=7) == order_shuffled("abc", seed=7)


def test_every_place_is_as_likely_for_the_first_sampled_answer() -> None:
    uids = [f"{n:032x}" for n in range(4)]
    places = [order_shuffled(uids, seed=seed).index(uids[0]) for seed in range(4000)]
    for place in range(4):
        assert places.count(place) / 4000 == pytest.approx(0.25, abs=0.03)


def test_progress_counts_ones_own_work_and_what_is_open(project: Project, ann: Membership) -> None:
    batch = make_batch(project)
    for _ in range(4):
        make_ranking_task(project, batch=batch)
    rank_all(make_member(project, "ben"))
    assert selectors.annotator_progress(membership=ann).open == 0
    for _ in range(5):
        make_ranking_task(project, batch=batch)
    assignment_skip(assignment=assignment_next(membership=ann), reason="unclear")
    assert selectors.annotator_progress(membership=ann) == selectors.AnnotatorProgress(
        submitted=0, submitted_today=0, open=4
    )
    rank_all(ann)
    old = Submission.objects.filter(annotator=ann).first()
    Submission.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=2))
    assert selectors.annotator_progress(membership=ann) == selectors.AnnotatorProgress(
        submitted=4, submitted_today=3, open=0
    )
    taken_back = Submission.objects.filter(annotator=ann).last()
    submission_reopen(submission=taken_back)
    assert selectors.annotator_progress(membership=ann) == selectors.AnnotatorProgress(
        submitted=3, submitted_today=2, open=0
    )
    assert selectors.desk_counts(membership=ann)["submitted_today"] == 2


def test_a_batch_is_complete_when_every_slot_holds_a_submission(
    project: Project, ann: Membership
) -> None:
    batch = make_answered_batch(project, prompts=2, overlap=2)
    rank_all(ann)
    ben = make_member(project, "ben")
    assignment_next(membership=ben)
    progress = selectors.batch_progress(batch=batch)
    assert progress == selectors.BatchProgress(
        prompts=2,
        candidates=6,
        tasks=2,
        prompts_without_task=0,
        slots=4,
        slots_free=1,
        live=1,
        accepted=2,
        surplus=0,
        skipped=0,
    )
    assert not progress.is_complete
    rank_all(ben)
    assert selectors.batch_progress(batch=batch).is_complete


def test_the_scheduler_lets_leases_lapse(project: Project, ann: Membership, settings) -> None:
    settings.ASSIGNMENT_LEASE_S = -1
    batch = make_answered_batch(project, prompts=2)
    assignment_next(membership=ann)
    assert selectors.batch_progress(batch=batch).live == 1
    expire_assignments()
    assert selectors.batch_progress(batch=batch).live == 0


def test_memberships_and_members_leave_out_who_has_left(project: Project, ann: Membership) -> None:
    other = make_project("A first one")
    make_member(other, "ann")
    assert [one.project.name for one in selectors.memberships_of(user=ann.user)] == [
        "A first one",
        "Helpfulness",
    ]
    membership_remove(membership=ann)
    assert [one.project.name for one in selectors.memberships_of(user=ann.user)] == ["A first one"]
    assert list(selectors.members(project=project)) == []
