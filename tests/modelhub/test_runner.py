"""The runner with real programs: tests/modelhub/counting.py in processes of their own."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.metrics_file import metric_lines, metric_points
from modelhub.models import Artifact, Endpoint, Run, RunMetric
from modelhub.runner import processes_kill, program_environment, run_execute
from modelhub.services import runs
from modelhub.services.artifacts import artifact_store
from tests.modelhub.worker import worker_start

real_processes = pytest.mark.django_db(transaction=True)


def executed(run: Run) -> Run:
    run_execute(run_id=run.pk, owner="here")
    run.refresh_from_db()
    return run


def wait_until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def steps_done(run: Run) -> int:
    return RunMetric.objects.filter(run=run).count()


def curve(run: Run) -> list[tuple[int, float]]:
    return list(run.metrics.filter(name="total").values_list("step", "value"))


def log_of(run: Run) -> str:
    return (storage.run_folder(run) / "log.txt").read_text()


def processes_of(run: Run) -> list[int]:
    """The processes that print to the run's log."""
    log, found = str((storage.run_folder(run) / "log.txt").resolve()), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str((folder / "fd" / "1").readlink()) == log:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_run_ends_with_its_outputs_its_curve_and_its_lineage(counting):
    run = executed(counting(steps=4))
    assert run.status == Run.Status.SUCCEEDED, run.error
    assert (run.progress_done, run.progress_total, run.progress_unit) == (4, 4, "steps")
    assert [step for step, _ in curve(run)] == [1, 2, 3, 4]
    output = run.outputs.get(role="demonstrations")
    assert output.artifact.kind == Artifact.Kind.DEMONSTRATIONS
    total = (storage.artifact_folder(output.artifact) / "total.txt").read_text()
    assert run.result == {"total": float(total)} == {"total": curve(run)[-1][1]}
    assert (run.fence, run.attempts_left, run.lease_until) == (1, 2, None)


def test_the_directory_is_its_owners_alone_and_its_outputs_lead_into_the_store(counting):
    run = executed(counting(steps=2))
    folder = storage.run_folder(run)
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.rglob("*"):
        assert path.is_symlink() or not path.stat().st_mode & 0o077, path
    artifact = run.outputs.get().artifact
    assert (folder / "outputs/demonstrations").resolve() == storage.artifact_folder(artifact)


def test_a_killed_program_resumes_and_ends_as_if_it_had_not_been_killed(counting):
    straight = executed(counting(steps=6, seed=7))
    killed = executed(counting(steps=6, seed=7, misbehaviour="kill once", at_step=4))
    assert killed.status == Run.Status.QUEUED
    assert "SIGKILL" in killed.error
    executed(killed)
    assert killed.status == Run.Status.SUCCEEDED
    assert "resumed after step 3" in log_of(killed)
    assert killed.error == ""
    assert killed.result == straight.result
    assert curve(killed) == curve(straight)
    made = [run.outputs.get().artifact.manifest["files"] for run in (killed, straight)]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("misbehaviour", "reason"),
    [
        ("kill", "ended by SIGKILL"),
        ("raise", "RuntimeError: the dog ate it"),
        ("no result", "ended without a result"),
        ("file limit", "File too large"),
        ("sync", "Input/output error"),
    ],
)
def test_a_poisoned_run_has_three_attempts_then_fails_with_the_reason(
    counting, misbehaviour, reason
):
    run = counting(steps=3, misbehaviour=misbehaviour)
    for _ in range(5):
        executed(run)
    assert run.status == Run.Status.FAILED
    assert run.fence == 3
    assert reason in run.error
    assert run.ended_at is not None
    assert not run.outputs.exists()
    assert not Artifact.objects.exists()
    # The whole checkpoints are what is left; the one whose writing failed is none.
    kept = {one.name for one in (storage.run_folder(run) / "checkpoints").glob("step-*")}
    assert "step-00000002" in kept
    assert misbehaviour == "no result" or "step-00000003" not in kept


def test_a_refusal_is_not_tried_again_and_its_line_is_the_error(counting):
    run = executed(counting(misbehaviour="nan"))
    assert run.status == Run.Status.FAILED
    assert run.fence == 1
    assert run.error == "refused: loss is nan at step 3"


def test_want_of_memory_is_named_and_not_tried_again(counting):
    run = executed(counting(misbehaviour="memory"))
    assert run.status == Run.Status.FAILED
    assert run.fence == 1
    assert run.error.startswith("out of memory")
    assert "no room for 7 GB" in run.error


def test_a_program_reads_its_inputs_through_links_into_the_store(counting, tmp_path):
    folder = tmp_path / "start"
    folder.mkdir()
    (folder / "total.txt").write_text("100.0")
    artifact = artifact_store(folder=folder, kind=Artifact.Kind.DEMONSTRATIONS)
    run = executed(counting(inputs={"start": artifact}, steps=1))
    assert run.status == Run.Status.SUCCEEDED
    assert 100 < run.result["total"] < 101


