"""Runs side by side: what differs, and what each has measured."""

from django.urls import reverse

from modelhub.models import Run
from modelhub.selectors.runs import runs_compare
from tests import builders


def test_settings_that_differ_and_every_figure(counting, eve, signed_in):
    one, two = counting(steps=3, seed=1), counting(steps=5, seed=1)
    version = builders.make_version("smol")
    two.inputs.create(role="start", artifact=version.artifact)
    Run.objects.filter(pk=one.pk).update(
        status="succeeded", result={"held_out": {"accuracy": 0.5}, "words": "left out"}
    )
    found = runs_compare(uids=[two.uid, one.uid, two.uid, "0" * 32])
    assert found.runs == [two, one]
    assert dict(found.settings) == {"reads.start": ["smol v1", "–"], "steps": ["5", "3"]}
    assert found.results == [("held_out.accuracy", ["–", "0.5"])]
    page = signed_in(eve).get(reverse("run_compare"), {"run": [one.uid, two.uid]})
    assert page.status_code == 200
    assert reverse("run_metrics", args=[two.uid]) in page.content.decode()


def test_one_run_is_nothing_to_compare(counting, eve, signed_in):
    page = signed_in(eve).get(reverse("run_compare"), {"run": counting().uid})
    assert "Choose two runs or more" in page.content.decode()
