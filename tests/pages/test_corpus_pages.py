"""The corpus pages in a browser: for everyone to use; a threshold answers as it is moved."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from playwright.sync_api import expect

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
    kept = page.locator('input[form="clean-form"][name="threshold-gopher.words_min"]')
    expect(kept).to_have_value("5.0")
    assert "csrf" not in page.url
