"""How a project asks for a kind of task."""

from typing import Any

import pytest
from django.utils.translation import override

from annotation.models import Project, TaskForm
from annotation.task_forms import FORMS, PRESETS, FormError, form_of, form_read

SIDES = [{"endpoint": "small", "temperature": 0.7}, {"endpoint": "large"}]


@pytest.mark.parametrize("kind", FORMS)
def test_a_project_that_set_nothing_asks_by_the_defaults(project: Project, kind: str) -> None:
    assert form_of(project, kind) == FORMS[kind]()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_being_stored(project: Project, name: str) -> None:
    preset = PRESETS[name]
    TaskForm.objects.create(project=project, kind=preset.KIND, settings=preset.as_json())
    assert form_of(project, preset.KIND) == preset


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
