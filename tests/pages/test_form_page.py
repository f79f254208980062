"""The manager says how a kind is asked for, and sees at once what the annotator will see."""

import pytest
from playwright.sync_api import expect

from annotation.models import Task, TaskForm
from annotation.task_forms import FORMS, form_of
from tests.pages.test_accessibility import violations

pytestmark = pytest.mark.browser


def form_path(project, kind: str) -> str:
    return f"/projects/{project.uid}/forms/{kind}/"


def test_flags_are_set_and_seen_before_they_are_kept(open_page, project, dana) -> None:
    page = open_page(dana, form_path(project, "rating"))
    preview = page.locator("[data-preview]")
    expect(preview.get_by_role("button", name="Harmful").first).to_be_visible()
    page.get_by_label("Flag 5", exact=True).fill("Too long")
    page.get_by_label("Key of flag 5").fill("z")
    expect(preview.get_by_role("button", name="Too long").first).to_be_visible()
    preview.get_by_role("button", name="A: 6 of 7").click()
    page.get_by_label("required").check()
    expect(preview.get_by_text("required")).to_be_visible()
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_text("It holds from the next task")).to_be_visible()
    kept = form_of(project, "rating")
    assert kept.rationale == "required"
    assert [(one.name, one.key) for one in kept.flags][-1] == ("too_long", "z")
    assert len(kept.flags) == 5


def test_a_key_that_means_another_thing_is_refused_with_the_form_kept(
    open_page, project, dana, troubles
) -> None:
    page = open_page(dana, form_path(project, "rating"))
    page.get_by_label("Flag 5", exact=True).fill("Slow")
    page.get_by_label("Key of flag 5").fill("s")
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_role("alert")).to_contain_text("means another")
    expect(page.get_by_label("Flag 5", exact=True)).to_have_value("Slow")
    assert not TaskForm.objects.exists()
    troubles[:] = [one for one in troubles if "400" not in one]


def test_a_papers_questions_are_taken_over_with_one_press(open_page, project, dana) -> None:
    page = open_page(dana, form_path(project, "pair"))
    expect(page.get_by_role("radio", name="A tie: neither is better")).to_be_visible()
    page.get_by_role("link", name="Llama 2").click()
    expect(page.get_by_role("button", name="A is not safe")).to_be_visible()
    expect(page.get_by_role("radio", name="A tie: neither is better")).to_have_count(0)
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_text("It holds from the next task")).to_be_visible()
    kept = form_of(project, "pair")
    assert (kept.ties, kept.safety_labels, kept.rationale) == (False, True, "none")


@pytest.mark.parametrize("kind", Task.Kind.values)
def test_every_kind_is_shown_and_kept_as_it_was(open_page, project, dana, kind) -> None:
    page = open_page(dana, form_path(project, kind))
    expect(page.locator("[data-preview] .desk-stage > *").first).to_be_attached()
    found = violations(page)
    assert not found, "\n".join(found)
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_text("It holds from the next task")).to_be_visible()
    assert form_of(project, kind) == FORMS[kind]()


def test_it_fits_a_phone(open_page, project, dana) -> None:
    page = open_page(dana, form_path(project, "rating"), wide=False)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
