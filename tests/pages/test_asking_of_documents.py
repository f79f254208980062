"""From a rule's threshold to people's queue and back: documents asked about in a browser."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from playwright.sync_api import expect

from annotation.models import Project
from tests import builders
from tests.modelhub.corpora import make_corpus
from tests.pages.board import annotate_path, finished_wait, press, task_wait
from tests.pages.conftest import Open
from tests.pages.test_accessibility import violations

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_documents_are_sent_rated_and_stand_beside_the_threshold(
    open_page: Open, live_server, settings: Any, tmp_path: Path
) -> None:
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    eve = builders.make_user("eve", is_staff=True)
    texts = [f"{'A few words more. ' * count}" for count in (1, 2, 20, 30)]
    corpus = make_corpus(tmp_path, texts)
    page = open_page(eve, f"/hub/corpora/{corpus.run.uid}/rules/", patience_ms=30000)
    page.get_by_label("gopher.words_min", exact=True).fill("40")
    expect(page.locator(".rule-view h3").first).to_have_text("2 of 4 would go")
    page.get_by_role("link", name="Ask annotators").click()
    expect(page.get_by_role("heading", name="Ask annotators")).to_be_visible()
    expect(page.get_by_label("Which documents")).to_have_value("every")
    page.get_by_label("Which documents").select_option("gopher.words_min")
    page.get_by_label("How many documents").fill("2")
    page.get_by_label("People for each document").fill("1")
    assert violations(page) == []
    page.get_by_role("button", name="Send the documents").click()
    expect(page.get_by_role("status")).to_contain_text("2 documents were sent")

    project = Project.objects.get()
    assert project.name == "Texts of test"
    alice = builders.make_member(project, "alice").user
    desk = open_page(alice, annotate_path(project), patience_ms=30000)
    task_wait(desk)
    expect(desk.get_by_text("good for a language model to learn from")).to_be_visible()
    # Nearest to 40: the second, of 8 words with its marks, and the third, of 80.
    press(desk, "2 b Enter")
    expect(
        desk.get_by_text("A few words more. A few words more. A few words more.")
    ).to_be_visible()
    press(desk, "7 Enter")
    finished_wait(desk)

    page.goto(f"{live_server.url}/hub/corpora/{corpus.run.uid}/rules/?rule=gopher.words_min")
    expect(page.get_by_text("takes 1 of 1 bad ones and 0 of 1 good ones")).to_be_visible()
    expect(page.get_by_text("2 judgements of 2 documents by 1 person")).to_be_visible()
    page.get_by_text("By threshold", exact=True).click()
    best = page.locator(".by-threshold tr", has_text="best")
    expect(best).to_contain_text("100 %")
    # What was opened stays open when figures change.
    page.get_by_label("gopher.words_min", exact=True).fill("2")
    expect(page.get_by_text("takes 0 of 1 bad ones and 0 of 1 good ones")).to_be_visible()
    expect(best).to_be_visible()
    assert violations(page) == []
