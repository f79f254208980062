"""What the desk does for a person whatever the task: their keys, their reading, their care."""

import re

import pytest
from playwright.sync_api import expect

from annotation.models import Assignment, KeyBindings, Membership, Report, Submission, Task
from annotation.services.projects import guideline_publish
from tests import builders
from tests.modelhub.test_rendering import WORDS
from tests.pages.board import annotate_path, finished_wait, letters, press, saved_wait, task_wait
from tests.pages.talker import talking
from tests.pages.test_accessibility import violations
from tests.pages.test_kinds import LONG, SHORT, form_set

pytestmark = pytest.mark.browser
LENGTHY = "One more sentence of an answer that goes on for long. " * 60


# ---------------------------------------------------------------- keys of one's own


def test_a_key_is_changed_on_the_sheet_and_holds_on_another_device(
    open_page, project, alice
) -> None:
    builders.make_task(project, "pair", ("It is the big city.", "It is the old city."))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "?")
    page.get_by_role("button", name="Change the key D").click()
    with page.expect_response("**/desk/keys/"):
        press(page, "c")
    expect(page.locator("[data-keys-said]")).to_have_text("Kept: C.")
    press(page, "Escape")
    expect(page.locator("#keys-dialog")).to_be_hidden()

    other = open_page(alice, annotate_path(project))
    task_wait(other)
    for one in (page, other):
        press(one, "d")
        expect(one.locator("mark.differs")).to_have_count(0)
        press(one, "c")
        expect(one.locator("mark.differs")).to_have_count(2)
        expect(one.get_by_role("button", name="Compare").locator("kbd")).to_have_text("C")
    assert KeyBindings.objects.get(user=alice).keys == {"compare": "c"}


def test_a_key_that_is_taken_is_refused_with_a_sentence_and_all_are_put_back(
    open_page, project, alice, troubles
) -> None:
    builders.make_task(project, "pair")
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "?")
    said = page.locator("[data-keys-said]")
    for key, words in (
        ("u", "“U” is the key of “undo” already. Give that another key first."),
        ("5", "“5” cannot be “compare”: digits choose by number."),
    ):
        page.get_by_role("button", name="Change the key D").click()
        press(page, key)
        expect(said).to_have_text(words)
    page.get_by_role("button", name="Change the key D").click()
    press(page, "Escape")
    expect(said).to_have_text("It stays as it is.")
    expect(page.locator("#keys-dialog")).to_be_visible()
    page.get_by_role("button", name="Change the key D").click()
    press(page, "z")
    expect(said).to_have_text("Kept: Z.")
    page.get_by_role("button", name="Put all keys back").click()
    expect(page.get_by_role("button", name="Change the key D")).to_be_visible()
    assert KeyBindings.objects.get(user=alice).keys == {}
    refused = [one for one in troubles if "400" in one]
    assert len(refused) == 2
    troubles[:] = [one for one in troubles if one not in refused]


# ---------------------------------------------------------------- reading


def test_answers_are_read_as_written_and_copied_as_text(open_page, project, alice) -> None:
    builders.make_task(project, "pair", ("It **is** $x^2$.", "It is *not*."))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    expect(page.locator(".math math")).to_be_visible()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    uid = page.locator(".answer", has=page.locator(".math")).get_attribute("data-uid")
    card = page.locator(f'.answer[data-uid="{uid}"]')
    card.locator(".answer-text").evaluate("(place) => getSelection().selectAllChildren(place)")
    press(page, "Control+c")
    assert page.evaluate("navigator.clipboard.readText()") == "It is $x^2$."
    press(page, "t")
    expect(card.locator("pre.plain")).to_have_text("It **is** $x^2$.")
    press(page, "t")
    expect(page.locator(".math math")).to_be_visible()


def test_linked_answers_scroll_together(open_page, project, alice) -> None:
    builders.make_task(project, "pair", (LENGTHY, LENGTHY * 3))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "l")
    texts = page.locator(".answer-text")
    texts.first.evaluate("(place) => (place.scrollTop = place.scrollHeight)")
    page.wait_for_function(
        """() => [...document.querySelectorAll(".answer-text")].every((place) =>
             place.scrollTop > 50 &&
             place.scrollTop + place.clientHeight > place.scrollHeight - 3)"""
    )
    assert not violations(page)
    press(page, "l")
    assert texts.first.evaluate("(place) => place.scrollHeight === place.clientHeight")


