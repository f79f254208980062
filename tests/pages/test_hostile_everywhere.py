"""S26, S36: the corpus in every text field of every table, on every page, the admin's included.

The fields are found by looking at the models and the pages at the routes: a new one is in at once.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import models
from django.urls import reverse

from tests.pages.hostile import corpus, storable
from tests.test_authorization import admin_pages, parameters, routes, table_read
from tests.world import World, make_world

ROOT = Path(__file__).parents[2]
APPS = ("annotation", "alignment", "modelhub", "auth")
# What the site itself writes and compares, and never a person: names of states, digests, paths.
MACHINES = re.compile(
    "uid$|hash|sha256|key$|^(state|status|kind|program|password|codename|uri|path)$"
)
PLAIN = {"modelhub.Model.name", "auth.User.username"}  # addresses and whom one signs in as
# What a browser shows by means of its own, with styles of its own about a picture.
FILES = {"words", "healthz", "dataset_export", "run_metrics", "version_readme", "docs_image"}
HARMLESS = """() => {
  const acting = (a) => /^on/i.test(a.name) || /^\\s*(java|vb)script:/i.test(a.value);
  return [
    ...(window.__x === undefined ? [] : ["the canary was set"]),
    ...[...document.querySelectorAll("*")].flatMap((one) => [...one.attributes].filter(acting)
      .map((a) => `${one.tagName} ${a.name}=${a.value}`.slice(0, 120))),
    ...[...document.querySelectorAll("iframe, object, embed, base, [src*='beacon.invalid'], "
      + "[href*='beacon.invalid']:not(a)")].map((one) => one.outerHTML.slice(0, 120)),
  ];
}"""


def text_fields(model: type[models.Model]) -> Iterator[Any]:
    for field in model._meta.concrete_fields:
        label = f"{model._meta.label}.{field.name}"
        if (
            isinstance(field, models.CharField | models.TextField)
            and not field.choices
            and not MACHINES.search(field.name)
            and label not in PLAIN
        ):
            yield field


def poisoned(value: Any, attacks: Iterator[str]) -> Any:
    """JSON with an attack in every text that holds more than a word."""
    if isinstance(value, dict):
        return {key: poisoned(one, attacks) for key, one in value.items()}
    if isinstance(value, list):
        return [poisoned(one, attacks) for one in value]
    return next(attacks) if isinstance(value, str) and " " in value else value


def poison(attacks: list[str]) -> set[str]:
    """Put attacks into every text field of every row. Returns the fields."""
    some, seen = itertools.cycle(attacks), set()
    for model in itertools.chain.from_iterable(apps.get_app_config(a).get_models() for a in APPS):
        fields = list(text_fields(model))
        held = [one for one in model._meta.concrete_fields if isinstance(one, models.JSONField)]
        for row in model._default_manager.all():
            for field in fields:
                most = field.max_length
                text = next(some)[:most] if most else "\n\n".join(attacks)
                setattr(row, field.name, text)
                seen.add(f"{model._meta.label}.{field.name}")
            for one in held:
                setattr(row, one.name, poisoned(getattr(row, one.name), some))
            if fields or held:
                model._default_manager.filter(pk=row.pk).update(
                    **{one.name: getattr(row, one.name) for one in (*fields, *held)}
                )
    return seen


def pages_of(world: World) -> Iterator[str]:
    """Every page that is not a file, then the admin's, then one that is not there."""
    patterns, values = dict(routes()), {**world.a.uids(), "token": "<script>window.__x=1<script>"}
    for name, verb in table_read():
        if verb != "GET" or name not in patterns or name.startswith("api_"):
            continue
        if name not in FILES:
            kwargs = {one: values[one] for one in parameters(patterns[name])}
            yield reverse(name, kwargs=kwargs)
    for changelist, acts in admin_pages(world).values():
        yield from (changelist, f"{changelist}?q=%22%3E%3Cscript%3Ewindow.__x=1%3C/script%3E")
        yield from acts[1:2]
    yield "/nowhere/%3Cscript%3Ewindow.__x=1%3C/script%3E/"


@pytest.mark.browser
@pytest.mark.slow
def test_nothing_runs_on_any_page(open_page, live_server, transactional_db, troubles) -> None:
    world = make_world()
    superuser = world.a.manager.user
    superuser.is_staff = superuser.is_superuser = True
    superuser.save()
    page = open_page(superuser, "/healthz", patience_ms=60_000)
    fields = poison([storable(one) for one in corpus("http://beacon.invalid")])
    assert len(fields) >= 25
    seen, harm = 0, []
    for path in pages_of(world):
        answer = page.goto(live_server.url + path, wait_until="load")
        status = answer.status if answer else 0
        assert status < 500, (path, status)
        found = page.evaluate(HARMLESS)
        harm += [f"{path}: {one}" for one in found]
        seen += status == 200
    # A page that is not there says so on the console too.
    troubles[:] = [one for one in troubles if "status of 40" not in one]
    assert not harm, "\n".join(harm)
    assert seen >= 60


def test_state_reaches_a_script_through_json_script_alone() -> None:
    """S36: nothing is marked as safe but what was rendered and cleaned, and none writes JSON."""
    allowed = re.compile(r"(\b|_)html\|safe")
    wrong = []
    for path in sorted((ROOT / "templates").rglob("*.html")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            marked = [found[0] for found in re.finditer(r"[\w.]+\|safe\b", line)]
            wrong += [f"{path.name}:{number}: {one}" for one in marked if not allowed.search(one)]
            if re.search(r"autoescape off|\|safeseq|<script[^>]*application/json", line):
                wrong.append(f"{path.name}:{number}: {line.strip()}")
    for app in ("annotation", "alignment", "modelhub", "config"):
        for path in sorted((ROOT / app).rglob("*.py")):
            if re.search(r"\bmark_safe\(|SafeString\(|html_safe\b", path.read_text()):
                wrong.append(f"{path}: marks text as safe")
    assert not wrong, "\n".join(wrong)
