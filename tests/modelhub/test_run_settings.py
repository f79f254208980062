"""A run's settings in the order and under the headings of its class."""

import itertools

import pytest
from django.conf import settings
from django.urls import reverse

from alignment.ml.configs import RlooConfig
from modelhub.config_fields import config_fields
from modelhub.ml.configs import config_dump
from modelhub.models import Run
from modelhub.run_settings import config_class, settings_grouped
from modelhub.selectors.runs import runs_compare


def test_every_program_has_its_configuration_class():
    programs = settings.RUN_PROGRAMS.keys() - {"counting"}  # the tests' own
    assert settings.RUN_CONFIGS.keys() == programs
    for program in programs:
        cls = config_class(program)
        assert cls is not None
        assert program == cls.PROGRAM


def run_of(**changed):
    """A run whose settings a database gives in the order of their names."""
    config = config_dump(RlooConfig(**changed))
    return Run(program="rloo", config=dict(sorted(config.items())))


def test_settings_stand_in_the_order_of_the_class_under_its_headings():
    groups = settings_grouped(run_of())
    names = [row.name for group in groups for row in group.rows]
    assert names == [field.name for field in config_fields(RlooConfig)]
    headings = [group.heading for group in groups]
    sections = [field.section for field in config_fields(RlooConfig)]
    assert headings == [one for one, _ in itertools.groupby(sections)]
    assert any(headings)


def test_what_was_changed_is_told_from_the_default():
    rows = {row.name: row for group in settings_grouped(run_of(kl_coef=0.3)) for row in group.rows}
    assert (rows["kl_coef"].text, rows["kl_coef"].is_default) == ("0.3", False)
    assert rows["seed"].is_default
    assert rows["kl_coef"].about
    assert rows["lr"].label == "LR"


def test_what_the_class_has_no_more_comes_last():
    run = run_of()
    run.config = {"abandoned": {"knob": 1}, **run.config}
    last = settings_grouped(run)[-1]
    assert [(row.name, row.text) for row in last.rows] == [("abandoned.knob", "1")]
    unknown = settings_grouped(Run(program="unknown", config={"b": 1, "a": 2}))
    assert [(group.heading, len(group.rows)) for group in unknown] == [("", 2)]


@pytest.mark.django_db
def test_pages_have_that_order(eve, signed_in):
    one, two = run_of(), run_of(kl_coef=0.3, lr=1e-4, seed=3)
    one.save()
    two.save()
    wanted = [f.name for f in config_fields(RlooConfig) if f.name in ("kl_coef", "lr", "seed")]
    assert [name for name, _ in runs_compare(uids=[one.uid, two.uid]).settings] == wanted
    page = signed_in(eve).get(reverse("run_detail", args=[one.uid])).content.decode()
    labels = [page.index(f'<dt title="{name}') for name in wanted]
    assert labels == sorted(labels)
