"""What a test does to the ranking page, and reads of it, in a person's words."""

import time

from playwright.sync_api import Page, expect

from annotation.models import Submission


def annotate_path(project) -> str:
    return f"/projects/{project.uid}/annotate/"


def task_wait(page: Page) -> None:
    expect(page.locator('[data-desk][data-view="task"]')).to_be_visible()


def finished_wait(page: Page) -> None:
    expect(page.get_by_role("heading", name="That is everything for now")).to_be_visible()


def press(page: Page, keys: str) -> None:
    """Press keys, named apart by spaces."""
    for key in keys.split():
        page.keyboard.press(key)


def lanes(page: Page) -> dict[str, str]:
    """Letter → lane: "tray", "1", "2", … or "unacceptable"."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".answer")].map((card) => {
          const lane = card.closest(".lane").dataset;
          return [card.querySelector(".answer-letter").textContent,
                  lane.kind === "rank" ? lane.lane : lane.kind];
        }))"""
    )


def focused(page: Page) -> str:
    return page.locator(".answer.focused .answer-letter").inner_text()


def letters(page: Page) -> dict[str, str]:
    """Letter → uid of the candidate it stands for."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".answer")].map((card) =>
          [card.querySelector(".answer-letter").textContent, card.dataset.uid]))"""
    )


def saved_wait(page: Page) -> None:
    expect(page.locator('[data-saved][data-kind="saved"]')).to_be_visible()


def submissions_wait(page: Page, number: int, *, patience_s: float = 10) -> None:
    """Until the server has so many: the page says "Sent." and goes on before it has answered."""
    ends = time.monotonic() + patience_s
    while Submission.objects.count() < number:
        assert time.monotonic() < ends, f"{Submission.objects.count()} of {number} arrived"
        page.wait_for_timeout(50)


def tiers_of(submission: Submission, by_letter: dict[str, str]) -> list[list[str]]:
    """A submission's tiers as letters, each tier sorted."""
    names = {uid: letter for letter, uid in by_letter.items()}
    return [sorted(names[uid] for uid in tier) for tier in submission.ranking.tiers]
