"""A token made in the browser lets a script in; revoked there, it does so no more."""

import re

import pytest
import requests
from playwright.sync_api import expect

from annotation.models import PersonalToken
from annotation.services.personal_tokens import personal_token_create
from tests.pages.test_accessibility import violations


def lets_in(live_server, secret: str) -> bool:
    address = f"{live_server.url}/api/v1/projects/"
    answer = requests.get(address, headers={"Authorization": f"Bearer {secret}"}, timeout=10)
    return answer.status_code == 200


def test_a_token_is_made_renewed_and_revoked(open_page, live_server, project, dana) -> None:
    page = open_page(dana, "/")
    page.get_by_label("Your account").click()
    page.get_by_role("link", name="API tokens").click()
    page.get_by_label("What it is for").fill("nightly export")
    page.get_by_label("It ends after").select_option("30")
    page.get_by_role("button", name="Make a token").click()
    secret = page.locator("#token-secret")
    expect(secret).to_have_value(re.compile("^rondo_me_[0-9a-f]{64}$"))
    first = secret.input_value()
    assert lets_in(live_server, first)
    page.get_by_role("button", name="Renew the token of nightly export", exact=False).click()
    page.get_by_role("button", name="Renew", exact=True).last.click()
    expect(page.locator(".one-time")).to_contain_text("goes on working for a day")
    second = secret.input_value()
    assert second != first and lets_in(live_server, first) and lets_in(live_server, second)
    page.get_by_role("button", name="Revoke the token of nightly export").first.click()
    page.get_by_role("button", name="Revoke", exact=True).last.click()
    expect(page.locator(".flash")).to_contain_text("nightly export is let in no more.")
    assert PersonalToken.objects.filter(revoked_at=None).count() == 1
    assert not lets_in(live_server, second) and lets_in(live_server, first)


@pytest.mark.parametrize(("scheme", "wide"), [("light", True), ("dark", False)])
def test_the_page_with_tokens_is_sound(open_page, dana, scheme, wide) -> None:
    for name in ("nightly export", "a rather long name of a machine in the other building"):
        personal_token_create(user=dana, name=name, may_write=True, days=365)
    page = open_page(dana, "/tokens/", wide=wide, color_scheme=scheme)
    assert not violations(page)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
