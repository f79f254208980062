"""RELIABILITY D01 to D05: eight real processes at one queue, on SQLite and on PostgreSQL.

Each database is stormed once for the module; the tests read what the history and the rows say.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.annotation.frozen_hash import frozen_hash, hostile_rows
from tests.postgres import postgres_url  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


def stormed(report: Path, environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.annotation.storm", str(report)],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, dict[str, Any]] = json.loads(report.read_text())
    return found


@pytest.fixture(scope="module", params=DATABASES)
def storm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("storm")
    environment = {"RONDO_DATA_DIR": str(folder)}
    if request.param == "postgres":
        environment["RONDO_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    else:
        environment["RONDO_DATABASE_URL"] = f"sqlite:///{folder}/storm.sqlite3"
    yield stormed(folder / "report.json", environment)


def scenario(storm: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    assert "error" not in storm[name], storm[name]["error"]
    print(name, storm[name])
    return storm[name]


def test_one_free_slot_has_one_winner_of_eight(storm: dict[str, dict[str, Any]]) -> None:
    """D01."""
    found = scenario(storm, "claim")
    assert found["rounds"] == 200
    assert found["answers"] == 1600
    assert found["rounds_without_one_winner"] == 0
    assert found["assignments"] == 200
    assert found["slots_free"] == 0


def test_overlap_holds_under_churn_and_nothing_acknowledged_is_lost(
    storm: dict[str, dict[str, Any]],
) -> None:
    """D02."""
    found = scenario(storm, "churn")
    assert found["acknowledged"] >= 120
    assert found["exceeded"] == 0
    assert found["lost"] == 0
    assert found["twice"] == 0
    assert found["unreconciled"] == 0
    assert found["filled"] == 60


def test_loading_ahead_gives_nobody_more_than_two_and_keeps_the_overlap(
    storm: dict[str, dict[str, Any]],
) -> None:
    found = scenario(storm, "ahead")
    assert found["held_at_most"] == 2
    assert found["acknowledged"] == 120
    assert found["filled"] == 60
    assert (found["exceeded"], found["surplus"], found["unreconciled"]) == (0, 0, 0)
    assert (found["lost"], found["twice"]) == (0, 0)


def test_the_storm_catches_a_naive_queue(storm: dict[str, dict[str, Any]]) -> None:
    """The guard's mutant: without conditional updates the overlap is exceeded, and it shows."""
    if "error" in storm["naive"]:
        assert "IntegrityError" in storm["naive"]["error"]
    else:
        assert storm["naive"]["exceeded"] > 0


def test_a_late_submission_in_the_same_instant_is_kept_and_counts_at_most_once(
    storm: dict[str, dict[str, Any]],
) -> None:
    """D03."""
    found = scenario(storm, "late")
    assert found["slow"] == 80
    assert found["discarded"] == 0
    assert found["exceeded"] == 0


def test_eight_tabs_make_one_submission_and_lose_no_opinion(
    storm: dict[str, dict[str, Any]],
) -> None:
    """D04."""
    found = scenario(storm, "tabs")
    assert found["sent"] == 80
    assert found["submissions"] == 10
    assert found["answers_that_differ"] == 0
    assert found["opinions_kept"] == 80
    assert found["kept_twice"] == 0


def test_twenty_requests_under_one_key_are_one_row_and_one_reply(
    storm: dict[str, dict[str, Any]],
) -> None:
    """D05."""
    found = scenario(storm, "keys")
    assert found["requests_a_key"] == [20]
    assert found["rows"] == 5
    assert found["revisions"] == 0
    assert found["keys_with_two_replies"] == 0


def test_the_same_answers_and_prompts_come_in_once(storm: dict[str, dict[str, Any]]) -> None:
    found = scenario(storm, "intake")
    assert found["candidates_told"] == [0] * 7 + [90]
    assert (found["candidates"], found["tasks"]) == (90, 30)
    assert found["prompts_told"] == [0] * 7 + [600]
    assert found["prompts"] == 630


@pytest.mark.postgres
def test_both_databases_freeze_to_one_hash(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """T01, over databases: PostgreSQL sorts by another collation, and stores JSON otherwise."""
    url = request.getfixturevalue("postgres_url")
    source = tmp_path / "rows.json"
    source.write_text(json.dumps(hostile_rows()))
    hashes = {
        frozen_hash(
            source,
            order=order,
            data_dir=tmp_path / str(order),
            environment={"RONDO_DATABASE_URL": address},
        )
        for order, address in enumerate([f"sqlite:///{tmp_path}/frozen.sqlite3", url])
    }
    assert len(hashes) == 1
