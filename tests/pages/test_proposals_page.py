"""Deciding on a model's proposals in a browser, by keyboard alone."""

import pytest
from playwright.sync_api import expect

from annotation.models import Membership, Prompt
from annotation.services.proposals import proposals_add
from modelhub.models import Run
from tests import builders
from tests.pages.conftest import Open
from tests.pages.test_accessibility import violations

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_proposals_are_accepted_and_rejected_by_one_key_each(
    open_page: Open, troubles: list[str]
) -> None:
    project = builders.make_project()
    manager = builders.make_member(project, "eve", Membership.Role.MANAGER).user
    run = Run.objects.create(program="self_instruct", config={}, status="succeeded", result={})
    texts = ["Name a river <b>of</b> Africa.", "讲一个关于月亮的故事。", "What is rust?"]
    proposals_add(project=project, run=run, texts=texts)
    page = open_page(manager, f"/projects/{project.uid}/prompts/")
    page.get_by_role("link", name="Prompts that a model proposes").click()
    expect(page.get_by_text(texts[0])).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Control+r")  # the browser's own key rejects nothing
    expect(page.get_by_text("3 waiting")).to_be_visible()
    page.keyboard.press("a")
    expect(page.get_by_text(texts[1])).to_be_visible()
    page.keyboard.press("r")
    expect(page.get_by_text(texts[2])).to_be_visible()
    expect(page.get_by_text("1 waiting, 1 accepted, 1 rejected")).to_be_visible()
    page.keyboard.press("a")
    expect(page.get_by_text("No proposal waits")).to_be_visible()
    found = Prompt.objects.filter(project=project).order_by("pk")
    assert [str(one) for one in found] == [texts[0], texts[2]]
    assert troubles == []
