"""axe finds nothing serious on any page, light or dark, wide or narrow."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from annotation.models import Submission, Task
from annotation.services.assignments import assignment_next
from annotation.services.kinds import judgement_submit
from annotation.services.projects import guideline_publish
from annotation.services.reports import report_submit
from annotation.services.showcase import showcase_create
from deploy.vendor import TESTS
from tests import builders
from tests.pages.board import annotate_path, press, task_wait

pytestmark = pytest.mark.browser
AXE = (Path(TESTS) / "axe.js").read_text()


RUN_AXE = """() =>
  axe.run(document, {
    resultTypes: ["violations"],
    runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"],
  }).then((result) => result.violations.map((one) => ({
    id: one.id, impact: one.impact, where: one.nodes.map((node) => node.target.join(" ")),
  })))"""

STICKY_PLACE = """(position) => {
  for (const one of document.querySelectorAll(".site-header, .desk-bar"))
    one.style.position = position;
}"""


def violations(page) -> list[str]:
    """What axe finds that is more than minor.

    The bars that stick to the head and the foot of a page are let go meanwhile: of a button that
    one happens to half cover, axe would measure the other half.
    """
    page.evaluate(AXE)
    page.evaluate(STICKY_PLACE, "static")
    found = page.evaluate(RUN_AXE)
    page.evaluate(STICKY_PLACE, "")
    return [
        f"{page.url}: {one['id']} ({one['impact']}) at {one['where'][:3]}"
        for one in found
        if one["impact"] != "minor"
    ]


@pytest.mark.parametrize(("scheme", "wide"), [("light", True), ("dark", False)])
def test_the_ranking_page(open_page, project, alice, scheme, wide) -> None:
    guideline_publish(project=project, text="# Be kind", author=None)
    builders.make_ranking_task(project, ("# One\n\n`a`", "Two [x](http://a.example)", "Three"))
    page = open_page(alice, annotate_path(project), wide=wide, color_scheme=scheme)
    task_wait(page)
    found = violations(page)
    press(page, "1 j 1 j x")
    found += violations(page)
    for key in ("s", "g", "?"):
        press(page, key)
        found += violations(page)
        press(page, "Escape")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("scheme", "wide"), [("light", True), ("dark", False)])
def test_the_pages_of_a_project(open_page, live_server, project, dana, scheme, wide) -> None:
    alice = builders.make_member(project, "alice")
    builders.make_member(project, "robot", simulated=True)
    guideline_publish(project=project, text="# Be kind", author=dana)
    builders.make_task(project, "pair")
    builders.make_ranking_task(project)
    given = assignment_next(membership=alice)
    report_submit(assignment=given, text="It is cut off.")
    judgement = {"better": None, "degree": 0, "unsafe": []}
    submission = judgement_submit(assignment=given, judgement=judgement).submission
    page = open_page(dana, "/", wide=wide, color_scheme=scheme)
    found = violations(page)
    parts = (
        *(
            "",
            "prompts/",
            "members/",
            "guidelines/",
            "datasets/",
            "tasks/",
            "tokens/",
            "questions/",
        ),
        *("settings/", "dashboard/", "progress/", "quality/", "reviews/", "disagreements/"),
        *("reports/", "known/", f"reviews/{submission.uid}/"),
        *(f"forms/{kind}/" for kind in Task.Kind.values),
    )
    base = f"/projects/{project.uid}/"
    for path in (
        *(base + part for part in parts),
        "/projects/new/",
        "/password/",
        "/tokens/",
        "/notifications/",
    ):
        reply = page.goto(live_server.url + path)
        assert reply.status == 200, path
        found += violations(page)
        if not wide:
            across = page.evaluate("document.documentElement.scrollWidth")
            assert across <= 390, f"{path} is {across} px wide"
    page.context.clear_cookies()
    for path in ("/sign-in/", "/sign-in/any-token/"):
        page.goto(live_server.url + path)
        found += violations(page)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("scheme", "wide", "language"), [("light", True, "en-GB"), ("dark", False, "zh-CN")]
)
def test_every_page_of_a_project_in_use(
    open_page, live_server, dana, monkeypatch, scheme, wide, language
) -> None:
    """With weeks of work of every kind in it; and no page is wider than the screen."""
    monkeypatch.setattr("annotation.services.showcase._LAPS", 1)
    project = showcase_create(owner=dana)
    submission = Submission.objects.filter(task__kind="dialogue").first()
    dataset = project.datasets.first()
    parts = (
        *("", "guidelines/", "dashboard/", "quality/", "reviews/", "disagreements/", "known/"),
        *("questions/", "progress/", "prompts/", "tasks/", "forms/rating/", "members/"),
        *("datasets/", "tokens/", "settings/", f"reviews/{submission.uid}/"),
    )
    paths = [f"/projects/{project.uid}/{part}" for part in parts]
    page = open_page(dana, "/", wide=wide, color_scheme=scheme, locale=language)
    found = []
    for path in (*paths, f"/datasets/{dataset.uid}/", "/notifications/", "/rounds/"):
        page.goto(live_server.url + path)
        found += violations(page)
        beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        found += [f"{path}: {beyond} px too wide"] if beyond > 0 else []
    assert not found, "\n".join(found)


def test_what_slides_sideways_fades_where_there_is_more(
    open_page, live_server, project, dana
) -> None:
    page = open_page(dana, f"/projects/{project.uid}/settings/", wide=False)
    tabs = page.locator("nav.tabs")
    # The last tab is in sight, because it is this page's: there is more before it alone.
    assert tabs.get_attribute("data-more") == "start"
    tabs.evaluate("box => { box.scrollLeft = 0; }")
    expect(tabs).to_have_attribute("data-more", "end")
    assert "linear-gradient" in tabs.evaluate("box => getComputedStyle(box).maskImage")
    page.set_viewport_size({"width": 1440, "height": 900})
    expect(tabs).to_have_attribute("data-more", "")
