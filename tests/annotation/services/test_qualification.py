"""Known answers, mixed in or as a test before real work."""

import pytest
from django.urls import reverse

from annotation.models import Membership, Notification, Project, Task
from annotation.selectors.qualification import qualification_notice as notice_of
from annotation.selectors.qualification import qualification_of
from annotation.selectors.quality import gold_scores
from annotation.services.assignments import assignment_next
from annotation.services.gold import gold_task_close, gold_task_create
from annotation.services.qualification import membership_qualify, qualification_settle
from modelhub.errors import ApplicationError, RefusedError
from tests.annotation.judging import choose, make_submission, make_task, rank, rate, uids_of
from tests.builders import make_member

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def rev(project: Project) -> Membership:
    return make_member(project, "rev", Membership.Role.REVIEWER)


def make_test(project: Project, *, passing: float = 0.75, tasks: int = 2) -> list[Task]:
    """A test of pairs whose first answer is the better one."""
    project.qualification_pass = passing
    project.save()
    made = []
    for _ in range(tasks):
        task = make_task(project, is_qualification=True, overlap=1000)
        task.gold = {"better": uids_of(task)[0]}
        task.save()
        made.append(task)
    return made


def test_the_test_comes_before_any_real_work(project: Project, ann: Membership) -> None:
    real = make_task(project)
    tests = make_test(project)
    given = assignment_next(membership=ann)
    assert given is not None and given.task in tests
    membership_qualify(membership=ann)
    Task.objects.filter(is_qualification=True).update(closed_at=project.created_at)
    given = assignment_next(membership=ann)
    assert given is not None and given.task == real


def test_whoever_passes_is_let_in_and_told(project: Project, ann: Membership) -> None:
    for task in make_test(project):
        assert not qualification_settle(membership=ann).is_done
        choose(task, ann, 0)
    state = qualification_settle(membership=ann)
    assert (state.is_passed, state.percent) == (True, 100)
    assert ann.qualified_at is not None
    assert "100 %" in Notification.objects.get(recipient=ann).line
    assert not qualification_of(membership=ann).is_wanted


def test_whoever_fails_is_told_once_and_stays_outside(project: Project, ann: Membership) -> None:
    first, second = make_test(project)
    choose(first, ann, 0)
    choose(second, ann, 1)
    for _ in range(2):
        state = qualification_settle(membership=ann)
        assert (state.is_done, state.is_passed, state.score) == (True, False, 0.5)
    assert ann.qualified_at is None
    assert Notification.objects.filter(recipient=ann).count() == 1
    assert assignment_next(membership=ann) is None


def test_a_manager_lets_somebody_in_in_spite_of_it(project: Project, ann: Membership) -> None:
    make_test(project)
    membership_qualify(membership=ann)
    first = ann.qualified_at
    assert first is not None
    assert membership_qualify(membership=ann).qualified_at == first


def test_reviewers_and_simulated_annotators_need_no_test(project: Project, rev: Membership) -> None:
    make_test(project)
    simulated = make_member(project, "robot", simulated=True)
    assert not qualification_of(membership=rev).is_wanted
    assert not qualification_of(membership=simulated).is_wanted


def test_a_test_without_tasks_lets_nobody_in(project: Project, ann: Membership) -> None:
    make_test(project, tasks=0)
    state = qualification_settle(membership=ann)
    assert (state.is_wanted, state.is_done) == (True, False)
    assert ann.qualified_at is None


def test_a_known_answer_is_a_copy_that_everybody_may_get(
    project: Project, ann: Membership, rev: Membership
) -> None:
    submission = rank(make_task(project, "ranking", answers=3, overlap=1), ann, "2>0=1")
    gold = gold_task_create(submission=submission, reviewer=rev, explanation="2 cites its source.")
    assert gold.gold["tiers"][0] == submission.ranking.tiers[0]
    assert uids_of(gold) == uids_of(submission.task)
    assert (gold.prompt, gold.batch, gold.is_qualification) == (submission.task.prompt, None, False)
    project.gold_share = 1.0
    project.save()
    given = assignment_next(membership=make_member(project, "ben"))
    assert given is not None and given.task == gold


