"""The playground in a browser: keys go from token to token, and what else could stand shows."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect

from modelhub.models import ModelVersion, Run
from tests import builders
from tests.pages.conftest import Open
from tests.pages.test_accessibility import violations

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def eve(transactional_db: None) -> User:
    return builders.make_user("eve", is_staff=True)


def token(text: str, p: float, other: str, is_over: bool = False) -> dict[str, Any]:
    others = sorted([[text, p, p], [other, 0.2, 0.0]], key=lambda one: -one[1])
    return {"text": text, "p": p, "q": p, "others": others, "is_over": is_over}


def make_trial(models: int = 1, **changed: Any) -> Run:
    tokens = [
        token("Paris", 0.95, " Lyon"),
        token("<b>", 0.01, " is"),
        token("\n\n", 0.5, "!"),
        token("<|im_end|>", 0.7, "?", is_over=True),
    ]
    cells = [
        {
            "model": model,
            "strategy": strategy,
            "text": "Paris<b>",
            "tokens": tokens,
            "finish_reason": "stop",
            "first_token_s": 0.1,
            "seconds": 1.0,
            "tokens_per_s": 4.0,
        }
        for model in range(models)
        for strategy in range(2)
    ]
    config = {
        "prompt": "Where is the tower?",
        "models": [f"smol v{number}" for number in range(1, models + 1)],
        "strategies": [{"kind": "greedy"}, {"kind": "sample", "temperature": 0.7}],
    }
    facts = {"laid": "user: Where is the tower?", "prompt_tokens": 9, "prefill_s": 1, "load_s": 2}
    result = {"models": [facts] * models, "cells": cells}
    values = {"status": Run.Status.SUCCEEDED, "result": result, **changed}
    return Run.objects.create(program="playground", config=config, label="Where?", **values)


@pytest.mark.parametrize(("scheme", "wide"), [("light", True), ("dark", False)])
def test_axe_finds_nothing_and_nothing_is_too_wide(
    open_page: Open, live_server, eve, settings: Any, tmp_path: Path, scheme, wide
) -> None:
    settings.RUNS_DIR = tmp_path / "runs"
    page = open_page(eve, "/hub/playground/", color_scheme=scheme, wide=wide)
    found = violations(page)  # without a model
    builders.make_version("smol", role="base")
    waiting = make_trial(status=Run.Status.QUEUED, result=None)
    failed = make_trial(status=Run.Status.FAILED, result=None, error="refused: too long")
    for path in ("", *(f"{run.uid}/" for run in (make_trial(), make_trial(3), waiting, failed))):
        page.goto(f"{live_server.url}/hub/playground/{path}")
        found += violations(page)
        across = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        found += [f"{path}: {across} px too wide"] if across > 0 else []
    assert not found, "\n".join(found)


def test_keys_go_from_token_to_token_and_the_others_show(open_page: Open, eve) -> None:
    page = open_page(eve, f"/hub/playground/{make_trial().uid}/")
    cell = page.locator("#cell-0-0")
    # The greatest surprise is shown until somebody chooses.
    expect(cell.locator(".others .taken .word")).to_have_text("<b>")
    cell.locator(".token", has_text="Paris").click()
    expect(cell.locator(".others .taken .word")).to_have_text("Paris")
    expect(cell.locator(".others tbody tr").nth(1)).to_contain_text("␣Lyon")
    page.keyboard.press("ArrowRight")
    expect(cell.locator(".token.shown")).to_have_text("<b>")
    expect(cell.locator(".others .taken .figure").first).to_have_text("1.0 %")
    page.keyboard.press("End")
    expect(cell.locator(".token.shown")).to_have_text("<|im_end|>")
    focused = page.evaluate("document.activeElement.getAttribute('aria-describedby')")
    assert focused == "others-0-0"
    # One stop of the tab key for each answer, however many tokens it has.
    assert cell.locator('.token[tabindex="0"]').count() == 1


def test_what_a_layout_does_not_read_is_not_asked_for(open_page: Open, eve) -> None:
    builders.make_version("smol", role="base")
    ModelVersion.objects.update(chat_template="{{ messages }}")
    page = open_page(eve, "/hub/playground/")
    expect(page.get_by_label("System message")).to_be_visible()
    page.get_by_label("Few-shot assistant").check()
    expect(page.get_by_label("System message")).to_be_hidden()
    expect(page.get_by_label("Examples before it")).to_be_visible()
    expect(page.get_by_label("beams")).to_be_hidden()
    page.get_by_label("Beam search").check()
    expect(page.get_by_label("beams")).to_be_visible()
    page.get_by_label("Prompt").fill("Hello")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/hub/playground/*/")
    run = Run.objects.get()
    assert run.config["layout"] == "few_shot"
    assert {"kind": "beam", "beams": 4, "length_penalty": 1.0} in run.config["strategies"]
