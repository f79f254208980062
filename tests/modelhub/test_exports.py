"""A run on a machine without a database: out in a folder, and back as a version's run."""

import json
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from modelhub.errors import ApplicationError, ConflictError
from modelhub.exports import run_export, run_import
from modelhub.models import Run
from modelhub.runner import run_execute
from modelhub.services import runs
from modelhub.services.artifacts import artifact_store
from tests.modelhub.ml.runs import ROOT


@pytest.fixture
def handed_out(counting, tmp_path):
    start = tmp_path / "start"
    start.mkdir()
    (start / "total.txt").write_text("10.0")
    run = counting({"start": artifact_store(folder=start, kind="demonstrations")}, steps=3)
    return runs.run_hand_out(run=run)


def worked_off(folder):
    """The program by hand, with no database to be found."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.modelhub.counting", str(folder)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_it_goes_out_and_comes_back_with_outputs_curve_and_result(handed_out, tmp_path, capsys):
    folder = tmp_path / "carried"
    call_command("run_export", handed_out.uid, str(folder))
    assert ".venv/bin/python -m tests.modelhub.counting carried" in capsys.readouterr().out
    worked_off(folder)
    call_command("run_import", str(folder))
    handed_out.refresh_from_db()
    assert handed_out.status == Run.Status.SUCCEEDED
    assert handed_out.result == {"total": pytest.approx(10 + total_of(3))}
    assert handed_out.outputs.get().role == "demonstrations"
    assert handed_out.metrics.count() == 3
    call_command("run_import", str(folder))  # taken back twice is once
    assert handed_out.outputs.count() == 1


def total_of(steps):
    import random

    return sum(random.Random(f"0 {step}").random() for step in range(1, steps + 1))


def test_no_worker_takes_it_meanwhile(handed_out):
    assert handed_out not in runs.runs_ring()
    run_execute(run_id=handed_out.pk, owner="here")
    assert runs.runs_reap() == 0
    handed_out.refresh_from_db()
    assert (handed_out.status, handed_out.owner) == (Run.Status.RUNNING, runs.ELSEWHERE)


def test_a_folder_that_does_not_come_back_in_time_is_given_up(handed_out, tmp_path):
    folder = worked_off(run_export(run=handed_out, folder=tmp_path / "carried"))
    Run.objects.filter(pk=handed_out.pk).update(lease_until=timezone.now())
    assert runs.runs_reap() == 1
    with pytest.raises(ConflictError, match="given up meanwhile"):
        run_import(folder=folder)
    handed_out.refresh_from_db()
    assert handed_out.status == Run.Status.QUEUED


def test_it_can_be_cancelled_at_once(handed_out, eve):
    assert runs.run_cancel(run=handed_out, actor=eve).status == Run.Status.CANCELLED


def test_an_output_that_was_changed_on_the_way_is_refused(handed_out, tmp_path):
    folder = worked_off(run_export(run=handed_out, folder=tmp_path / "carried"))
    (folder / "outputs/demonstrations/total.txt").write_text("99")
    with pytest.raises(ApplicationError, match="demonstrations is not what the program wrote"):
        run_import(folder=folder)
    handed_out.refresh_from_db()
    assert handed_out.status == Run.Status.RUNNING
    assert not handed_out.outputs.exists()


@pytest.mark.parametrize("role", ["..", "a/b", "/etc"])
def test_an_output_outside_the_folder_is_refused(handed_out, tmp_path, role):
    folder = worked_off(run_export(run=handed_out, folder=tmp_path / "carried"))
    result = json.loads((folder / "result.json").read_text())
    result["outputs"] = {role: result["outputs"]["demonstrations"]}
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(ApplicationError, match="no output"):
        run_import(folder=folder)


def test_what_cannot_be_exported_or_imported_says_why(counting, handed_out, tmp_path):
    with pytest.raises(ApplicationError, match="launch it for another machine"):
        run_export(run=counting(), folder=tmp_path / "queued")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    with pytest.raises(ApplicationError, match="is not empty"):
        run_export(run=handed_out, folder=tmp_path / "full")
    folder = run_export(run=handed_out, folder=tmp_path / "carried")
    with pytest.raises(CommandError, match=r"has no result\.json: the program"):
        call_command("run_import", str(folder))
    with pytest.raises(CommandError, match=r"has no export\.json: run_export wrote no such"):
        call_command("run_import", str(tmp_path / "full"))
    with pytest.raises(CommandError, match="There is no run"):
        call_command("run_export", "0" * 32, str(tmp_path / "none"))
