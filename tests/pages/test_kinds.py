"""Every kind of task from start to finish: by keys alone, with the mouse, with a finger."""

import pytest
from playwright.sync_api import expect

from annotation.models import Assignment, Candidate, Submission, Task, TaskForm
from tests import builders
from tests.pages.board import annotate_path, finished_wait, letters, press, saved_wait, task_wait
from tests.pages.talker import talking
from tests.pages.test_accessibility import violations

pytestmark = pytest.mark.browser

LONG = "Recursion calls itself.\n\n```python\nreturn n * f(n - 1)\n```\n\nIt costs $O(n)$ calls."
SHORT = "Recursion calls itself until it stops."


def form_set(project, kind: str, **settings) -> None:
    TaskForm.objects.create(project=project, kind=kind, settings=settings)


def text_of(uid: str) -> str:
    return Candidate.objects.get(uid=uid).text


# ---------------------------------------------------------------- pairs


def test_a_pair_is_judged_by_keyboard_with_its_degree_and_its_safety(
    open_page, project, alice
) -> None:
    form_set(project, "pair", safety_labels=True)
    builders.make_task(project, "pair", (LONG, SHORT))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    by_letter = letters(page)
    press(page, "Enter")
    expect(page.locator("[data-hint]")).to_contain_text("say which is better")
    assert not Submission.objects.exists()
    press(page, "9")
    expect(page.get_by_role("radio", checked=True)).to_have_attribute(
        "aria-label", "B is significantly better than A"
    )
    press(page, "3 b u a")
    expect(page.locator("[data-hint]")).to_contain_text("You prefer A, which you marked")
    press(page, "r")
    page.keyboard.type("9 u s")
    press(page, "Escape Enter")
    finished_wait(page)
    submission = Submission.objects.get()
    assert submission.comparison.better.uid == by_letter["A"]
    assert submission.comparison.degree == 2
    assert submission.comparison.unsafe == [by_letter["A"]]
    assert submission.rationale == "9 u s"


def test_a_pair_is_judged_with_the_mouse(open_page, project, alice) -> None:
    builders.make_task(project, "pair", (LONG, SHORT))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    page.get_by_role("radio", name="A tie: neither is better").click()
    page.get_by_role("button", name="Submit").click()
    finished_wait(page)
    assert Submission.objects.get().comparison.degree == 0


def test_a_pair_is_judged_with_a_finger(open_page, project, alice) -> None:
    form_set(project, "pair", ties=False, safety_labels=True)
    builders.make_task(project, "pair", (LONG, SHORT))
    page = open_page(alice, annotate_path(project), wide=False)
    task_wait(page)
    by_letter = letters(page)
    expect(page.get_by_role("radio")).to_have_count(8)
    for end in ("A much better", "unsure", "B much better"):  # the steps have no room for words
        expect(page.locator(".degrees-ends").get_by_text(end, exact=True)).to_be_visible()
    page.get_by_role("radio", name="B is better than A").tap()
    page.get_by_role("button", name="A is not safe").tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Submit").tap()
    finished_wait(page)
    comparison = Submission.objects.get().comparison
    assert (comparison.better.uid, comparison.degree) == (by_letter["B"], 3)
    assert comparison.unsafe == [by_letter["A"]]


def test_words_that_differ_are_marked_and_put_away(open_page, project, alice) -> None:
    builders.make_task(project, "pair", ("It is the big city.", "It is the old city."))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "d")
    assert sorted(page.locator("mark.differs").all_inner_texts()) == ["big", "old"]
    expect(page.get_by_text("compared with B")).to_be_visible()
    press(page, "d")
    expect(page.locator("mark.differs")).to_have_count(0)
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("mark.differs")).to_have_count(2)


def test_code_and_mathematics_are_typeset_and_fetched_only_for_a_text_that_has_some(
    open_page, live_server, project, alice
) -> None:
    builders.make_task(project, "pair", ("Plain.", "Also plain."), priority=1)
    builders.make_task(project, "pair", (LONG, SHORT))
    asked: list[str] = []
    page = open_page(alice, "/")
    page.on("request", lambda request: asked.append(request.url))
    page.goto(live_server.url + annotate_path(project))
    task_wait(page)
    assert not [url for url in asked if "katex" in url or "highlight" in url]
    press(page, "5 Enter")
    expect(page.locator(".math math")).to_be_visible()
    expect(page.locator(".hljs-keyword")).to_have_text("return")
    assert [url for url in asked if "katex" in url]


# ---------------------------------------------------------------- ratings


def test_answers_are_rated_by_keyboard_with_the_projects_flags(open_page, project, alice) -> None:
    flags = [{"name": "rude", "label": "Rude", "key": "y"}, {"name": "odd", "label": "Odd"}]
    form_set(project, "rating", flags=flags, rationale="required")
    builders.make_task(project, "rating", (LONG, SHORT))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    by_letter = letters(page)
    press(page, "6 y")
    expect(page.locator("[data-hint]")).to_contain_text("A has 6 of 7, and yet “Rude”.")
    press(page, "Enter")
    expect(page.locator("[data-say]")).to_have_text("Not sent: B still to be rated.")
    press(page, "3 4 u Enter")
    expect(page.locator("[data-say]")).to_have_text("Not sent: say why.")
    page.keyboard.type("because")
    press(page, "Control+Enter")
    finished_wait(page)
    assert Submission.objects.get().rating.ratings == {
        by_letter["A"]: {"overall": 6, "flags": ["rude"]},
        by_letter["B"]: {"overall": 3, "flags": []},
    }


