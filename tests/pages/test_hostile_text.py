"""S26, S27, S29: text that tries to run, in every field, on every page: nothing happens."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from django.utils import timezone
from markdown_it import MarkdownIt

from annotation.models import Guideline, Membership, PreferenceDataset, Prompt
from annotation.services.assignments import assignment_next, draft_save
from modelhub import rendering
from modelhub.models import Artifact
from tests import builders
from tests.pages.board import annotate_path, press, task_wait
from tests.pages.hostile import corpus, storable

pytestmark = pytest.mark.browser


@pytest.fixture
def beacon() -> Iterator[tuple[str, list[str]]]:
    """A loopback server that no page of ours may call: its address, and who called."""
    calls: list[str] = []

    class Canary(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            calls.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Canary)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", calls
    server.shutdown()
    server.server_close()
    assert not calls


def attacks(beacon: tuple[str, list[str]]) -> list[str]:
    return [storable(attack) for attack in corpus(beacon[0])]


FIND_ACTORS = """() => {
  const inert = "script:not([type='application/json']), style, iframe, object, embed, img, base, "
    + "meta, link, form[action*='127.0.0.1']";
  const acting = (a) => /^on/i.test(a.name) || /^\\s*(java|vb)script:/i.test(a.value);
  return [...document.querySelectorAll("main *, dialog *")].flatMap((one) => [
    ...[...one.attributes].filter(acting).map((a) => `${one.tagName} ${a.name}=${a.value}`),
    ...(one.matches(inert) ? [one.outerHTML.slice(0, 80)] : []),
  ]);
}"""


def unharmed(page) -> None:
    """No canary, no handler, no element that could act."""
    page.wait_for_timeout(150)
    assert page.evaluate("window.__x === undefined && window.parent.__x === undefined")
    assert page.evaluate(FIND_ACTORS) == []


def test_on_the_ranking_page(open_page, project, alice, beacon) -> None:
    every = attacks(beacon)
    share = -(-len(every) // 9)
    texts = tuple("\n\n".join(every[at : at + share]) for at in range(0, len(every), share))
    prompt = builders.make_prompt(project, "hostile")
    prompt.messages = [
        {"role": role, "content": attack}
        for attack, role in zip(every, ["user", "assistant", "system"] * len(every), strict=False)
    ]
    prompt.save()
    task = builders.make_ranking_task(project, texts, prompt=prompt)
    project.name = "</title><script>window.__x=1</script>"
    project.save()
    Guideline.objects.create(project=project, number=1, text="\n\n".join(every)[:19_000])
    assignment = assignment_next(membership=alice.memberships.get())
    assert assignment.task == task
    draft_save(
        assignment=assignment,
        draft={"lanes": [["</script><script>window.__x=1</script>"]], "rationale": every[0]},
        sequence=1,
    )
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    assert page.locator(".answer").count() == len(texts)
    assert page.locator("[data-rationale]").input_value() == every[0]
    press(page, "1 j 2")
    unharmed(page)
    press(page, "g")
    unharmed(page)


def test_the_watch_sees_it_when_the_walls_are_gone(
    open_page, project, alice, troubles, monkeypatch
) -> None:
    """The mutant: with raw HTML let through, the checks above must fail."""
    monkeypatch.setattr(rendering, "_MARKDOWN", MarkdownIt("commonmark", {"html": True}))
    monkeypatch.setattr(rendering, "_CLEANER", SimpleNamespace(clean=lambda html: html))
    hostile = "<img src='http://beacon.invalid/x.png' onerror='window.__x=1'>"
    builders.make_ranking_task(project, (hostile, "harmless"))
    page = open_page(alice, annotate_path(project))
    task_wait(page)
    with pytest.raises(AssertionError):
        unharmed(page)
    # The last wall stood: the content policy refused both the request and the handler.
    assert any("Content Security Policy" in one for one in troubles)
    assert page.evaluate("window.__x === undefined")
    troubles.clear()


def test_each_attack_by_itself(open_page, project, alice, beacon) -> None:
    """Neighbours can disarm an attack: here each one is alone in its element."""
    page = open_page(alice, annotate_path(project))
    page.wait_for_selector('[data-view="finished"]')
    html = [rendering.markdown_render(attack) for attack in attacks(beacon)]
    page.evaluate(
        """(html) => { for (const one of html) {
          const box = document.createElement("div"); box.innerHTML = one;
          document.querySelector("main").append(box); } }""",
        html,
    )
    unharmed(page)


def test_on_the_pages_of_a_project(open_page, live_server, project, dana, beacon) -> None:
    every = attacks(beacon)
    names = iter(every * 3)
    project.name, project.description = next(names)[:120], "\n".join(every)
    project.save()
    for _ in range(30):
        other = builders.make_project(next(names)[:120])
        other.description = next(names)
        other.save()
        builders.make_member(other, "dana", Membership.Role.MANAGER)
        builders.make_member(project, next(names)[:150])
        prompt = builders.make_prompt(project, next(names))
        Prompt.objects.filter(pk=prompt.pk).update(tags=[next(names)], source=next(names)[:120])
        Guideline.objects.create(
            project=project, number=project.guidelines.count() + 1, text=next(names), author=dana
        )
    builders.make_ranking_task(project, tuple(every[:9]), prompt=prompt)
    dataset = PreferenceDataset.objects.create(
        project=project,
        number=1,
        query={"until": next(names), "splits": [next(names)], "batches": None, "simulated": None},
        counts={"used": 1, "total": 2, "excluded": {next(names): 1}, "used_by_split": {}},
        artifact=builders.make_artifact(Artifact.Kind.RANKINGS),
        created_by=dana,
    )
    dana.last_login = timezone.now()
    dana.save()
    base = f"/projects/{project.uid}/"
    page = open_page(dana, "/")
    unharmed(page)
    for path in (
        base,
        f"{base}prompts/",
        f"{base}prompts/?q=%22%3E%3Cscript%3Ewindow.__x=1%3C/script%3E&split=x",
        f"{base}prompts/{prompt.uid}/",
        f"{base}members/",
        f"{base}guidelines/",
        f"{base}datasets/",
        f"/datasets/{dataset.uid}/",
    ):
        page.goto(live_server.url + path)
        unharmed(page)


def test_a_refused_file_is_named_without_its_name_running(
    open_page, project, dana, troubles, tmp_path
) -> None:
    page = open_page(dana, f"/projects/{project.uid}/prompts/")
    page.set_input_files(
        "input[type=file]",
        {
            "name": "<img src=x onerror=window.__x=1>.jsonl",
            "mimeType": "application/jsonl",
            "buffer": b'{"prompt": "fine"}\n{"prompt": 3}\n',
        },
    )
    page.get_by_role("button", name="Import").click()
    refused = page.get_by_role("alert")
    assert "line 2" in refused.inner_text()
    assert "prompt" in refused.inner_text()
    unharmed(page)
    assert not project.prompts.exists()
    troubles[:] = [one for one in troubles if "status of 400" not in one]
