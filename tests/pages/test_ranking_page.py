"""The annotator's page: by keyboard, by pointer, by finger, offline, and by two at once."""

import json
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from playwright.sync_api import expect

from annotation.models import Assignment, Submission, TaskForm
from annotation.services.assignments import assignment_next, assignments_expire
from annotation.services.rankings import ranking_submit
from tests import builders
from tests.pages.board import (
    annotate_path,
    finished_wait,
    focused,
    lanes,
    letters,
    press,
    saved_wait,
    task_wait,
    tiers_of,
)
from tests.pages.conftest import sign_in

pytestmark = pytest.mark.browser

FOUR = ("Paris.", "It is **Paris**.", "Lyon.", "I do not know.")


def test_a_task_is_ranked_by_keyboard_alone_and_the_next_one_follows(
    open_page, project, alice
) -> None:
    builders.make_ranking_task(project, FOUR, prompt=builders.make_prompt(project, "First?"))
    builders.make_ranking_task(project, prompt=builders.make_prompt(project, "Second?"))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    expect(page.locator("[data-messages]")).to_contain_text("First?")
    by_letter = letters(page)

    press(page, "2 j 1 j = j x")
    assert lanes(page) == {"A": "2", "B": "1", "C": "2", "D": "unacceptable"}
    expect(page.locator("[data-say]")).to_have_text("Answer D, not acceptable.")
    press(page, "u")
    assert lanes(page)["D"] == "tray"
    press(page, "Enter")
    expect(page.locator("[data-say]")).to_have_text("Not sent: D still to be placed.")
    assert not Submission.objects.exists()

    press(page, "4 [")
    assert lanes(page)["D"] == "3"
    press(page, "]")
    press(page, "r")
    page.keyboard.type("B names it plainly. 1 x u")
    with page.expect_response(lambda reply: "/submit/" in reply.url):  # the next comes before it
        press(page, "Escape Enter")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")

    submission = Submission.objects.get()
    assert tiers_of(submission, by_letter) == [["B"], ["A", "C"], ["D"]]
    assert submission.rationale == "B names it plainly. 1 x u"
    assert submission.ranking.unacceptable == []


def test_the_ends_of_the_lanes_say_which_is_best_before_anything_is_placed(
    open_page, project, alice
) -> None:
    builders.make_ranking_task(project, FOUR)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    for lane, word in (("1", "best"), ("2", ""), ("4", "worst")):
        name = page.locator(f'.lane[data-lane="{lane}"] .lane-name')
        expect(name).to_have_text(word)
        assert name.is_visible() is bool(word)
    expect(page.get_by_label("Lane 4, worst")).to_be_visible()


def test_reordering_leaves_a_tie_and_passes_a_neighbour(open_page, project, alice) -> None:
    builders.make_ranking_task(project, FOUR)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "1 j 2 j 2 j 3")
    press(page, "k Alt+ArrowUp")
    assert focused(page) == "C"
    assert lanes(page) == {"A": "1", "C": "2", "B": "3", "D": "4"}
    press(page, "Alt+ArrowUp")
    assert lanes(page) == {"C": "1", "A": "2", "B": "3", "D": "4"}
    expect(page.locator("[data-say]")).to_have_text("Answer C, lane 1 of 4.")
    press(page, "j =")
    expect(page.locator("[data-say]")).to_have_text("Answer D, lane 3 of 4, tied with B.")


def test_arrows_go_to_the_answer_on_that_side(open_page, project, alice) -> None:
    builders.make_ranking_task(project, FOUR)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "ArrowRight")
    assert focused(page) == "B"
    press(page, "ArrowDown")
    assert focused(page) == "D"
    press(page, "ArrowLeft ArrowUp")
    assert focused(page) == "A"


def test_an_answer_is_dragged_to_a_lane_with_the_mouse(open_page, project, alice) -> None:
    builders.make_ranking_task(project, FOUR)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    card = page.locator(".answer", has=page.locator(".answer-letter", has_text="B"))
    card.locator(".answer-letter").drag_to(page.locator('.lane[data-lane="2"] .lane-cards'))
    assert lanes(page)["B"] == "2"
    card.locator(".answer-letter").drag_to(
        page.locator('.lane[data-kind="unacceptable"] .lane-cards')
    )
    assert lanes(page)["B"] == "unacceptable"
    saved_wait(page)
    press(page, "u u")
    assert lanes(page)["B"] == "tray"


def test_a_task_is_ranked_from_start_to_finish_with_the_mouse(open_page, project, alice) -> None:
    builders.make_ranking_task(project)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    by_letter = letters(page)
    card = page.locator(".answer", has=page.locator(".answer-letter", has_text="B"))
    card.locator(".answer-letter").drag_to(page.locator('.lane[data-lane="1"] .lane-cards'))
    for name in ("A: lane 3", "C: lane 3", "C: up one rank"):
        page.get_by_role("button", name=name, exact=True).click()
    page.get_by_label("Why?").click()
    page.keyboard.type("by hand")
    page.get_by_role("button", name="Submit").click()
    finished_wait(page)
    assert tiers_of(Submission.objects.get(), by_letter) == [["B"], ["C"], ["A"]]
    assert Submission.objects.get().rationale == "by hand"