@pytest.mark.parametrize("asked", ["optional", "none"])
def test_the_key_to_the_reason_is_told_only_where_one_is_asked(
    open_page, project, alice, asked
) -> None:
    form_set(project, "rating", rationale=asked)
    builders.make_task(project, "rating", (LONG, SHORT))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    told = expect(page.locator("[data-short] [data-action=rationale]"))
    told.to_be_visible() if asked == "optional" else told.to_be_hidden()
    press(page, "?")
    expect(page.locator("#keys-dialog [data-action=undo]")).to_be_visible()
    told = expect(page.locator("#keys-dialog [data-action=rationale]"))
    told.to_be_visible() if asked == "optional" else told.to_be_hidden()


@pytest.mark.parametrize("wide", [True, False])
def test_answers_are_rated_with_mouse_and_finger(open_page, project, alice, wide) -> None:
    builders.make_task(project, "rating", (LONG, SHORT))
    page = open_page(alice, annotate_path(project), wide=wide)
    task_wait(page)
    by_letter = letters(page)
    act = "click" if wide else "tap"
    for name in ("A: 7 of 7", "B: 2 of 7"):
        getattr(page.get_by_role("button", name=name), act)()
    panel = page.get_by_role("group", name="What is wrong with B")
    getattr(panel.get_by_role("button", name="Harmful"), act)()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    getattr(page.get_by_role("button", name="Submit"), act)()
    finished_wait(page)
    ratings = Submission.objects.get().rating.ratings
    assert ratings[by_letter["A"]] == {"overall": 7, "flags": []}
    assert ratings[by_letter["B"]] == {"overall": 2, "flags": ["harmful"]}


# ---------------------------------------------------------------- demonstrations


def test_an_answer_is_written_from_nothing_by_keyboard_and_seen_as_it_will_be_read(
    open_page, project, alice
) -> None:
    form_set(project, "demonstration", start="nothing")
    builders.make_task(project, "demonstration", ())
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    page.keyboard.type("It is **Paris**.")
    expect(page.locator("[data-pane-text] strong")).to_have_text("Paris")
    press(page, "Escape p")
    expect(page.locator("[data-pane-text]")).to_be_hidden()
    press(page, "e Control+Enter")
    finished_wait(page)
    assert Submission.objects.get().demonstration.candidate.text == "It is **Paris**."


@pytest.mark.parametrize("wide", [True, False])
def test_an_answer_is_written_on_from_a_draft(open_page, project, alice, wide) -> None:
    builders.make_task(project, "demonstration", (SHORT, LONG))
    page = open_page(alice, annotate_path(project), wide=wide)
    task_wait(page)
    draft = page.get_by_role("button", name="Draft A")
    draft.click() if wide else draft.tap()
    expect(page.locator("[data-hint]")).to_contain_text("the draft, unchanged")
    page.keyboard.type(" And more.")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    submit = page.get_by_role("button", name="Submit")
    submit.click() if wide else submit.tap()
    finished_wait(page)
    kept = Submission.objects.get().demonstration
    assert kept.candidate.text == f"{kept.started_from.text} And more."


def test_a_demonstration_goes_on_for_several_turns(open_page, project, alice) -> None:
    form_set(project, "demonstration", turns=2)
    builders.make_task(project, "demonstration", ())
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    page.keyboard.type("First.")
    page.get_by_role("button", name="Go on with another turn").click()
    page.keyboard.type("And then?")
    press(page, "Control+Enter")
    expect(page.locator("[data-say]")).to_contain_text("a turn is not finished")
    page.keyboard.type("Second.")
    saved_wait(page)
    page.reload()
    task_wait(page)
    expect(page.get_by_label("What the person says next, turn 2")).to_have_value("And then?")
    press(page, "Control+Enter")
    finished_wait(page)
    assert Submission.objects.get().demonstration.turns == [
        {"user": "And then?", "text": "Second."}
    ]


# ---------------------------------------------------------------- edits


@pytest.mark.parametrize("hand", ["keys", "mouse", "finger"])
def test_the_best_answer_is_made_better(open_page, project, alice, hand) -> None:
    builders.make_task(project, "edit", (SHORT, "It loops."))
    page = open_page(alice, annotate_path(project), wide=hand != "finger")
    task_wait(page)
    by_letter = letters(page)
    choose = page.get_by_role("button", name="Edit answer B")
    {"keys": lambda: press(page, "2"), "mouse": choose.click, "finger": choose.tap}[hand]()
    submit = page.get_by_role("button", name="Submit")
    if hand == "keys":
        press(page, "Control+Enter")
        expect(page.locator("[data-say]")).to_have_text("Not sent: nothing is changed yet.")
    page.keyboard.type(" Always.")
    expect(page.locator(".changes ins")).to_contain_text("Always.")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    {
        "keys": lambda: press(page, "Control+Enter"),
        "mouse": submit.click,
        "finger": submit.tap,
    }[hand]()
    finished_wait(page)
    submission = Submission.objects.get()
    original = text_of(by_letter["B"])
    assert submission.edit.original.uid == by_letter["B"]
    assert submission.edit.candidate.text == f"{original} Always."
    assert submission.comparison.worse.uid == by_letter["B"]


