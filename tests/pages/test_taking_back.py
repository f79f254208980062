"""The desk between tasks: fetched ahead, sent at once, taken back, and offline for minutes."""

import contextlib

import pytest
from playwright.sync_api import expect

from annotation.models import Assignment, Membership, Submission
from annotation.services.assignments import assignment_next
from annotation.services.questions import question_answer, question_ask
from annotation.services.reviews import review_submit
from tests import builders
from tests.pages.board import (
    annotate_path,
    finished_wait,
    press,
    submissions_wait,
    task_wait,
)

pytestmark = pytest.mark.browser


def tasks_make(project, *questions: str) -> None:
    for place, question in enumerate(questions):
        prompt = builders.make_prompt(project, question)
        builders.make_task(project, "pair", prompt=prompt, priority=-place)


def fetched_ahead(page):
    """Make the first move, and wait until the task after this one is here."""
    with page.expect_response(lambda reply: "/next/" in reply.url):
        press(page, "2")
    page.wait_for_timeout(150)


def test_the_next_task_is_shown_before_the_server_has_answered(open_page, project, alice) -> None:
    tasks_make(project, "First?", "Second?")
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    fetched_ahead(page)
    held: list = []
    page.route("**/submit/", lambda route: held.append(route))
    press(page, "Enter")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    assert not Submission.objects.exists()
    held[0].continue_()
    page.unroute("**/submit/")
    expect(page.get_by_text("Sent.")).to_be_visible()
    press(page, "8 Enter")
    finished_wait(page)
    assert Submission.objects.count() == 2


def test_a_submission_is_taken_back_by_key_and_sent_otherwise(open_page, project, alice) -> None:
    tasks_make(project, "First?", "Second?")
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    fetched_ahead(page)
    with page.expect_response(lambda reply: "/submit/" in reply.url):
        press(page, "Enter")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    press(page, "u")
    expect(page.locator("[data-messages]")).to_contain_text("First?")
    assert Submission.objects.get().status == Submission.Status.WITHDRAWN
    expect(page.get_by_role("radio", checked=True)).to_have_attribute("data-place", "2")
    press(page, "9 Enter")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    press(page, "5 Enter")
    finished_wait(page)
    first = Submission.objects.get(task__prompt__messages__0__content="First?")
    assert first.status == Submission.Status.ACCEPTED
    assert first.comparison.degree == 4
    assert Submission.objects.count() == 2


def test_what_was_begun_of_the_next_task_is_there_after_taking_back(
    open_page, project, alice
) -> None:
    tasks_make(project, "First?", "Second?")
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    fetched_ahead(page)
    with page.expect_response(lambda reply: "/submit/" in reply.url):
        press(page, "Enter")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    press(page, "7")
    page.locator("[data-offer]").get_by_role("button", name="Undo").click()
    expect(page.locator("[data-messages]")).to_contain_text("First?")
    press(page, "Enter")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    expect(page.get_by_role("radio", checked=True)).to_have_attribute("data-place", "7")


def test_the_last_submission_is_taken_back_from_the_finished_page(
    open_page, project, alice
) -> None:
    tasks_make(project, "Only?")
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "2 Enter")
    finished_wait(page)
    press(page, "u")
    task_wait(page)
    assert Assignment.objects.get().state == Assignment.State.LIVE


def test_the_way_back_is_open_for_ten_seconds(open_page, project, alice) -> None:
    tasks_make(project, "Only?")
    page = open_page(alice, annotate_path(project))
    page.clock.install()
    page.reload()
    task_wait(page)
    press(page, "2 Enter")
    finished_wait(page)
    page.clock.run_for(9_000)
    expect(page.locator("[data-offer]")).to_be_visible()
    page.clock.run_for(1_500)
    expect(page.locator("[data-offer]")).to_be_hidden()
    press(page, "u")
    assert Submission.objects.get().status == Submission.Status.ACCEPTED


