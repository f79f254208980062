"""What the annotator's page costs to load: everything, as it goes over the wire."""

import gzip

import pytest

from annotation.models import Task
from tests import builders
from tests.pages.board import annotate_path, task_wait

pytestmark = pytest.mark.browser

MOST_BYTES = 100_000
PACKED = (".woff2",)  # packed already: gzip would not be tried


@pytest.mark.parametrize("kind", Task.Kind.values)
def test_every_kinds_page_is_under_100_kb_with_all_it_loads(
    open_page, live_server, project, alice, kind
) -> None:
    """Without mathematics and code in a named language, whose libraries come on demand."""
    texts = () if kind == "dialogue" else ("Some **bold** text. " * 60, "*Other* text. " * 60)
    builders.make_task(project, kind, texts)
    sizes: dict[str, int] = {}

    def weigh(response) -> None:
        if response.status == 200:
            body = response.body()
            packed = response.url.endswith(PACKED)
            name = response.url.removeprefix(live_server.url)
            sizes[name] = len(body if packed else gzip.compress(body))

    page = open_page(alice, "/")
    # Or a font of this page comes late, and is counted.
    page.wait_for_load_state("networkidle")
    page.on("response", weigh)
    page.goto(live_server.url + annotate_path(project))
    task_wait(page)
    page.wait_for_load_state("networkidle")
    assert any("desk.js" in name for name in sizes)
    assert sum(sizes.values()) < MOST_BYTES, sorted(sizes.items(), key=lambda one: -one[1])