def test_a_changed_input_stops_the_run_and_is_named(counting, tmp_path):
    folder = tmp_path / "start"
    folder.mkdir()
    (folder / "total.txt").write_text("100.0")
    artifact = artifact_store(folder=folder, kind=Artifact.Kind.DEMONSTRATIONS)
    (storage.artifact_folder(artifact) / "total.txt").write_text("900.0")
    run = executed(counting(inputs={"start": artifact}, steps=1))
    assert run.status == Run.Status.FAILED
    assert run.fence == 1
    assert "input start: total.txt has changed" in run.error


def test_an_output_changed_after_the_result_is_not_stored(counting):
    run = counting(steps=2)
    folder = storage.run_folder_make(run)
    (folder / "outputs/demonstrations").mkdir(parents=True)
    (folder / "outputs/demonstrations/total.txt").write_text("1.0")
    described = {"path": "outputs/demonstrations", "kind": "demonstrations", "sha256": "0" * 64}
    (folder / "result.json").write_text(
        json.dumps({"outputs": {"demonstrations": described}, "result": {}})
    )
    executed(run)
    assert run.status == Run.Status.QUEUED
    assert "not what the program wrote" in run.error
    # The next attempt does not find the result that could not be used.
    assert executed(run).status == Run.Status.SUCCEEDED


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "outputs/../../elsewhere"])
def test_a_result_that_points_elsewhere_is_refused(counting, path):
    run = counting(steps=2)
    folder = storage.run_folder_make(run)
    described = {"path": path, "kind": "demonstrations", "sha256": "0" * 64}
    (folder / "result.json").write_text(json.dumps({"outputs": {"x": described}, "result": {}}))
    executed(run)
    assert "lies outside" in run.error
    assert not Artifact.objects.exists()


@pytest.mark.parametrize("role", ["..", ".", "", "a/b", "Model", "x" * 41])
def test_an_output_named_as_no_output_can_be_is_refused(counting, role):
    """`..` is the name of its own path, and its folder the run's own."""
    run = counting(steps=2)
    folder = storage.run_folder_make(run)
    described = {"path": f"outputs/{role}", "kind": "demonstrations", "sha256": "0" * 64}
    (folder / "result.json").write_text(json.dumps({"outputs": {role: described}, "result": {}}))
    executed(run)
    assert "lies outside" in run.error
    assert not Artifact.objects.exists()


def hook_refusing(*, run: Run) -> None:
    raise ApplicationError("The dataset of this run is gone.")


def test_what_follows_a_run_is_done_in_its_transaction_or_not_at_all(counting, settings):
    settings.RUN_SUCCEEDED_HOOKS = {"counting": "tests.modelhub.test_runner.hook_refusing"}
    run = executed(counting(steps=2))
    assert run.status == Run.Status.FAILED
    assert "The dataset of this run is gone." in run.error
    assert not run.outputs.exists()
    assert run.result is None


def test_a_line_torn_by_a_kill_does_not_spoil_the_next(counting):
    run = counting(steps=2)
    folder = storage.run_folder_make(run)
    whole = '{"step":0,"values":{"total":0.0}}\n'
    (folder / "metrics.jsonl").write_text(whole + '{"step":1,"val')
    executed(run)
    assert [step for step, _ in curve(run)] == [0, 1, 2]


def test_lines_that_are_no_metrics_are_passed_over():
    assert metric_points(b'{"step":2,"values":{"loss":0.5,"lr":1}}') == [
        (2, "loss", 0.5),
        (2, "lr", 1.0),
    ]
    for line in (
        b"",
        b"[]",
        b'{"step":1}',
        b'{"step":"x","values":{"a":1}}',
        b'{"step":1,"values":{"a":"b"}}',
        b'{"step":1,"values":{"a":NaN}}',
        b"\xff\xfe",
    ):
        assert metric_points(line) == []


