"""Runs of the counting program, and a store and run folder of the test's own."""

from pathlib import Path
from typing import Any

import pytest

from modelhub.models import Run
from modelhub.services import runs
from tests.modelhub.counting import CountingConfig


@pytest.fixture(autouse=True)
def folders(settings: Any, tmp_path: Path) -> None:
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    settings.RUNS_DIR = tmp_path / "runs"
    settings.IMPORT_ROOTS = [tmp_path / "import"]
    settings.RUN_PROGRAMS = {**settings.RUN_PROGRAMS, "counting": "tests.modelhub.counting"}


@pytest.fixture
def counting(db: None):
    """`counting(steps=7, …)` → a queued run of the counting program."""

    def make(inputs: dict[str, Any] | None = None, **config: Any) -> Run:
        return runs.run_create(
            program="counting", config=CountingConfig(**config), inputs=inputs or {}
        )

    return make