def test_on_a_phone_a_task_is_ranked_by_tapping(open_page, project, alice) -> None:
    builders.make_ranking_task(project, FOUR)
    page = open_page(alice, annotate_path(project), wide=False)
    task_wait(page)
    by_letter = letters(page)
    for name in ("C: lane 1", "A: lane 2", "B: lane 2", "D: not acceptable"):
        page.get_by_role("button", name=name, exact=True).tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Submit").tap()
    finished_wait(page)
    submission = Submission.objects.get()
    assert tiers_of(submission, by_letter) == [["C"], ["A", "B"], ["D"]]
    assert submission.ranking.unacceptable == [by_letter["D"]]


def test_a_task_is_skipped_with_a_reason_and_the_next_follows(open_page, project, alice) -> None:
    builders.make_ranking_task(project, prompt=builders.make_prompt(project, "First?"))
    builders.make_ranking_task(project, prompt=builders.make_prompt(project, "Second?"))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "s 3")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    skipped = Assignment.objects.get(state=Assignment.State.SKIPPED)
    assert skipped.skip_reason == "It is in a language I do not read well"


def test_a_draft_survives_a_reload_and_another_browser(open_page, project, alice) -> None:
    builders.make_ranking_task(project, FOUR)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "3 j 1")
    press(page, "r")
    page.keyboard.type("because")
    saved_wait(page)
    for again in (page, open_page(alice, annotate_path(project))):
        again.reload()
        task_wait(again)
        assert lanes(again) == {"A": "3", "B": "1", "C": "tray", "D": "tray"}
        assert again.locator("[data-rationale]").input_value() == "because"
        expect(again.get_by_text("Your draft is back.")).to_be_visible()


def test_work_done_offline_is_kept_and_sent_when_the_network_is_back(
    open_page, project, alice, troubles
) -> None:
    builders.make_ranking_task(project, FOUR)
    builders.make_ranking_task(project, prompt=builders.make_prompt(project, "Second?"))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    by_letter = letters(page)
    page.context.set_offline(True)
    press(page, "1 j 2 j 3 j 4")
    expect(page.get_by_text("Offline – kept on this device")).to_be_visible()
    press(page, "Enter")
    expect(page.get_by_role("heading", name="You are offline")).to_be_visible()
    assert not Submission.objects.exists()

    page.context.set_offline(False)
    task_wait(page)
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    assert tiers_of(Submission.objects.get(), by_letter) == [["A"], ["B"], ["C"], ["D"]]
    assert (
        page.evaluate(
            "localStorage.getItem(Object.keys(localStorage).find("
            "(key) => key.startsWith('rondo:outbox:')))"
        )
        == "[]"
    )
    _expected_only(troubles, "ERR_INTERNET_DISCONNECTED")


def test_a_submission_whose_reply_was_lost_counts_once(open_page, project, alice, troubles) -> None:
    builders.make_ranking_task(project)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    page.route("**/submit/", lambda route: (route.fetch(), route.abort())[-1], times=1)
    press(page, "1 j 2 j 3 Enter")
    expect(page.get_by_role("heading", name="You are offline")).to_be_visible()
    page.get_by_role("button", name="Try now").click()
    finished_wait(page)
    assert Submission.objects.count() == 1
    assert not Submission.objects.get().revisions.exists()
    _expected_only(troubles, "ERR_FAILED")


def test_signed_out_in_between_the_ranking_is_kept_and_sent_after_signing_in(
    open_page, live_server, project, alice, troubles
) -> None:
    builders.make_ranking_task(project)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "1 j 2 j 3")
    saved_wait(page)
    Session.objects.all().delete()
    press(page, "Enter")
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    assert not Submission.objects.exists()
    sign_in(page.context, alice, live_server)
    page.reload()
    finished_wait(page)
    assert Submission.objects.count() == 1
    _expected_only(troubles, "401")


def test_two_annotators_at_once_get_different_tasks(open_page, project, alice, bob) -> None:
    for question in ("First?", "Second?"):
        builders.make_ranking_task(project, prompt=builders.make_prompt(project, question))
    pages = [open_page(person, annotate_path(project)) for person in (alice, bob)]
    asked = set()
    for page in pages:
        task_wait(page)
        asked.add(page.locator("[data-messages]").inner_text())
    assert asked == {"First?", "Second?"}
    for page in pages:
        press(page, "1 j 2 j 2 Enter")
        finished_wait(page)
    assert {one.annotator.user for one in Submission.objects.all()} == {alice, bob}