def test_a_text_is_laid_out_in_its_own_direction(open_page, project, alice) -> None:
    arabic = builders.make_prompt(project, "ما هي عاصمة فرنسا؟")
    builders.make_task(project, "pair", ("باريس هي العاصمة.", "Paris."), prompt=arabic)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    direction = "(place) => getComputedStyle(place).direction"
    assert page.locator("[data-messages] .prose").evaluate(direction) == "rtl"
    rtl = page.locator(".answer-text", has_text="باريس")
    assert rtl.evaluate(direction) == "rtl"
    assert page.locator(".answer-text", has_text="Paris.").evaluate(direction) == "ltr"


def test_a_first_choice_before_anybody_could_have_read_is_pointed_at_and_stands(
    open_page, project, alice
) -> None:
    builders.make_task(project, "pair", (LENGTHY, LENGTHY + "Yes."))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "7")
    expect(page.locator("[data-hint]")).to_contain_text("Your first choice came after")
    press(page, "Enter")
    finished_wait(page)
    submission = Submission.objects.get()
    assert submission.first_move_s is not None
    assert submission.first_move_s < 5


@pytest.mark.parametrize("kind", ["pair", "ranking"])
def test_a_choice_at_odds_with_ones_own_rating_is_pointed_at_and_stands(
    open_page, project, alice, kind
) -> None:
    rated = builders.make_task(project, "rating", priority=1)
    again = builders.make_task(project, kind, (), prompt=rated.prompt)
    for one in rated.task_candidates.all():
        again.task_candidates.create(candidate=one.candidate, position=one.position)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    high = letters(page)["A"]
    with page.expect_response(lambda reply: "/submit/" in reply.url):
        press(page, "6 j 2 Enter")
    expect(page.locator(f'[data-stage="{kind}"]')).to_be_visible()
    letter = next(name for name, uid in letters(page).items() if uid == high)
    low = "AB".replace(letter, "")
    if kind == "pair":
        press(page, "7" if letter == "A" else "3")
    else:
        press(page, "2 j 1" if letter == "A" else "1 j 2")
    expect(page.locator("[data-hint]")).to_contain_text(
        f"You rated {letter} 6 of 7 and {low} 2 before, and now {low} is the better one."
    )
    press(page, "Enter")
    finished_wait(page)
    assert Submission.objects.count() == 2


def test_a_model_that_names_itself_is_not_named_to_the_annotator(open_page, project, alice) -> None:
    builders.make_task(project, "edit", ("I am Claude, by Anthropic. It is Paris.",))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    assert "Claude" not in page.content()
    expect(page.locator(".answer-text")).to_contain_text("I am ⟦hidden name 1⟧")
    page.keyboard.type(" In France.")
    press(page, "Control+Enter")
    finished_wait(page)
    edited = Submission.objects.get().edit.candidate.text
    assert edited == "I am Claude, by Anthropic. It is Paris. In France."


# ---------------------------------------------------------------- guidelines, reports, skips


def test_guidelines_that_changed_are_marked_until_they_are_read_on_any_device(
    open_page, project, alice
) -> None:
    guideline_publish(project=project, text="Be kind.", author=None)
    builders.make_task(project, "pair", overlap=1)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    mark = "[data-guideline-new]"
    expect(page.locator(mark)).to_have_text("not read yet")
    with page.expect_response("**/guidelines/read/"):
        press(page, "g")
    expect(page.locator(mark)).to_be_hidden()
    other = open_page(alice, annotate_path(project))
    task_wait(other)
    expect(other.locator(mark)).to_be_hidden()

    guideline_publish(project=project, text="Be kinder.", author=None)
    Assignment.objects.all().delete()
    Task.objects.update(slots_free=1)
    other.reload()
    task_wait(other)
    expect(other.locator(mark)).to_have_text("changed since you last read them")
    with other.expect_response("**/guidelines/read/"):
        press(other, "g")
    expect(other.get_by_text("that was version 1.")).to_be_visible()
    assert Membership.objects.get(user=alice).guideline_read == 2


def test_a_task_is_reported_and_stays_in_hand(open_page, project, alice, bob) -> None:
    builders.make_task(project, "pair", overlap=2)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "!")
    page.keyboard.type("The second answer is cut off.")
    with page.expect_response("**/report/"):
        press(page, "Control+Enter")
    expect(page.get_by_text("Reported. You may finish the task")).to_be_visible()
    assert Report.objects.get().text == "The second answer is cut off."
    press(page, "2 Enter")
    finished_wait(page)
    assert Submission.objects.get().status == Submission.Status.ACCEPTED


