"""The hub's pages in a browser: for everyone to use, and proof against what they show."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import expect

from modelhub import storage
from modelhub.models import (
    Endpoint,
    Model,
    ModelVersion,
    Run,
    RunInput,
    RunMetric,
    RunOutput,
    Server,
)
from modelhub.services.versions import alias_move
from tests import builders
from tests.pages.conftest import Open
from tests.pages.hostile import corpus, storable
from tests.pages.test_accessibility import violations

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def eve(transactional_db: None) -> User:
    return builders.make_user("eve", is_staff=True)


SERVER = {"context_tokens": 2048, "cache_bytes": 1 << 26, "memory_bytes": 2 << 30}


def served_make(version: ModelVersion, text: str) -> None:
    """A server that is ready, with a log, and a GGUF file with its figures."""
    now = timezone.now()
    endpoint = Endpoint.objects.create(
        name="served-smol-v1", base_url="http://127.0.0.1:4321/v1", served_model="smol@1"
    )
    server = Server.objects.create(
        version=version,
        status="ready",
        host="gpu-1",
        port=4321,
        endpoint=endpoint,
        seen_at=now,
        ready_at=now,
        **SERVER,
    )
    (storage.server_folder_make(server) / storage.LOG_NAME).write_text(text)
    result = {
        "file": "model-Q8_0.gguf",
        "file_bytes": 144_000_000,
        "parent_weights_bytes": 270_000_000,
        "token_ids_equal": True,
        "max_logit_difference": 0.1718,
        "parent_perplexity": 17.412,
        "perplexity": 17.443,
        "divergence": 0.00121,
        "note": text,
    }
    config = {"weight_type": "q8_0", "name": text[:40]}
    made = Run.objects.create(
        program="export_gguf", config=config, status=Run.Status.SUCCEEDED, result=result
    )
    RunInput.objects.create(run=made, role="base", artifact=version.artifact)
    RunOutput.objects.create(run=made, role="gguf", artifact=builders.make_artifact("gguf"))


def make_hub(text: str) -> list[str]:
    """One of everything, each with `text` wherever text may stand; the paths of its pages."""
    base, reward = builders.make_version("smol"), builders.make_version("reward", role="reward")
    alias_move(model=base.model, name="champion", version=base, actor=None, reason=text[:300])
    made = {"status": Run.Status.SUCCEEDED, "result": {"note": text, "accuracy": 0.75}}
    done = Run.objects.create(program="reward", config={"note": text}, label=text[:200], **made)
    RunInput.objects.create(run=done, role="base", artifact=base.artifact)
    RunOutput.objects.create(run=done, role="model", artifact=reward.artifact)
    RunMetric.objects.create(run=done, step=1, name=text[:80], value=1.0)
    RunMetric.objects.create(run=done, step=2, name=text[:80], value=2.0)
    failed = Run.objects.create(
        program="sft", config={}, label=text[:200], status=Run.Status.FAILED, error=text
    )
    (storage.run_folder_make(failed) / storage.LOG_NAME).write_text(text)
    Model.objects.update(description=text)
    ModelVersion.objects.update(card=text, chat_template=text, facts={"note": text})
    ModelVersion.objects.filter(pk=reward.pk).update(run=done, parent=base)
    stopped = builders.make_version("smol")
    served_make(base, text)
    Server.objects.create(
        version=stopped, status="ended", ended_at=timezone.now(), error=text, **SERVER
    )
    return [
        "/hub/",
        "/hub/import/",
        "/hub/pull/",
        "/hub/garbage/",
        "/hub/planner/",
        "/hub/runs/",
        f"/hub/models/{base.model.uid}/",
        f"/hub/versions/{reward.uid}/",
        f"/hub/versions/{base.uid}/",
        f"/hub/versions/{stopped.uid}/",
        f"/hub/runs/{done.uid}/",
        f"/hub/versions/compare/?version={base.uid}&version={reward.uid}",
        f"/hub/runs/{failed.uid}/",
    ]


@pytest.mark.parametrize(("scheme", "wide"), [("light", True), ("dark", False)])
def test_axe_finds_nothing(
    open_page: Open, live_server, eve, settings: Any, tmp_path: Path, scheme, wide
):
    settings.RUNS_DIR, settings.SERVERS_DIR = tmp_path / "runs", tmp_path / "servers"
    found = []
    page = open_page(eve, "/hub/", color_scheme=scheme, wide=wide)
    found += violations(page)  # without a single model
    for path in make_hub("A note."):
        page.goto(live_server.url + path)
        if path.startswith("/hub/runs/") and path != "/hub/runs/":
            page.wait_for_load_state("networkidle")
        found += violations(page)
    assert not found, "\n".join(found)


def test_hostile_text_is_shown_and_does_nothing(
    open_page: Open, live_server, eve, settings: Any, tmp_path: Path
):
    """Every payload at once, in every field the hub shows. What runs is heard by the watch."""
    settings.RUNS_DIR, settings.SERVERS_DIR = tmp_path / "runs", tmp_path / "servers"
    page = open_page(eve, "/hub/")
    attacks = [storable(attack) for attack in corpus("http://beacon.invalid")]
    for path in make_hub("\n".join(attacks)):
        page.goto(live_server.url + path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("window.__x") is None, path
        assert page.locator("main img").count() == 0, path
    expect(page.locator("#run-log pre")).to_contain_text("<script>")


TABS = {
    "/hub/": "Models",
    "/hub/playground/": "Playground",
    "/hub/corpora/": "Corpora",
    "/hub/mixtures/": "Mixtures",
    "/hub/runs/": "Runs",
    "/launch/": "Launch",
    "/hub/planner/": "Planner",
}
# Where a table ends outside of the window, unless something it lies in scrolls sideways.
CUT = """
[...document.querySelectorAll("main table, main dl, main pre, main form")].filter((one) => {
  if (one.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let box = one; box.matches(":not(main)"); box = box.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
  return true;
}).map((one) => one.outerHTML.slice(0, 120))
"""


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_on_a_phone_nothing_is_cut_and_the_tab_that_is_open_is_seen(
    open_page: Open, live_server, eve, settings: Any, tmp_path: Path, language
):
    settings.RUNS_DIR, settings.SERVERS_DIR = tmp_path / "runs", tmp_path / "servers"
    paths = make_hub("A note.")
    rows = [{"step": n, **{f"figure_{k}": n + k for k in range(9)}} for n in range(30)]
    Run.objects.filter(program="reward").update(result={"accuracy": 0.75, "rows": rows})
    languages = {"Accept-Language": language}
    page = open_page(eve, "/hub/", wide=False, patience_ms=30_000, extra_http_headers=languages)
    for path in [*paths, *TABS, "/launch/ppo/", "/launch/pretrain/", "/docs/launching/"]:
        page.goto(live_server.url + path)
        page.wait_for_load_state("networkidle")
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) <= 0, path
        assert page.evaluate(CUT) == [], path
        if "compare" in path:  # two of them side by side: nothing to be moved
            assert page.evaluate(
                "document.querySelector('.compared').scrollWidth <= innerWidth - 30"
            )
        if path in TABS:
            here = page.locator(".tabs [aria-current]")
            expect(here).to_be_in_viewport(ratio=0.9)
            box = here.bounding_box()
            assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390, path
            if language == "en":
                assert (here.inner_text(), page.locator("h1").inner_text()) == (TABS[path],) * 2
                assert page.title().startswith(TABS[path]) or path == "/launch/", page.title()
    page.goto(f"{live_server.url}{paths[10]}")
    page.locator("details.rows summary").click()
    table = page.locator(".table-wrap", has=page.get_by_role("columnheader", name="figure 8"))
    expect(table).to_have_attribute("data-more", "end")  # faded where there is more of it
