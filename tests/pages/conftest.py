"""A real browser on a live server, watched: what it complains of fails the test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from pytest_django.live_server_helper import LiveServer

# Playwright keeps an event loop in this thread; the tests' own queries are safe beside it.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

# The shell draws no window, tabs and menus that nobody sees: a quarter of the processor's time.
SHELL = "/usr/bin/chromium-headless-shell"
CHROMIUM = os.environ.get("RONDO_CHROMIUM") or (
    SHELL if Path(SHELL).exists() else "/usr/bin/chromium"
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WATCH = """
window.__x = undefined;
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`content policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with its file: while it lives its event loop runs, and no later test could have one."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def troubles() -> Iterator[list[str]]:
    """What the watched pages complained of. A test that expects some removes them itself."""
    heard: list[str] = []
    yield heard
    assert not heard, "\n".join(heard)


@pytest.fixture
def open_page(browser: Browser, live_server: LiveServer, troubles: list[str]) -> Iterator[Open]:
    """`open_page(user, path, **context)` → the page, in a browser of the user's own."""
    contexts: list[BrowserContext] = []

    def open_as(
        user: User | None,
        path: str,
        *,
        wide: bool = True,
        patience_ms: float = 8000,
        **options: object,
    ) -> Page:
        size = {"width": 1440, "height": 900} if wide else {"width": 390, "height": 844}
        context = browser.new_context(
            viewport=size,
            has_touch=not wide,
            is_mobile=not wide,
            reduced_motion="reduce",
            **options,
        )
        context.set_default_timeout(patience_ms)
        contexts.append(context)
        if user is not None:
            sign_in(context, user, live_server)
        page = context.new_page()
        page.add_init_script(WATCH)
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: troubles.append(f"{path}: {error}"))
        page.on(
            "console",
            lambda line: troubles.append(f"{path}: {line.text}") if line.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((live_server.url, "data:"))
                else troubles.append(f"{path} asked for {request.url}")
            ),
        )
        page.goto(live_server.url + path)
        return page

    yield open_as
    for context in contexts:
        context.close()


def sign_in(context: BrowserContext, user: User, live_server: LiveServer) -> None:
    client = Client()
    client.force_login(user)
    cookie = client.cookies["sessionid"].value
    context.add_cookies([{"name": "sessionid", "value": cookie, "url": live_server.url}])