def test_one_press_of_a_number_skips(open_page, project, alice) -> None:
    builders.make_task(project, "pair")
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "s 6")  # another: in words
    page.keyboard.type("It is a duplicate.")
    press(page, "Enter")
    finished_wait(page)
    assert Assignment.objects.get().skip_reason == "Another reason: It is a duplicate."


# ---------------------------------------------------------------- care


def test_a_sensitive_text_is_covered_until_it_is_asked_for(open_page, project, alice) -> None:
    prompt = builders.make_prompt(project, "How do people die?")
    prompt.tags = ["sensitive"]
    prompt.save()
    builders.make_task(project, "pair", (LONG, SHORT), prompt=prompt)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    expect(page.get_by_role("heading", name="What comes may be upsetting")).to_be_visible()
    assert not violations(page)
    press(page, "2 Tab")
    assert page.locator("[data-stage]").evaluate("(stage) => stage.inert")
    page.get_by_role("button", name="Show it").click()
    press(page, "2")
    expect(page.get_by_role("radio", checked=True)).to_have_attribute("data-place", "2")
    saved_wait(page)
    page.reload()  # what was begun is not covered again
    task_wait(page)
    expect(page.locator("[data-cover]")).to_be_hidden()


def test_a_long_stretch_of_work_has_a_reminder_of_a_break(open_page, project, alice) -> None:
    builders.make_task(project, "pair")
    page = open_page(alice, annotate_path(project))
    page.clock.install()
    page.reload()
    task_wait(page)
    for minute in range(104):
        page.mouse.move(400 + minute, 300)
        page.clock.run_for(29_000)
    expect(page.get_by_text("You have worked for 50 minutes.")).to_be_visible()


# ---------------------------------------------------------------- none is good


@pytest.mark.parametrize("hand", ["keys", "mouse", "finger"])
def test_where_none_is_good_the_best_is_written_anew(open_page, project, alice, hand) -> None:
    builders.make_ranking_task(project, ("Paris.", "Lyon."))
    page = open_page(alice, annotate_path(project), wide=hand != "finger")
    task_wait(page)
    by_letter = letters(page)
    if hand == "keys":
        press(page, "x j x k e")
    else:
        act = "click" if hand == "mouse" else "tap"
        for letter in "AB":
            button = page.get_by_role("button", name=f"{letter}: not acceptable", exact=True)
            getattr(button, act)()
        getattr(page.get_by_role("button", name="Write it anew"), act)()
    editor = page.get_by_role("textbox", name="Answer A, written anew")
    expect(editor).to_be_focused()
    expect(page.locator("[data-hint]")).to_contain_text("the answer unchanged")
    page.keyboard.type(" And why.")
    saved_wait(page)
    page.reload()
    task_wait(page)
    expect(editor).to_have_value(re.compile(r" And why\.$"))
    if hand == "finger":
        page.get_by_role("button", name="Submit").tap()
    else:
        editor.focus()
        press(page, "Control+Enter")
    finished_wait(page)
    submission = Submission.objects.get()
    assert submission.edit.original.uid == by_letter["A"]
    assert submission.edit.candidate.text == f"{submission.edit.original.text} And why."
    assert sorted(submission.ranking.unacceptable) == sorted(by_letter.values())


# ---------------------------------------------------------------- dialogues


def test_a_vote_is_given_while_the_second_answer_is_still_written(
    open_page, project, alice
) -> None:
    with talking() as endpoint:
        sides = [{"endpoint": endpoint.name, "temperature": heat} for heat in (0.1, 1.0)]
        form_set(project, "dialogue", sides=sides, max_turns=1)
        builders.make_task(project, "dialogue", ())
        page = open_page(alice, annotate_path(project))
        task_wait(page)
        page.keyboard.type("Tell me slowly about it all")
        press(page, "Control+Enter")
        expect(page.locator(".answer-text", has_text="You said")).to_be_visible()
        press(page, "9")
        expect(page.get_by_role("radio", checked=True)).to_have_attribute("data-place", "9")
        assert page.locator(".answer.writing-now").count()
        press(page, "Enter")
        expect(page.locator("[data-say]")).to_contain_text("still being written")
        expect(page.locator(".answer-text", has_text="again.")).to_be_visible()
        expect(page.locator(".answer.writing-now")).to_have_count(0)
        press(page, "Enter")
        finished_wait(page)
    assert Submission.objects.get().dialogue.turns[0]["degree"] == 4


# ---------------------------------------------------------------- reflow