def test_behind_a_rewind_the_curve_is_of_the_steps_that_count(counting):
    def line(step, loss):
        return f'{{"step":{step},"values":{{"loss":{loss},"lr":0.1}}}}'.encode()

    first = [line(1, 5.0), line(2, 4.0), line(3, 9.0)]
    again = [b'{"rewound_to":1}', line(2, 3.5), line(3, 3.0)]
    told = [(1, "loss", 5.0), (2, "loss", 3.5), (3, "loss", 3.0)]
    left = [(2, "loss_left", 4.0), (3, "loss_left", 9.0)]
    points, rewound_to = metric_lines(first + again)
    assert rewound_to == 1
    assert sorted(one for one in points if one[1] != "lr") == sorted(told + left)
    assert sorted(step for step, name, _ in points if name == "lr") == [1, 2, 3]

    # Read in two parts, as a run that is followed is, and whatever was left at an earlier rewind.
    run = runs.run_claim(run_id=counting().pk, owner="here")
    for lines in (first, again, [b'{"rewound_to":2}', line(3, 2.5)]):
        points, rewound_to = metric_lines(lines)
        runs.run_metrics_add(
            run_id=run.pk, fence=run.fence, points=points, offset=1, rewound_to=rewound_to
        )
    kept = {
        name: list(RunMetric.objects.filter(run=run, name=name).values_list("step", "value"))
        for name in ("loss", "lr", "loss_left")
    }
    assert sorted(kept["loss"]) == [(1, 5.0), (2, 3.5), (3, 2.5)]
    assert len(kept["lr"]) == 3
    assert sorted(kept["loss_left"]) == [(2, 4.0), (3, 3.0)]


