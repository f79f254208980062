"""Launching and comparing in a browser: one launch from two clicks, curves over each other."""

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect

from modelhub.models import Artifact, ModelVersion, Run, RunMetric
from tests import builders
from tests.pages.conftest import Open
from tests.pages.test_accessibility import violations

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def staff(transactional_db: None) -> User:
    return builders.make_user("eve", is_staff=True)


@pytest.fixture
def runs(staff: User, tmp_path: Path, settings) -> list[Run]:
    settings.RUNS_DIR = tmp_path / "runs"
    made = []
    for number, lr in enumerate((1e-5, 2e-5)):
        run = Run.objects.create(
            program="sft",
            config={"lr": lr, "epochs": 2},
            label=f"try {number}",
            status="succeeded",
            result={"epochs": [{"loss": 0.5}], "examples": 8 + number},
        )
        for step in range(30):
            RunMetric.objects.create(run=run, step=step, name="loss", value=1 / (1 + step + number))
        made.append(run)
    return made


def test_two_clicks_on_launch_are_one_run(
    open_page: Open, staff: User, troubles: list[str]
) -> None:
    builders.make_version("smol", role=ModelVersion.Role.BASE)
    earlier = Run.objects.create(program="rejection", config={}, status="succeeded", result={})
    artifact = builders.make_artifact(Artifact.Kind.DEMONSTRATIONS)
    earlier.outputs.create(role="demonstrations", artifact=artifact)
    page = open_page(staff, "/launch/")
    page.get_by_role("link", name="Supervised fine-tuning").click()
    page.get_by_role("link", name="Llama 2").click()
    expect(page.get_by_label("examples per step")).to_have_value("64")
    assert violations(page) == []
    page.get_by_label("Start from", exact=True).select_option(label="smol v1, base")
    page.get_by_role("group", name="Demonstrations").get_by_role("checkbox").check()
    page.get_by_label("Name of its model in the hub").fill("helper")
    lr = page.locator("#id_setting-lr")
    lr.fill("-1")
    page.get_by_role("button", name="Launch").click()
    expect(page.locator("#id_setting-lr_error")).to_contain_text("wanted more than 0")
    assert [trouble for trouble in troubles if "422" not in trouble] == []
    troubles.clear()  # the browser's own line about the refusal
    lr.fill("9e-6")
    page.get_by_role("button", name="Launch").dblclick()
    page.wait_for_url("**/hub/runs/*/")
    (run,) = Run.objects.filter(program="sft", label="Supervised fine-tuning")
    assert (run.config["lr"], run.config["examples_per_step"]) == (9e-6, 64)
    assert run.intent["model"] == "helper"


@pytest.mark.parametrize("wide", [True, False], ids=["wide", "phone"])
def test_marked_runs_are_compared(
    open_page: Open, staff: User, runs: list[Run], wide: bool
) -> None:
    page = open_page(staff, "/hub/runs/", wide=wide)
    for run in runs:
        page.get_by_label(f"Compare {run}").check()
    page.get_by_role("button", name="Compare the marked runs").click()
    expect(page.get_by_role("row", name="lr")).to_contain_text("1e-05")
    expect(page.get_by_role("row", name="examples")).to_contain_text("9")
    chart = page.get_by_role("img", name="loss")
    expect(chart.locator("canvas")).to_have_count(1)
    expect(chart).to_have_attribute(
        "aria-label", f"loss: {runs[1]} ends at 0.03226, {runs[0]} ends at 0.03333"
    )
    assert violations(page) == []
