"""Reviewers read a task under the letters that its annotator saw."""

import re

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from annotation.agreement import Interval
from annotation.models import Membership, Project, Report
from annotation.selectors import shown_order
from annotation.selectors.payloads import assignment_payload
from annotation.selectors.quality import PersonQuality
from annotation.selectors.shown import task_shown
from annotation.services.assignments import assignment_next
from annotation.services.questions import question_answer, question_ask
from annotation.services.tokens import project_token_create
from tests.annotation.judging import choose, make_task, rank, uids_of
from tests.builders import make_member

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_cached() -> None:
    cache.clear()


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


@pytest.fixture
def bobs(bob: User, signed_in) -> Client:
    return signed_in(bob)


def letters_shown(html: str) -> list[str]:
    return re.findall(r'aria-label="Answer ([A-Z])"', html)


def test_letters_follow_the_order_that_is_given(project: Project) -> None:
    task = make_task(project, "ranking", answers=3)
    first, second, third = uids_of(task)
    shown = task_shown(task=task, order=[third, first, second])
    assert shown.letters == {third: "A", first: "B", second: "C"}
    assert shown.letters_in([first, second, third]) == "B, C, A"


def test_a_review_reads_as_its_annotator_saw_the_task(
    project: Project, ann: Membership, bobs: Client
) -> None:
    submission = rank(make_task(project, "ranking", answers=3), ann, "0>1>2")
    best, middle, worst = uids_of(submission.task)
    submission.shown_order = [best, middle, worst][::-1]
    submission.save()
    url = reverse("review_detail", args=[project.uid, submission.uid])
    html = bobs.get(url).content.decode()
    assert "C &gt; B &gt; A" in html
    assert letters_shown(html) == ["A", "B", "C"]
    assert "under the letters, that ann saw" in html


def test_a_disagreement_is_put_into_one_order_and_says_whose(
    project: Project, ann: Membership, bobs: Client
) -> None:
    task = make_task(project)
    ben = make_member(project, "ben")
    zero, one = uids_of(task)
    for member, order in ((ann, [one, zero]), (ben, [zero, one])):
        submission = choose(task, member, 0)
        submission.shown_order = order
        submission.save()
    html = bobs.get(reverse("disagreement_detail", args=[project.uid, task.uid])).content.decode()
    assert html.count("B is better") == 2  # the same answer under the same letter
    assert "under the letters, that ann saw" in html
    assert "Saw the answers in the order B, A." in html


def test_questions_and_reports_show_the_task_of_who_asked(
    project: Project, ann: Membership, bobs: Client
) -> None:
    make_task(project)
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    question_ask(assignment=assignment, text="Is B allowed?")
    Report.objects.create(task=assignment.task, reporter=ann, text="B is cut off.")
    rows = assignment.task.task_candidates.values_list("candidate__uid", "candidate__text")
    texts = dict(rows)
    wanted = [texts[uid] for uid in shown_order(assignment=assignment)]
    for page in ("project_questions", "project_reports"):
        html = bobs.get(reverse(page, args=[project.uid])).content.decode()
        assert "The task as ann sees it" in html
        assert letters_shown(html) == ["A", "B"]
        places = [html.index(text[: len("Answer 0 to")]) for text in wanted]
        assert places == sorted(places)


def test_an_answer_comes_back_with_its_task(project: Project, ann: Membership, bob: User) -> None:
    make_task(project)
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    assert assignment_payload(assignment=assignment)["question"] is None
    question = question_ask(assignment=assignment, text="Is B allowed?")
    reviewer = Membership.objects.get(user=bob, project=project)
    question_answer(question=question, reviewer=reviewer, text="Yes, it is.")
    back = assignment_next(membership=ann)
    assert back == assignment
    told = assignment_payload(assignment=back)["question"]
    assert told == {"text": "Is B allowed?", "answer": "Yes, it is."}


def test_what_counts_and_what_is_reviewed_are_told_apart(
    project: Project, ann: Membership, bobs: Client
) -> None:
    submission = choose(make_task(project), ann, 0)
    url = reverse("project_reviews", args=[project.uid])
    html = bobs.get(url).content.decode()
    assert re.search(r">counts</span>\s*<span[^>]*>not reviewed<", html)
    bobs.post(url, {"submission": [submission.uid]})
    html = bobs.get(url, {"status": "accepted"}).content.decode()
    assert re.search(r">counts</span>\s*<span[^>]*>reviewed<", html)


def test_a_product_is_no_person(project: Project, dana: User, signed_in) -> None:
    token, _secret = project_token_create(project=project, name="Help centre")
    dana_s = signed_in(dana)
    html = dana_s.get(reverse("project_members", args=[project.uid])).content.decode()
    assert "Help centre" in html
    link = reverse("member_link", args=[project.uid, token.membership.uid])
    assert token.membership.user.username not in html
    assert link not in html
    assert "Nobody can sign in as" in dana_s.post(link, follow=True).content.decode()


@pytest.mark.parametrize(("tasks", "told"), [(4, None), (5, 0.5)])
def test_a_mean_of_few_known_answers_is_not_told(
    ann: Membership, tasks: int, told: float | None
) -> None:
    mean = Interval(value=0.5, low=None, high=None)
    assert PersonQuality(membership=ann, gold=mean, gold_tasks=tasks).gold_told == told