def test_a_known_answer_given_again_replaces_the_first(
    project: Project, ann: Membership, rev: Membership
) -> None:
    task = make_task(project)
    first, second = choose(task, ann, 0), choose(task, make_member(project, "ben"), 1)
    one = gold_task_create(submission=first, reviewer=rev)
    other = gold_task_create(submission=second, reviewer=rev, explanation="After all.")
    assert one == other
    assert (other.gold["better"], other.gold_explanation) == (uids_of(task)[1], "After all.")
    test = gold_task_create(submission=second, reviewer=rev, is_qualification=True)
    assert test != one and test.is_qualification


def test_known_answers_are_scored_person_by_person(
    project: Project, ann: Membership, rev: Membership
) -> None:
    gold = gold_task_create(submission=choose(make_task(project), ann, 0), reviewer=rev)
    ben, cat = make_member(project, "ben"), make_member(project, "cat")
    choose(gold, ben, 0)
    choose(gold, cat, 1)
    assert gold_scores(project=project) == {ben.pk: [1.0], cat.pk: [0.0]}


def test_nobody_calls_their_own_judgement_the_right_one(project: Project, rev: Membership) -> None:
    with pytest.raises(RefusedError):
        gold_task_create(submission=choose(make_task(project), rev, 0), reviewer=rev)


def test_a_known_answer_is_not_copied_again(
    project: Project, ann: Membership, rev: Membership
) -> None:
    gold = gold_task_create(submission=choose(make_task(project), ann, 0), reviewer=rev)
    with pytest.raises(ApplicationError, match="already"):
        gold_task_create(submission=choose(gold, make_member(project, "ben"), 0), reviewer=rev)


def test_a_retired_known_answer_is_handed_out_no_more(
    project: Project, ann: Membership, rev: Membership
) -> None:
    gold = gold_task_create(submission=choose(make_task(project), ann, 0), reviewer=rev)
    closed = gold_task_close(task=gold).closed_at
    assert closed is not None
    assert gold_task_close(task=gold).closed_at == closed
    with pytest.raises(ApplicationError):
        gold_task_close(task=make_task(project))


@pytest.mark.parametrize("kind", ["rating", "edit"])
def test_other_kinds_have_known_answers_too(
    project: Project, ann: Membership, rev: Membership, kind: str
) -> None:
    task = make_task(project, kind)
    if kind == "rating":
        submission = rate(task, ann, [7, 1], [[], ["harmful"]])
    else:
        submission = make_submission(task, ann, {"original": uids_of(task)[0], "text": "Better."})
    gold = gold_task_create(submission=submission, reviewer=rev)
    assert gold.kind == kind and gold.gold


def test_a_task_of_the_test_teaches_at_once_and_a_secret_one_never(
    project: Project, ann: Membership, rev: Membership
) -> None:
    task, other = make_test(project)
    Task.objects.filter(pk=task.pk).update(gold_explanation="It names its source.")
    task.refresh_from_db()
    first, second = uids_of(task)
    wrong = choose(task, ann, 1, shown=[second, first])
    # The known answer, the one sampled first, was shown as B.
    assert notice_of(submission=wrong) == "The known answer is: B is better. It names its source."
    assert notice_of(submission=choose(other, ann, 0)) == "That is the known answer."
    gold = gold_task_create(submission=choose(make_task(project), ann, 0), reviewer=rev)
    assert notice_of(submission=choose(gold, make_member(project, "ben"), 1)) == ""


def test_the_reply_to_a_task_of_the_test_teaches_and_cannot_be_taken_back(
    project: Project, ann: Membership, signed_in
) -> None:
    make_test(project)
    client = signed_in(ann.user)
    given = client.post(reverse("api_next", args=[project.uid]), {}, "application/json").json()
    uids = [one["uid"] for one in given["candidates"]]
    known = Task.objects.get(uid=given["task"]["uid"]).gold["better"]
    wrong = next(uid for uid in uids if uid != known)
    path = [given["assignment"]["uid"]]
    body = {"better": wrong, "degree": 2, "unsafe": [], "rationale": "", "active_s": 3.0}
    reply = client.post(reverse("api_submit", args=path), body, "application/json").json()
    letter = next(one["letter"] for one in given["candidates"] if one["uid"] == known)
    assert reply["submission"]["notice"] == f"The known answer is: {letter} is better."
    assert reply["next"]["task"]["uid"] != given["task"]["uid"]
    undone = client.post(reverse("api_undo", args=path), {}, "application/json")
    assert undone.status_code == 409
