"""axe finds nothing serious on any page, light or dark, wide or narrow."""

from pathlib import Path

import pytest

from annotation.services.projects import guideline_publish
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


def violations(page) -> list[str]:
    """What axe finds that is more than minor."""
    page.evaluate(AXE)
    return [
        f"{page.url}: {one['id']} ({one['impact']}) at {one['where'][:3]}"
        for one in page.evaluate(RUN_AXE)
        if one["impact"] != "minor"
    ]


@pytest.mark.parametrize(("scheme", "wide"), [("light", True), ("dark", True), ("dark", False)])
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_of_a_project(open_page, live_server, project, dana, scheme) -> None:
    builders.make_member(project, "alice")
    builders.make_member(project, "robot", simulated=True)
    guideline_publish(project=project, text="# Be kind", author=dana)
    builders.make_ranking_task(project)
    page = open_page(dana, "/", color_scheme=scheme)
    found = violations(page)
    base = f"/projects/{project.uid}/"
    for path in (
        base,
        f"{base}prompts/",
        f"{base}members/",
        f"{base}guidelines/",
        f"{base}datasets/",
        "/projects/new/",
        "/password/",
    ):
        page.goto(live_server.url + path)
        found += violations(page)
    page.context.clear_cookies()
    for path in ("/sign-in/", "/sign-in/any-token/"):
        page.goto(live_server.url + path)
        found += violations(page)
    assert not found, "\n".join(found)
