"""The pages of quality in a browser: axe, narrow screens, hostile text, reviewing by keyboard."""

import pytest
from django.core.cache import cache

from annotation.models import Membership, Project, Review
from annotation.services.gold import gold_task_create
from annotation.services.reviews import review_submit
from tests.annotation.judging import choose, make_submission, make_task, rank, rate, uids_of
from tests.builders import make_member
from tests.pages.test_accessibility import violations
from tests.pages.test_hostile_text import FIND_ACTORS

pytestmark = pytest.mark.browser
HOSTILE = '"><img src=x onerror="window.__x=1"><script>window.__x=1</script>'


@pytest.fixture
def judged(project: Project, dana, bob) -> dict[str, str]:
    """A project with work of every kind that is compared; paths of all its pages of quality."""
    cache.clear()
    people = [make_member(project, name) for name in ("ann", "ben", "cat")]
    reviewer = bob.memberships.get(project=project)
    last = None
    for number in range(6):
        pair, rating = make_task(project), make_task(project, "rating")
        ranking = make_task(project, "ranking", answers=3)
        for place, member in enumerate(people):
            last = choose(pair, member, (number + place // 2) % 2, degree=1 + number % 4)
            rank(ranking, member, ("0>1>2", "0>2=1", "1>0>2")[place])
            rate(rating, member, [6, 1 + number], [[], ["harmful"]])
    assert last is not None
    edit = make_task(project, "edit")
    edited = make_submission(edit, people[0], {"original": uids_of(edit)[0], "text": HOSTILE})
    edited.edit.diff = [["-", HOSTILE], ["+", HOSTILE]]
    edited.edit.save()
    edited.rationale = HOSTILE
    edited.save()
    gold_task_create(submission=last, reviewer=reviewer, explanation=HOSTILE)
    review_submit(submission=edited, reviewer=reviewer, verdict="reject", reason=HOSTILE)
    base = f"/projects/{project.uid}"
    names = ("dashboard", "progress", "quality", "reviews", "disagreements", "known", "settings")
    return {name: f"{base}/{name}/" for name in names} | {
        "review": f"{base}/reviews/{edited.uid}/",
        "review of a pair": f"{base}/reviews/{last.uid}/",
        "disagreement": f"{base}/disagreements/{last.task.uid}/",
    }


@pytest.mark.parametrize(("scheme", "wide"), [("light", True), ("dark", False)])
def test_axe_finds_nothing_serious_and_nothing_runs(
    open_page, live_server, dana, judged: dict[str, str], scheme: str, wide: bool
) -> None:
    page = open_page(dana, judged["dashboard"], wide=wide, color_scheme=scheme)
    found = []
    for name, path in judged.items():
        page.goto(live_server.url + path)
        found += violations(page)
        assert page.evaluate("window.__x") is None, name
        assert page.evaluate(FIND_ACTORS) == [], name
        room = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert room <= 0, f"{name} is {room} px wider than the screen"
    assert not found, "\n".join(found)


def test_a_submission_is_reviewed_by_keyboard_alone(open_page, bob, judged: dict[str, str]) -> None:
    page = open_page(bob, judged["review of a pair"])
    page.locator("input[name=verdict]:checked").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type("Read the second one again.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("It is rejected.").wait_for()
    review = Review.objects.first()
    assert (review.verdict, review.reason) == ("reject", "Read the second one again.")


def test_an_annotators_dashboard_is_hers_alone(open_page, project, judged: dict[str, str]) -> None:
    ann = Membership.objects.get(project=project, user__username="ann")
    page = open_page(ann.user, judged["dashboard"])
    assert page.get_by_role("heading", name="My work").is_visible()
    drawn = page.locator("svg[role=img]")
    assert [
        one.split(":")[0]
        for one in drawn.evaluate_all("(all) => all.map((one) => one.getAttribute('aria-label'))")
    ] == ["Judgements of the last 30 days", "Agreement"]
    assert "ben" not in page.inner_text("main")