def test_offline_for_minutes_work_goes_on_into_the_next_task_and_all_of_it_arrives(
    open_page, project, alice, troubles
) -> None:
    tasks_make(project, "First?", "Second?")
    page = open_page(alice, annotate_path(project))
    page.clock.install()
    page.reload()
    task_wait(page)
    fetched_ahead(page)
    page.context.set_offline(True)
    press(page, "r")
    page.keyboard.type("written in a tunnel")
    press(page, "Escape Enter")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    page.clock.run_for(3 * 60_000)
    press(page, "6")
    expect(page.get_by_text("Offline – kept on this device")).to_be_visible()
    press(page, "Enter")
    expect(page.get_by_role("heading", name="You are offline")).to_be_visible()
    assert not Submission.objects.exists()
    page.context.set_offline(False)
    # A try that began before the network was there may fail after the clock has run: the next is a
    # minute away again, so the clock runs as often as it takes.
    finished = page.get_by_role("heading", name="That is everything for now")
    for _ in range(10):
        page.clock.run_for(90_000)
        with contextlib.suppress(AssertionError):
            expect(finished).to_be_visible(timeout=2000)
            break
    finished_wait(page)
    assert Submission.objects.count() == 2
    first = Submission.objects.get(task__prompt__messages__0__content="First?")
    assert first.rationale == "written in a tunnel"
    offline = [one for one in troubles if "ERR_INTERNET_DISCONNECTED" in one]
    assert offline
    troubles[:] = [one for one in troubles if one not in offline]


def test_only_active_seconds_are_counted(open_page, project, alice) -> None:
    tasks_make(project, "Only?")
    page = open_page(alice, annotate_path(project))
    page.clock.install()
    page.reload()
    task_wait(page)
    press(page, "2")
    page.clock.run_for(10_000)
    page.clock.run_for(20 * 60_000)  # away; half a minute of looking is taken for reading
    press(page, "3")
    page.clock.run_for(5_000)
    press(page, "Enter")
    finished_wait(page)
    assert 30 <= Submission.objects.get().active_s <= 50


def test_what_the_server_refuses_comes_back_as_it_was(open_page, project, alice, troubles) -> None:
    tasks_make(project, "First?", "Second?")
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    fetched_ahead(page)
    body = '{"message": "No such degree.", "extra": {}}'
    page.route(
        "**/submit/",
        lambda route: route.fulfill(status=400, content_type="application/json", body=body),
        times=1,
    )
    press(page, "Enter")
    expect(page.get_by_text("Not sent: No such degree.")).to_be_visible()
    expect(page.locator("[data-messages]")).to_contain_text("First?")
    expect(page.get_by_role("radio", checked=True)).to_have_attribute("data-place", "2")
    press(page, "Enter")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    refused = [one for one in troubles if "400" in one]
    troubles[:] = [one for one in troubles if one not in refused]


def test_what_is_sent_offline_is_said_to_be_kept_not_sent(
    open_page, project, alice, troubles
) -> None:
    tasks_make(project, "First?", "Second?")
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    expect(page.locator("[data-progress-words]")).to_have_text("0 done today, 2 waiting")
    fetched_ahead(page)
    page.context.set_offline(True)
    press(page, "Enter")
    expect(page.get_by_text("kept on this device, to be sent")).to_be_visible()
    expect(page.get_by_text("Sent.")).to_have_count(0)
    page.context.set_offline(False)
    troubles.clear()


def test_an_answered_question_stands_on_its_task_and_claims_no_draft(
    open_page, project, alice
) -> None:
    tasks_make(project, "First?")
    member = Membership.objects.get(project=project, user=alice)
    assignment = assignment_next(membership=member)
    question = question_ask(assignment=assignment, text="Is B allowed?")
    reviewer = builders.make_member(project, "rita", Membership.Role.REVIEWER)
    question_answer(question=question, reviewer=reviewer, text="Yes, it is.")
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    expect(page.locator("[data-question-answered]")).to_contain_text("Is B allowed?")
    expect(page.locator("[data-question-answered]")).to_contain_text("Yes, it is.")
    expect(page.get_by_text("Your draft is back.")).to_have_count(0)


def test_what_a_reviewer_sent_back_says_so_with_their_words_until_it_is_sent_again(
    open_page, project, alice
) -> None:
    tasks_make(project, "First?", "Second?")
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    expect(page.locator("[data-sent-back]")).to_be_hidden()
    press(page, "2 Enter")
    submissions_wait(page, 1)
    rita = builders.make_member(project, "rita", Membership.Role.REVIEWER)
    reason = "A <b>is</b> wrong about 2."
    submission = Submission.objects.get()
    review_submit(submission=submission, reviewer=rita, verdict="send_back", reason=reason)
    page.reload()
    task_wait(page)
    expect(page.locator("[data-messages]")).to_contain_text("First?")
    expect(page.locator("[data-sent-back]")).to_contain_text("rita sent this back to you:")
    expect(page.locator("[data-sent-back]")).to_contain_text(reason)
    expect(page.get_by_text("Your draft is back.")).to_have_count(0)
    press(page, "8 Enter")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    expect(page.locator("[data-sent-back]")).to_be_hidden()