def test_secrets_do_not_reach_the_program(counting, monkeypatch):
    for name in ("RONDO_SECRET_KEY", "RONDO_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    run = executed(counting(steps=1))
    line = next(line for line in log_of(run).splitlines() if line.startswith("environment"))
    for name in ("RONDO_SECRET_KEY", "RONDO_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        assert f"'{name}'" not in line
    assert "'TOKENIZERS_PARALLELISM'" in line
    assert "canary" not in log_of(run)


def test_a_databases_password_under_whatever_name_reaches_no_program(monkeypatch):
    names = ("PGPASSWORD", "SMTP_PASS", "LDAP_PWD", "SENTRY_DSN", "ERRORS_DSN", "db_pass")
    for name in names:
        monkeypatch.setenv(name, "canary")
    given = program_environment(Run(program="generate", config={}))
    assert not set(names) & set(given)
    assert "PATH" in given and "PWD" in given


def test_an_import_from_the_hub_alone_may_reach_it(monkeypatch):
    def offline(**config: str) -> str | None:
        run = Run(program="import_model", config=config)
        return program_environment(run).get("HF_HUB_OFFLINE")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert offline(source="hub") is None
    assert offline(source="directory") == offline() == "1"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert offline() == "0"


def test_an_import_from_the_hub_asks_the_hub_that_is_pushed_to(monkeypatch, settings):
    settings.MODEL_HUB_ENDPOINT = "https://hub.example"
    monkeypatch.delenv("HF_ENDPOINT", raising=False)

    def endpoint(**config: str) -> str | None:
        run = Run(program="import_model", config=config)
        return program_environment(run).get("HF_ENDPOINT")

    assert (endpoint(source="hub"), endpoint()) == ("https://hub.example", None)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert endpoint(source="hub") == "https://mirror.example"


def test_a_corpus_whose_source_is_called_hub_is_given_no_key_of_the_hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def given(program: str) -> dict[str, str]:
        return program_environment(Run(program=program, config={"source": "hub"}))

    assert given("import_model")["HF_TOKEN"] == "canary"
    assert "HF_TOKEN" not in given("import_corpus")
    assert given("import_corpus")["HF_HUB_OFFLINE"] == "1"


def test_a_storages_keys_go_to_an_import_of_texts_from_there_alone(monkeypatch):
    keys = {
        "s3": ("AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "FSSPEC_S3"),
        "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "FSSPEC_GCS_TOKEN"),
        "az": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING"),
    }
    every = {name for names in keys.values() for name in names}
    for name in every | {"HF_TOKEN"}:
        monkeypatch.setenv(name, "canary")

    def given(program: str, *locations: str) -> set[str]:
        run = Run(program=program, config={"locations": list(locations)})
        return {name for name, value in program_environment(run).items() if value == "canary"}

    for scheme, names in keys.items():
        assert given("import_corpus", "/texts", f"{scheme}://bucket/key") == set(names)
    assert given("import_corpus", "S3://bucket/key") == set(keys["s3"])
    assert given("import_corpus", "/texts", "https://s3/x") == set()
    assert given("generate", "s3://bucket/key") == set()


def test_an_endpoints_key_goes_only_where_an_administrator_registered_it(db, monkeypatch):
    monkeypatch.setenv("CHAT_API_KEY", "canary")
    address = "https://chat.example/v1"
    Endpoint.objects.create(
        name="chat", base_url=address, served_model="m", api_key_variable="CHAT_API_KEY"
    )

    def given(**config: str) -> bool:
        return "CHAT_API_KEY" in program_environment(Run(program="generate", config=config))

    assert given(endpoint_url=address, endpoint_key_variable="CHAT_API_KEY")
    assert not given(endpoint_url="https://evil.example", endpoint_key_variable="CHAT_API_KEY")
    assert not given(endpoint_url=address)
    assert not given()


def test_a_process_left_by_an_earlier_attempt_is_ended_and_no_other(tmp_path):
    log, other = tmp_path / "log.txt", tmp_path / "other.txt"
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    with log.open("w") as mine, other.open("w") as theirs:
        leftover = subprocess.Popen(sleeping, stdout=mine)
        bystander = subprocess.Popen(sleeping, stdout=theirs)
    try:
        processes_kill(log)
        assert leftover.wait(timeout=10) == -signal.SIGKILL
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_stopping_worker_hands_the_run_back_without_counting_the_attempt(counting):
    run = counting(steps=200, step_s=0.05)
    run_execute(
        run_id=run.pk,
        owner="here",
        is_stopping=lambda: (storage.run_folder(run) / "checkpoints/step-00000003").exists(),
    )
    run.refresh_from_db()
    assert run.status == Run.Status.QUEUED
    assert run.attempts_left == 3
    assert processes_of(run) == []


@real_processes
def test_of_ten_deliveries_of_one_message_one_has_an_effect(counting):
    run = counting(steps=5, step_s=0.05)

    def deliver() -> None:
        try:
            run_execute(run_id=run.pk, owner=f"thread {threading.get_ident()}")
        finally:
            connection.close()

    threads = [threading.Thread(target=deliver) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED
    assert run.fence == 1
    assert log_of(run).count("--- attempt") == 1
    assert run.outputs.count() == 1


@real_processes
def test_a_run_whose_worker_was_killed_is_reaped_and_ends_the_same(counting, settings):
    settings.RUN_LEASE_S, settings.RUN_HEARTBEAT_S = 2.0, 0.3
    straight = executed(counting(steps=12, seed=3))
    run = counting(steps=12, seed=3, step_s=0.2)
    worker = worker_start(run.pk)
    wait_until(lambda: steps_done(run) >= 2)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    wait_until(lambda: not processes_of(run), 5)  # the program goes with its worker
    assert runs.runs_reap() in (0, 1)
    wait_until(lambda: runs.runs_reap() or Run.objects.get(pk=run.pk).status == "queued", 10)
    run.refresh_from_db()
    assert run.status == Run.Status.QUEUED
    assert "was lost" in run.error
    executed(run)
    assert run.status == Run.Status.SUCCEEDED
    assert "resumed after step" in log_of(run)
    assert run.result == straight.result
    assert curve(run) == curve(straight)


@real_processes
def test_a_running_run_is_cancelled_in_seconds_and_a_retry_goes_on_from_there(counting):
    run = counting(steps=60, seed=5, step_s=0.1)
    worker = worker_start(run.pk)
    wait_until(lambda: steps_done(run) >= 2)
    asked_at = time.monotonic()
    assert runs.run_cancel(run=run, actor=None).status == Run.Status.RUNNING
    assert worker.wait(timeout=10) == 0
    assert time.monotonic() - asked_at < 5
    run.refresh_from_db()
    assert run.status == Run.Status.CANCELLED
    assert processes_of(run) == []
    Run.objects.filter(pk=run.pk).update(config={**run.config, "step_s": 0.0})
    runs.run_retry(run=run, actor=None)
    executed(run)
    assert run.status == Run.Status.SUCCEEDED
    assert "resumed after step" in log_of(run)
    assert [step for step, _ in curve(run)] == list(range(1, 61))


@real_processes
def test_a_program_that_ignores_the_cancellation_is_killed(counting, settings):
    settings.RUN_CANCEL_GRACE_S = 1.0
    run = counting(steps=100, step_s=0.1, misbehaviour="stubborn")
    worker = worker_start(run.pk)
    wait_until(lambda: steps_done(run) >= 2)
    runs.run_cancel(run=run, actor=None)
    worker.wait(timeout=15)
    run.refresh_from_db()
    assert run.status == Run.Status.CANCELLED
    assert processes_of(run) == []


@real_processes
def test_a_worker_that_lost_its_run_ends_the_program_and_writes_nothing(counting, settings):
    settings.RUN_HEARTBEAT_S = 0.3
    run = counting(steps=100, step_s=0.1)
    worker = worker_start(run.pk)
    wait_until(lambda: steps_done(run) >= 2)
    # As if this worker had been silent for long: reaped, and claimed by another one.
    later = timezone.now() + timedelta(hours=1)
    Run.objects.filter(pk=run.pk).update(fence=2, owner="another", lease_until=later)
    worker.wait(timeout=15)
    assert processes_of(run) == []
    run.refresh_from_db()
    assert (run.status, run.fence, run.owner) == (Run.Status.RUNNING, 2, "another")
    assert run.lease_until == later