SMALL_TARGETS = """() => [...document.querySelectorAll(
    ".desk button, .desk a, .desk textarea, .desk [role=radio], header button, header a")]
  .filter((one) => one.checkVisibility() && !one.closest(".prose"))
  .map((one) => [one.getBoundingClientRect(), one])
  .filter(([box]) => box.width > 1 && (box.width < 24 || box.height < 24))
  .map(([box, one]) => `${one.outerHTML.slice(0, 80)} ${box.width} × ${box.height}`)"""
HIDDEN_FOCUS = """() => {
  const one = document.activeElement;
  const box = one.getBoundingClientRect();
  if (!box.width || one === document.body) return "";
  const [x, y] = [box.left + box.width / 2, box.top + Math.min(box.height / 2, 12)];
  const over = document.elementFromPoint(x, y);
  const seen = over && (one.contains(over) || over.contains(one) || over.closest("label"));
  return seen ? "" : `${one.outerHTML.slice(0, 90)} at ${x}, ${y} is under ${over?.className}`;
}"""


def open_small(open_page, project, alice, kind, size):
    """A task of a kind in a window of this size: 720 by 450 is a laptop at 200 %."""
    if kind == "pair":
        form_set(project, kind, safety_labels=True)
    texts = () if kind == "dialogue" else (LONG + LENGTHY, SHORT * 10)
    builders.make_task(project, kind, texts)
    page = open_page(alice, annotate_path(project))
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.reload()
    task_wait(page)
    page.wait_for_timeout(200)
    return page


@pytest.mark.parametrize("size", [(720, 450), (390, 844), (320, 640)])
@pytest.mark.parametrize("kind", Task.Kind.values)
def test_magnified_and_on_a_phone_nothing_scrolls_sideways_and_targets_are_large_enough(
    open_page, project, alice, kind, size
) -> None:
    """WCAG 2.2: 1.4.10 reflow (320 is 1280 at 400 %), 2.5.8 targets of 24 px."""
    page = open_small(open_page, project, alice, kind, size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    small = page.evaluate(SMALL_TARGETS)
    assert not small, "\n".join(small)


@pytest.mark.parametrize("kind", Task.Kind.values)
def test_at_200_percent_what_has_the_focus_is_not_hidden_by_what_sticks(
    open_page, project, alice, kind
) -> None:
    """WCAG 2.2: 2.4.11 focus not obscured."""
    page = open_small(open_page, project, alice, kind, (720, 450))
    hidden = set()
    for _ in range(24):
        press(page, "Tab")
        page.wait_for_timeout(20)
        hidden.add(page.evaluate(HIDDEN_FOCUS))
    assert hidden <= {""}, "\n".join(sorted(hidden))


@pytest.mark.parametrize("wide", [True, False])
def test_what_is_pointed_at_is_covered_by_nothing(open_page, project, alice, wide) -> None:
    """Magnified to 200 %, and on a phone, where it has a line of the bar to itself."""
    builders.make_task(project, "pair", ("One answer. " * 60, "Another answer. " * 60))
    page = open_page(alice, annotate_path(project), wide=wide)
    if wide:
        page.set_viewport_size({"width": 720, "height": 450})
    task_wait(page)
    press(page, "1")  # before anybody could have read them
    saved_wait(page)
    page.reload()
    task_wait(page)
    hint = page.locator("[data-hint]")
    expect(hint).to_contain_text("Your first choice came after")
    notice = page.locator("[data-notices] li")
    expect(notice).to_contain_text("Your draft is back.")
    top = hint.bounding_box()["y"]
    below = [notice] if wide else [notice, page.locator(".degrees")]
    for one in below:
        box = one.bounding_box()
        assert box["y"] + box["height"] <= top
    bar = page.locator(".desk-bar").bounding_box()
    assert bar["y"] <= top and bar["height"] <= 112


def test_words_are_counted_on_the_page_as_on_the_server(open_page, project, alice) -> None:
    prompt = builders.make_prompt(project, "强化学习。" * 100)
    builders.make_task(project, "pair", ("他说：“好”。", "Good."), prompt=prompt)
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    texts = [text for text, _ in WORDS]
    counted = page.evaluate("(texts) => texts.map(window.rondo.wordsCount)", texts)
    assert counted == [words for _, words in WORDS]
    given = "{prompt: {messages: [{text: '强化学习。'.repeat(100)}]}, candidates: [{words: 76}]}"
    to_read_s = page.evaluate(f"window.rondo.readingSeconds({given})")
    assert to_read_s == pytest.approx((400 + 76) / 238 * 60)
    expect(page.get_by_text("3 words")).to_be_visible()
