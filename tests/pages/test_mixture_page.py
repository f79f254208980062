"""The planner of mixtures in a browser: every change answers, and what is kept can be launched."""

import re

import pytest

pytest.importorskip("numpy", reason="NumPy is not installed")

from playwright.sync_api import Route, expect

from modelhub.models import SavedMixture
from tests import builders
from tests.modelhub.mixtures import make_rate, make_tokens
from tests.pages.conftest import Open
from tests.pages.test_accessibility import violations

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_a_mixture_is_planned_changed_at_a_step_and_kept(open_page: Open, live_server) -> None:
    eve = builders.make_user("eve", is_staff=True)
    sizes = {"三国演义": 431_000, "poems": 1_460_000, "Shakespeare": 420_000, "prose": 90_000}
    for name, tokens in sizes.items():
        make_tokens(name, tokens)
    make_rate(tokens_per_s=1900.0, parameters=3_400_000)
    page = open_page(eve, "/hub/mixtures/plan/", patience_ms=30000)
    for name in ("三国演义", "poems", "prose"):
        page.get_by_label(re.compile(name)).first.check()
        expect(page.locator(".mix-bar")).to_have_count(
            {"三国演义": 1, "poems": 2, "prose": 3}[name]
        )
    page.get_by_label("Tokens", exact=True).fill("2M")
    page.get_by_label("Tokens", exact=True).press("Tab")
    expect(page.locator(".stat .value").first).to_have_text("2.0 M")
    page.get_by_label("Speed and size of").select_option(index=1)
    expect(page.locator(".stat .note").nth(1)).to_have_text("at 1,900 tokens a second, as measured")

    # Evened out, the small set is read again and again; a cap holds it.
    page.locator("#by-0").select_option("temperature")
    expect(page.locator("#temperature-0")).to_be_visible()
    page.locator("#temperature-0").fill("100")
    page.locator("#temperature-0").press("Tab")
    expect(page.get_by_text("worn out")).to_have_count(1)
    page.get_by_label("Most epochs of prose").fill("3")
    page.get_by_label("Most epochs of prose").press("Tab")
    expect(page.get_by_text("worn out")).to_have_count(0)
    expect(page.get_by_text("repeated")).to_have_count(2)

    # From a step on, by hand.
    page.get_by_role("button", name="Change the blend at a step").click()
    expect(page.locator(".mix-blend")).to_have_count(2)
    page.locator("#by-1").select_option("hand")
    expect(page.get_by_label(re.compile("Weight of poems from step"))).to_be_visible()
    page.get_by_label(re.compile("Weight of poems from step")).fill("80")
    page.get_by_label(re.compile("Weight of poems from step")).press("Tab")
    expect(page.locator(".mix-history rect")).to_have_count(6)
    assert "add=" not in page.url
    assert violations(page) == []
    address = page.url

    page.get_by_label("Name of the mixture").fill("verse")
    page.get_by_label("What is new in it").fill("poems from the middle on")
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_role("heading", name="verse@1")).to_be_visible()
    saved = SavedMixture.objects.get()
    assert [blend["by"] for blend in saved.blends] == ["temperature", "hand"]
    assert violations(page) == []
    page.get_by_role("link", name="Launch with it").click()
    expect(page.locator('[name="setting-mixture"]')).to_have_value("verse@1")
    chosen = page.locator('[name="input-tokens"]:checked')
    expect(chosen).to_have_count(3)

    # The same plan on a phone in the dark: nothing wider than the screen.
    phone = open_page(eve, address.removeprefix(live_server.url), wide=False, color_scheme="dark")
    expect(phone.locator(".mix-bar")).to_have_count(3)
    assert phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert violations(phone) == []


def test_what_is_typed_while_an_answer_is_on_its_way_stays(open_page: Open) -> None:
    """Held back for as long as it takes to type on: in the same field, in another, and in one that
    the answer brings anew."""
    eve = builders.make_user("eve", is_staff=True)
    make_tokens("poems", 1_000_000)
    make_tokens("prose", 500_000)
    page = open_page(eve, "/hub/mixtures/plan/", patience_ms=30000)
    page.get_by_label(re.compile("poems")).first.check()
    expect(page.locator(".mix-bar")).to_have_count(1)

    held: list[Route] = []
    page.route("**/hub/mixtures/plan/**", lambda route: held.append(route))

    def answer() -> None:
        asking = page.locator("#mix.htmx-request")
        expect(asking).to_have_count(1)
        for _ in range(300):
            while held:
                held.pop(0).continue_()
            if not asking.count():
                return
            page.wait_for_timeout(100)
        raise AssertionError("no answer came")

    tokens, steps = page.locator("#tokens"), page.locator("#blocks_per_step")
    tokens.fill("2M")
    tokens.press("Tab")
    page.locator("#block_tokens").press_sequentially("9")
    steps.evaluate("field => { field.value = '77' }")  # as a script or a filler of forms would
    caret = "document.activeElement.id + document.activeElement.selectionStart"
    before = (page.evaluate(caret), page.locator("#block_tokens").input_value())
    answer()
    expect(page.locator(".stat .value").first).to_have_text("2.0 M")
    assert (page.evaluate(caret), page.locator("#block_tokens").input_value()) == before
    assert steps.input_value() == "77"
    assert tokens.input_value() == "2000000"  # said as it was understood, for nobody types there

    page.locator("#block_tokens").press("Tab")
    answer()

    # A set more: the fields are other ones, and what was typed since is in them.
    page.get_by_label(re.compile("prose")).first.check()
    tokens.focus()
    tokens.fill("3M")
    answer()
    expect(page.get_by_label("Most epochs of prose")).to_be_visible()
    assert tokens.input_value() == "3M"
    assert page.evaluate("document.activeElement.id") == "tokens"