def test_a_ranking_that_came_too_late_is_kept_and_said_to_be_surplus(
    open_page, project, alice, bob
) -> None:
    builders.make_ranking_task(project)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    Assignment.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert assignments_expire() == 1
    theirs = assignment_next(membership=bob.memberships.get())
    uids = [one.candidate.uid for one in theirs.task.task_candidates.all()]
    ranking_submit(assignment=theirs, tiers=[uids])
    press(page, "1")
    expect(page.get_by_text("reservation lapsed")).to_be_visible()
    press(page, "j 2 j 3 Enter")
    expect(page.get_by_text("It is kept, beside theirs.")).to_be_visible()
    assert Submission.objects.get(annotator__user=alice).status == Submission.Status.SURPLUS


def test_nothing_on_the_page_tells_who_wrote_an_answer_or_in_which_order_they_were_sampled(
    open_page, project, alice
) -> None:
    version = builders.make_version("secret-model-name")
    batch = builders.make_batch(project, version=version)
    task = builders.make_ranking_task(project, FOUR, batch=batch)
    sampled = [one.candidate.uid for one in task.task_candidates.all()]
    Assignment.objects.create(
        task=task,
        annotator=alice.memberships.get(),
        lease_until=timezone.now() + timedelta(minutes=5),
        shuffle_seed=_seed_that_shuffles(sampled),
    )
    task.slots_free = 0
    task.save()
    replies: list[str] = []
    page = open_page(alice, annotate_path(project))
    page.on("response", lambda reply: replies.append(reply.text()) if "/next/" in reply.url else 0)
    page.reload()
    task_wait(page)
    page.wait_for_timeout(100)
    assert replies
    shown = json.loads(replies[-1])["candidates"]
    assert [one["uid"] for one in shown] != sampled
    assert set(shown[0]) == {"uid", "letter", "text", "html", "words", "tokens"}
    for text in (*replies, page.content()):
        for secret in ("secret-model-name", version.uid, batch.uid, batch.run.uid):
            assert secret not in text


def test_the_countdown_is_renewed_by_work_and_the_guidelines_open_with_g(
    open_page, project, alice
) -> None:
    from annotation.services.projects import guideline_publish

    guideline_publish(project=project, text="# Be kind\n\nAnd **true**.", author=None)
    builders.make_ranking_task(project)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    soon = timezone.now() + timedelta(seconds=30)
    Assignment.objects.update(lease_until=soon)
    press(page, "1")
    saved_wait(page)
    assert Assignment.objects.get().lease_until > soon + timedelta(minutes=5)
    expect(page.locator("[data-lease]")).to_contain_text("reserved for you 14:")
    expect(page.locator("[data-guideline-new]")).to_be_visible()
    press(page, "g")
    expect(page.get_by_role("heading", name="Be kind")).to_be_visible()
    press(page, "Escape")
    expect(page.locator("[data-guideline-new]")).to_be_hidden()


def test_single_keys_can_be_turned_off(open_page, project, alice) -> None:
    builders.make_ranking_task(project)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "?")
    page.locator("[data-keys-on]").uncheck()
    press(page, "Escape")
    press(page, "1 x s")
    assert set(lanes(page).values()) == {"tray"}
    page.get_by_role("button", name="A: lane 1", exact=True).click()
    assert lanes(page)["A"] == "1"


def test_where_the_project_says_so_no_answer_is_called_unacceptable(
    open_page, project, alice
) -> None:
    TaskForm.objects.create(project=project, kind="ranking", settings={"unacceptable": False})
    builders.make_ranking_task(project)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    expect(page.locator('.lane[data-kind="unacceptable"]')).to_be_hidden()
    expect(page.get_by_role("button", name="A: not acceptable")).to_have_count(0)
    press(page, "x 3 ]")
    assert lanes(page)["A"] == "3"
    press(page, "1 j 2 j 2 Enter")
    finished_wait(page)


@pytest.mark.parametrize("count", [2, 9])
def test_two_to_nine_answers_fit(open_page, project, alice, count) -> None:
    builders.make_ranking_task(project, tuple(f"Answer number {n}. " * 40 for n in range(count)))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, f"{count} j 1")
    assert lanes(page) | {"A": str(count), "B": "1"} == lanes(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    clipped = page.evaluate(
        """() => [...document.querySelectorAll(".answer")].some((card) =>
          card.scrollHeight > card.clientHeight + 1 || card.scrollWidth > card.clientWidth + 1)"""
    )
    assert not clipped


def _seed_that_shuffles(uids: list[str]) -> int:
    from annotation.shown_order import order_shuffled

    return next(seed for seed in range(100) if order_shuffled(uids, seed=seed) != uids)


def _expected_only(troubles: list[str], word: str) -> None:
    """Take what the test provoked off the list: what is left fails it."""
    assert any(word in trouble for trouble in troubles)
    troubles[:] = [trouble for trouble in troubles if word not in trouble]
