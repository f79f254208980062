"""The corpus pages in a browser: for everyone to use; a threshold answers as it is moved."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from playwright.sync_api import Route, expect

from modelhub.models import RuleSet
from tests import builders
from tests.modelhub.corpora import make_corpus
from tests.pages.conftest import Open
from tests.pages.test_accessibility import violations

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_a_moved_threshold_answers_and_axe_finds_nothing(
    open_page: Open, live_server, settings: Any, tmp_path: Path
) -> None:
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    eve = builders.make_user("eve", is_staff=True)
    texts = [f"Text {i} of a few words, and the rest of it." for i in range(3)]
    corpus = make_corpus(tmp_path, [*texts, "话说天下大势，分久必合，合久必分。" * 9])
    where = f"/hub/corpora/{corpus.run.uid}/"
    assert (
        violations(open_page(eve, where, wide=False, color_scheme="dark", patience_ms=30000)) == []
    )

    page = open_page(eve, f"{where}rules/?rule=gopher.words_min", patience_ms=30000)
    expect(page.locator(".rule-view h3").first).to_have_text("3 of 3 would go")
    assert violations(page) == []
    page.get_by_label("gopher.words_min", exact=True).fill("5")
    page.get_by_label("gopher.words_max", exact=True).focus()
    expect(page.locator(".rule-view h3").first).to_have_text("0 of 3 would go")
    assert "csrf" not in page.url


def test_what_is_typed_while_an_answer_is_on_its_way_stays_and_is_saved(
    open_page: Open, live_server, troubles: list[str], settings: Any, tmp_path: Path
) -> None:
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    eve = builders.make_user("eve", is_staff=True)
    corpus = make_corpus(tmp_path, [f"Text {i} of a few words, and the rest of it." for i in "ab"])
    where = f"/hub/corpora/{corpus.run.uid}/rules/"
    page = open_page(eve, where, patience_ms=30000)
    held: list[Route] = []
    page.route(f"**{where}?*", lambda route: held.append(route))
    least, most = (page.get_by_label(f"gopher.words_{end}", exact=True) for end in ("min", "max"))

    least.fill("5")
    while not held:
        page.wait_for_timeout(50)
    most.fill("")
    most.press_sequentially("4")
    page.get_by_label("Name of the thresholds").fill("typed")
    most.focus()
    held.pop(0).continue_()  # the answer to 5 alone
    expect(page.locator(".rule-view h3").first).to_have_text("0 of 2 would go")
    most.press_sequentially("2")
    expect(most).to_have_value("42")
    expect(most).to_be_focused()

    most.press_sequentially("0")
    # Sent before any answer can have come.
    page.get_by_role("button", name="Save and clean").click()
    page.wait_for_url("**/hub/runs/*/")
    saved = RuleSet.objects.get(name="typed").thresholds
    assert (saved["gopher.words_min"], saved["gopher.words_max"]) == (5.0, 420.0)
    assert saved["gopher.words_max@zh"] == 200_000
    troubles.clear()  # the page was left with a question on its way


def test_what_is_no_number_is_named_and_stays_in_its_field(
    open_page: Open, live_server, troubles: list[str], settings: Any, tmp_path: Path
) -> None:
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    eve = builders.make_user("eve", is_staff=True)
    corpus = make_corpus(tmp_path, ["A few words, and the rest of it."])
    page = open_page(eve, f"/hub/corpora/{corpus.run.uid}/rules/", patience_ms=30000)
    page.get_by_label("gopher.words_min", exact=True).fill("7")
    expect(page.locator(".rule-view h3").first).to_have_text("0 of 1 would go")
    page.get_by_label("gopher.words_min", exact=True).fill("many")
    expect(page.get_by_role("alert")).to_have_text("Words, at least: many is no number.")
    expect(page.locator(".rule-view h3").first).to_have_text("0 of 1 would go")
    troubles.clear()  # a refused answer is an error of the console's
    page.get_by_label("Name of the thresholds").fill("typed")
    page.get_by_role("button", name="Save and clean").click()
    expect(page.get_by_role("alert")).to_have_text("Words, at least: many is no number.")
    expect(page.get_by_label("gopher.words_min", exact=True)).to_have_value("many")
    expect(page.get_by_label("Name of the thresholds")).to_have_value("typed")
    assert not RuleSet.objects.exists()
    troubles.clear()
