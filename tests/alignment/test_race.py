"""RELIABILITY S11, D36: eight real processes at the same rounds, on SQLite and on PostgreSQL."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import postgres_url  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(scope="module", params=DATABASES)
def race(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("race")
    environment = {"RONDO_DATA_DIR": str(folder)}
    if request.param == "postgres":
        environment["RONDO_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    else:
        environment["RONDO_DATABASE_URL"] = f"sqlite:///{folder}/race.sqlite3"
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.alignment.race", str(report)],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    yield json.loads(report.read_text())


def test_a_form_sent_by_eight_hands_is_one_round_and_of_eight_forms_one_wins(
    race: dict[str, dict[str, Any]],
) -> None:
    found = race["launch"]
    assert found["answers"] == 320
    assert found["rounds"] == 40
    assert found["same_form_given_one_round"] == 20
    assert found["one_manager_of_eight_won"] == 20


def test_eight_walkers_walk_each_arrow_once_and_start_each_run_once(
    race: dict[str, dict[str, Any]],
) -> None:
    found = race["walk"]
    assert found["promoted"] == 3
    assert found["arrows"] == found["different_arrows"] == 3 * 8
    assert found["runs"] == found["roles"] == 3 * 8
    assert found["runs_of_no_round"] == 0
    assert found["versions_made"] == 3 * 2


def test_of_four_who_promote_and_four_who_reject_one_side_is_heard(
    race: dict[str, dict[str, Any]],
) -> None:
    found = race["decide"]
    assert found["rounds"] == found["events"] == found["champions_right"] == 20
    assert found["told_both"] == 0


def test_the_race_catches_walkers_that_hold_nothing(race: dict[str, dict[str, Any]]) -> None:
    """The guard's mutant. SQLite holds the whole database for a transaction, so it shows less."""
    found = race["naive"]
    if race["database"] == "postgresql":
        assert found["refused_by_the_database"] + found["arrows_walked_twice"] > 0