# ---------------------------------------------------------------- dialogues


@pytest.mark.parametrize("hand", ["keys", "mouse", "finger"])
def test_a_dialogue_goes_on_with_the_chosen_answers(open_page, project, alice, hand) -> None:
    with talking() as endpoint:
        sides = [{"endpoint": endpoint.name, "temperature": heat} for heat in (0.1, 1.0)]
        form_set(project, "dialogue", sides=sides, max_turns=2)
        builders.make_task(project, "dialogue", ())
        page = open_page(alice, annotate_path(project), wide=hand != "finger")
        task_wait(page)
        act = "tap" if hand == "finger" else "click"

        def do(name: str, key: str, role: str = "button") -> None:
            if hand == "keys":
                press(page, key)
            else:
                getattr(page.get_by_role(role, name=name), act)()

        page.get_by_label("Your message").focus()
        page.keyboard.type("Hello")
        do("Send the message", "Control+Enter")
        expect(page.locator(".answer-text").first).to_contain_text("Hello")
        do("B is better than A", "8", "radio")
        expect(page.get_by_role("button", name="Go on with the chosen answer")).to_be_enabled()
        do("Go on with the chosen answer", "n")
        page.keyboard.type("And now?")
        do("Send the message", "Control+Enter")
        expect(page.locator(".answer-text").first).to_contain_text("And now?")
        saved_wait(page)
        page.reload()  # a laptop is closed and opened
        task_wait(page)
        expect(page.locator(".answer-text").first).to_contain_text("And now?")
        do("A is significantly better than B", "1", "radio")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        do("Submit", "Enter")
        finished_wait(page)
    turns = Submission.objects.get().dialogue.turns
    assert [turn["user"] for turn in turns] == ["Hello", "And now?"]
    assert [turn["degree"] for turn in turns] == [3, 4]
    assert turns[0]["chosen"] == turns[0]["candidates"][1]
    assert turns[1]["chosen"] == turns[1]["candidates"][0]


def test_a_model_that_gives_no_answer_is_asked_again(open_page, project, alice, troubles) -> None:
    with talking() as endpoint:
        form_set(project, "dialogue", sides=[{"endpoint": endpoint.name}] * 2)
        right, endpoint.base_url = endpoint.base_url, "http://127.0.0.1:9/v1"
        endpoint.save()
        builders.make_task(project, "dialogue", ())
        page = open_page(alice, annotate_path(project))
        task_wait(page)
        page.keyboard.type("Hello")
        press(page, "Control+Enter")
        expect(page.locator("[data-trouble]")).to_be_visible()
        endpoint.base_url = right
        endpoint.save()
        page.get_by_role("button", name="Ask again").click()
        expect(page.locator(".answer-text").first).to_contain_text("Hello")


# ---------------------------------------------------------------- for all


@pytest.mark.parametrize(("scheme", "wide"), [("light", True), ("dark", False)])
@pytest.mark.parametrize("kind", [one for one in Task.Kind.values if one != "ranking"])
def test_axe_finds_nothing_serious(open_page, project, alice, kind, scheme, wide) -> None:
    if kind == "pair":
        form_set(project, kind, safety_labels=True)
    builders.make_task(project, kind, () if kind == "dialogue" else (LONG * 3, SHORT * 40))
    page = open_page(alice, annotate_path(project), wide=wide, color_scheme=scheme)
    # High enough that the bar at the foot covers half of nothing.
    page.set_viewport_size({"width": 1440 if wide else 390, "height": 3000})
    task_wait(page)
    found = violations(page)
    press(page, {"pair": "2 b", "rating": "3 h", "demonstration": "2", "edit": "1"}.get(kind, ""))
    page.wait_for_timeout(500)
    found += violations(page)
    if kind == "pair":
        for key in ("q", "?"):
            press(page, key)
            found += violations(page)
            press(page, "Escape")
    assert not found, "\n".join(found)


def test_a_question_lays_the_task_aside_with_its_draft(open_page, project, alice) -> None:
    builders.make_task(project, "pair", prompt=builders.make_prompt(project, "First?"))
    builders.make_task(project, "pair", prompt=builders.make_prompt(project, "Second?"))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    press(page, "2 q")
    page.keyboard.type("Is Lyon meant?")
    press(page, "Control+Enter")
    expect(page.locator("[data-messages]")).to_contain_text("Second?")
    paused = Assignment.objects.get(state=Assignment.State.PAUSED)
    assert paused.questions.get().text == "Is Lyon meant?"
    assert paused.draft["degree"] == 3
