"""How a project asks for a kind of task."""

import re
from typing import Any

import pytest
from django.template.loader import get_template
from django.utils.translation import override

from annotation.desk_keys import DEFAULTS
from annotation.models import Project, TaskForm
from annotation.task_forms import (
    DOCUMENT_FORM,
    FORMS,
    PRESETS,
    TAKEN_KEYS,
    FormError,
    RatingForm,
    form_of,
    form_read,
)

SIDES = [{"endpoint": "small", "temperature": 0.7}, {"endpoint": "large"}]


@pytest.mark.parametrize("kind", FORMS)
def test_a_project_that_set_nothing_asks_by_the_defaults(project: Project, kind: str) -> None:
    assert form_of(project, kind) == FORMS[kind]()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_being_stored(project: Project, name: str) -> None:
    preset = PRESETS[name]
    TaskForm.objects.create(project=project, kind=preset.KIND, settings=preset.as_json())
    assert form_of(project, preset.KIND) == preset


def test_no_flag_of_ours_has_a_key_that_the_page_of_ratings_gives_a_meaning() -> None:
    ours = [RatingForm(), DOCUMENT_FORM, *PRESETS.values()]
    flags = {flag.key for form in ours if isinstance(form, RatingForm) for flag in form.flags}
    told = get_template("annotation/annotate.html").template.source
    keys = get_template("annotation/kinds/_keys.html").template.source
    ratings = keys[keys.index('id="keys-rating"') : keys.index('id="keys-demonstration"')]
    actions = set(re.findall(r'data-(?:action|titled)="(\w+)"', told + ratings))
    assert {"fold", "link", "rationale", "report", "skip", "source"} <= actions
    assert not flags & {DEFAULTS[name] for name in actions & DEFAULTS.keys()}
    assert {DEFAULTS[name] for name in actions & DEFAULTS.keys()} - {"!", "x"} <= TAKEN_KEYS


def test_a_stored_flag_gives_up_a_key_that_has_become_the_pages(project: Project) -> None:
    flags = [{"name": "old", "label": "Old", "key": "r"}, {"name": "own", "label": "O", "key": "w"}]
    TaskForm.objects.create(project=project, kind="rating", settings={"flags": flags})
    form = form_of(project, "rating")
    assert isinstance(form, RatingForm)
    assert [(flag.name, flag.key) for flag in form.flags] == [("old", ""), ("own", "w")]


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "kind": ("essay", {}, "kind"),
    "unknown": ("pair", {"colour": 1}, "colour"),
    "rationale": ("pair", {"rationale": "maybe"}, "rationale"),
    "type": ("pair", {"ties": 1}, "ties"),
    "start": ("demonstration", {"start": "middle"}, "start"),
    "turns": ("demonstration", {"turns": 0}, "turns"),
    "turns true": ("demonstration", {"turns": True}, "turns"),
    "flags": ("rating", {"flags": {}}, "flags"),
    "flag": ("rating", {"flags": ["wrong"]}, "flags[0]"),
    "flag name": ("rating", {"flags": [{"name": "Wrong!", "label": "x"}]}, "flags[0].name"),
    "flag label": ("rating", {"flags": [{"name": "wrong", "label": " "}]}, "flags[0].label"),
    "flag without label": ("rating", {"flags": [{"name": "wrong"}]}, "flags[0].label"),
    "flag twice": (
        "rating",
        {"flags": [{"name": "a", "label": "A"}, {"name": "a", "label": "B"}]},
        "flags[1].name",
    ),
    "key of the page": (
        "rating",
        {"flags": [{"name": "a", "label": "A", "key": "s"}]},
        "flags[0].key",
    ),
    "key twice": (
        "rating",
        {"flags": [{"name": n, "label": n, "key": "w"} for n in "ab"]},
        "flags[1].key",
    ),
    "one side": ("dialogue", {"sides": SIDES[:1]}, "sides"),
    "side": ("dialogue", {"sides": [SIDES[0], {"endpoint": "a b"}]}, "sides[1].endpoint"),
    "hot": (
        "dialogue",
        {"sides": [SIDES[0], {"endpoint": "a", "temperature": 10**400}]},
        "sides[1].temperature",
    ),
    "nan": (
        "dialogue",
        {"sides": [SIDES[0], {"endpoint": "a", "temperature": float("nan")}]},
        "sides[1].temperature",
    ),
    "version": (
        "dialogue",
        {"sides": [SIDES[0], {"endpoint": "a", "version": "latest"}]},
        "sides[1].version",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_that_does_not_fit_is_named(case: str) -> None:
    kind, settings, field = REFUSED[case]
    with pytest.raises(FormError) as refused:
        form_read(kind, settings)
    assert refused.value.extra == {"field": field}


def test_a_refusal_is_in_the_readers_language() -> None:
    with override("zh-hans"), pytest.raises(FormError) as refused:
        form_read("demonstration", {"turns": 0})
    assert refused.value.message == "任务表单字段 turns：应在 1 到 20 之间。"


def test_annotators_are_not_told_who_answers_them() -> None:
    form = form_read("dialogue", {"sides": SIDES, "max_turns": 3})
    assert form.as_json()["sides"][0]["endpoint"] == "small"
    assert form.shown() == {"rationale": "optional", "max_turns": 3, "max_tokens": 1024}
