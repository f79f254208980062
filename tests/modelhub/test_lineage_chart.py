"""A lineage's picture: every box left of what was made of it, whatever the order of reading."""

import pytest

from modelhub.lineage_chart import BOX_WIDTH, MAX_ROWS, lineage_chart
from modelhub.models import ModelVersion, Run, RunInput, RunOutput
from modelhub.selectors.lineage import version_lineage
from modelhub.selectors.versions import version_children
from tests import builders

pytestmark = pytest.mark.django_db


def make(version: ModelVersion, **inputs: object) -> None:
    run = Run.objects.create(program="sft", config={})
    RunOutput.objects.create(run=run, role="model", artifact=version.artifact)
    for role, artifact in inputs.items():
        RunInput.objects.create(run=run, role=role, artifact=artifact)


def chart_of(version: ModelVersion):
    children = version_children(version=version)
    return lineage_chart(version_lineage(version=version), version, children)


def test_what_is_read_twice_stands_left_of_both_that_read_it() -> None:
    base, middle, last = (builders.make_version(name) for name in ("base", "middle", "last"))
    rows = builders.make_artifact(kind="rankings")
    make(middle, base=base.artifact)
    make(last, base=base.artifact, rankings=rows, start=middle.artifact)
    child = builders.make_version("child")
    ModelVersion.objects.filter(pk=child.pk).update(parent=last)
    chart = chart_of(last)
    x = {box.name: box.x for box in chart.boxes}
    assert x["base v1"] < x["middle v1"] == x["rankings"] < x["last v1"] < x["child v1"]
    # base to middle, base and rankings and middle to last, last to its child.
    assert len(chart.arrows) == 5
    assert [box.name for box in chart.boxes if box.is_here] == ["last v1"]
    assert chart.width >= x["child v1"] + BOX_WIDTH


def test_a_crowd_is_counted_rather_than_drawn() -> None:
    version = builders.make_version("last")
    make(version, **{f"pool_{n}": builders.make_artifact() for n in range(MAX_ROWS + 3)})
    chart = chart_of(version)
    assert len(chart.boxes) == MAX_ROWS + 1
    assert chart.left_out == 3


def test_the_page_draws_it_with_links(signed_in, eve) -> None:
    base, last = builders.make_version("base"), builders.make_version("last")
    make(last, base=base.artifact)
    page = signed_in(eve).get(f"/hub/versions/{last.uid}/").content.decode()
    picture = page.partition("lineage-chart")[2].partition("</svg>")[0]
    assert f'href="/hub/versions/{base.uid}/"' in picture
    assert f'href="/hub/versions/{last.uid}/"' not in picture
    alone = signed_in(eve).get(f"/hub/versions/{base.uid}/").content.decode()
    assert "lineage-chart" not in alone
