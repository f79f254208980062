"""A store and run folder of the test's own, and a campaign with three people who rank."""

from pathlib import Path
from typing import Any

import pytest

from alignment.models import Campaign
from annotation.models import Membership, Project
from tests import builders
from tests.alignment import hands


@pytest.fixture(autouse=True)
def folders(settings: Any, tmp_path: Path) -> None:
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    settings.RUNS_DIR = tmp_path / "runs"


@pytest.fixture
def campaign(project: Project) -> Campaign:
    return hands.make_campaign(project)


@pytest.fixture
def people(project: Project) -> list[Membership]:
    return [builders.make_member(project, f"ranker-{i}") for i in range(3)]
