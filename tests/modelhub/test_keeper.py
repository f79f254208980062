"""Servers of versions, as real processes: started, ready, stopped, killed, and taken over."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.utils import timezone

from modelhub import keeper as keeper_module
from modelhub import storage
from modelhub.endpoints import answer_stream
from modelhub.keeper import (
    Keeper,
    memory_free_bytes,
    port_free,
    process_mark,
    served_of,
    server_launch,
)
from modelhub.ml.serve import LOOKED_AFTER_NAME, served_write
from modelhub.models import Endpoint, Server
from modelhub.selectors.servers import servers_ready
from modelhub.services.servers import server_request, server_stop
from modelhub.tasks import reap_runs
from tests.modelhub.served import STAND_IN, looked, make_served

pytestmark = pytest.mark.django_db


@pytest.fixture
def eve() -> User:
    return User.objects.create_user("eve", is_staff=True)


@pytest.fixture
def keeper(settings, tmp_path) -> Iterator[Keeper]:
    settings.SERVERS_DIR = tmp_path / "servers"
    settings.SERVER_MODULE = STAND_IN
    keeper = Keeper(host="here")
    yield keeper
    keeper.end_all()


def is_ready(server: Server) -> bool:
    return server.status == Server.Status.READY


def is_ended(server: Server) -> bool:
    return server.status == Server.Status.ENDED


def pid_of(server: Server) -> int:
    return int(server.process.partition(":")[0])


def processes_of(server: Server) -> list[int]:
    """Every process that prints to the server's log."""
    log = str((storage.server_folder(server) / storage.LOG_NAME).resolve())
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str((folder / "fd/1").readlink()) == log:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def gone(server: Server) -> bool:
    deadline = time.monotonic() + 20
    while processes_of(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes_of(server)


def test_a_version_is_served_answers_as_an_endpoint_and_is_stopped(keeper, eve, tmp_path) -> None:
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ready)
    assert server.host == "here" and server.ready_at is not None
    endpoint = Endpoint.objects.get()
    assert (endpoint.name, endpoint.version) == ("served-smol-v1", version)
    assert endpoint.base_url == f"http://127.0.0.1:{server.port}/v1"
    words = answer_stream(
        endpoint=endpoint,
        messages=[{"role": "user", "content": "hello"}],
        temperature=1.0,
        max_tokens=8,
    )
    assert "".join(words) == "smol@1 heard: hello"
    assert "stand-in for" in storage.server_log_tail(server)
    assert "--max-model-len" in storage.server_log_tail(server)
    assert len(processes_of(server)) == 2  # the launcher and the server
    server_stop(server=server, actor=eve)
    looked(keeper, server, is_ended)
    assert server.error == ""
    assert gone(server)
    assert not Endpoint.objects.exists()  # the port may be another's tomorrow


def test_a_server_is_not_ready_before_it_answers(keeper, eve, tmp_path) -> None:
    version = make_served(tmp_path / "files", state="slow")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, lambda one: "stand-in" in storage.server_log_tail(one))
    for _ in range(5):
        keeper.look()
    server.refresh_from_db()
    assert server.status == Server.Status.STARTING and not Endpoint.objects.exists()
    (storage.artifact_folder(version.artifact) / "slow").unlink()
    looked(keeper, server, is_ready)


def test_one_that_cannot_start_ends_with_the_end_of_its_log(keeper, eve, tmp_path) -> None:
    version = make_served(tmp_path / "files", state="broken")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ended)
    assert "It ended by itself." in server.error
    assert "ValueError: these weights are no good" in server.error


def test_damaged_files_are_not_served(keeper, eve, tmp_path) -> None:
    version = make_served(tmp_path / "files")
    (storage.artifact_folder(version.artifact) / "name.txt").write_text("smoI")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ended)
    assert "refused: smol@1: name.txt has changed" in server.error
    assert "stand-in" not in server.error


def test_more_memory_than_is_free_is_refused_and_nothing_starts(
    keeper, eve, tmp_path, monkeypatch
) -> None:
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    monkeypatch.setattr(keeper_module, "memory_free_bytes", lambda: server.memory_bytes - 1)
    monkeypatch.setattr(keeper_module, "has_gpu", lambda: False)
    looked(keeper, server, is_ended)
    assert "of memory, and here has 1.6" in server.error
    assert not storage.server_folder(server).exists()


def test_what_starting_servers_have_not_taken_yet_is_not_free(
    keeper, eve, tmp_path, monkeypatch
) -> None:
    first = make_served(tmp_path / "first", state="slow")
    second = make_served(tmp_path / "second", "other")
    one = server_request(version=first, context_tokens=512, requested_by=eve)
    monkeypatch.setattr(keeper_module, "memory_free_bytes", lambda: 2 * one.memory_bytes - 1)
    monkeypatch.setattr(keeper_module, "has_gpu", lambda: False)
    other = server_request(version=second, context_tokens=512, requested_by=eve)
    looked(keeper, other, is_ended)
    assert "of memory" in other.error
    one.refresh_from_db()
    assert one.status == Server.Status.STARTING


def test_the_free_memory_is_what_this_machine_could_give() -> None:
    assert 0 < memory_free_bytes() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_killed_server_is_said_to_be_dead(keeper, eve, tmp_path) -> None:
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ready)
    os.kill(pid_of(server), signal.SIGKILL)
    looked(keeper, server, is_ended)
    assert "It was ended by SIGKILL." in server.error
    assert gone(server)  # the server itself went with its launcher
    assert not Endpoint.objects.exists()


def test_one_that_does_not_end_when_asked_is_ended(keeper, eve, tmp_path, monkeypatch) -> None:
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ready)
    os.kill(pid_of(server), signal.SIGSTOP)
    monkeypatch.setattr(keeper_module, "_STOP_GRACE_S", 0.3)
    server_stop(server=server, actor=eve)
    looked(keeper, server, is_ended)
    assert gone(server)


def test_one_that_takes_a_while_to_end_is_asked_once_and_left_to_it(
    keeper, eve, tmp_path, monkeypatch
) -> None:
    version = make_served(tmp_path / "files", state="lingering")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ready)
    sent, send = [], keeper._signal
    monkeypatch.setattr(
        keeper, "_signal", lambda one, number: (sent.append(number), send(one, number))
    )
    server_stop(server=server, actor=eve)
    server.refresh_from_db()
    keeper.look()
    time.sleep(0.2)
    os.kill(pid_of(server), signal.SIGTERM)  # another's: the launcher has been told already
    looked(keeper, server, is_ended)
    assert sent == [signal.SIGTERM, signal.SIGKILL]  # the last to what is left, if anything
    assert "ended in its own time" in storage.server_log_tail(server)


def test_one_that_waits_is_stopped_at_once(keeper, eve, tmp_path) -> None:
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    server_stop(server=server, actor=eve)
    keeper.look()
    server.refresh_from_db()
    assert is_ended(server) and server.process == ""


KEEPER = """
import json, os, sys
from django.conf import settings
given = json.loads(sys.argv[1])
settings.DATABASES["default"]["NAME"] = given["database"]
for name in ("ARTIFACTS_DIR", "SERVERS_DIR", "SERVER_MODULE", "SERVER_LEASE_S"):
    setattr(settings, name, given[name])
import django
django.setup()
import signal
from modelhub.keeper import Keeper
keeper = Keeper(host="here")
keeper.start()
signal.signal(signal.SIGTERM, lambda *_: keeper.stop())
keeper.join()
"""


def keeper_start() -> "subprocess.Popen[bytes]":
    """A keeper in a process of its own, as a worker has it."""
    names = ("ARTIFACTS_DIR", "SERVERS_DIR", "SERVER_MODULE", "SERVER_LEASE_S")
    given = {name: getattr(settings, name) for name in names}
    given["database"] = connection.settings_dict["NAME"]
    return subprocess.Popen(
        [sys.executable, "-c", KEEPER, json.dumps(given, default=str)],
        cwd=settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
    )


def waited(server: Server, status: str) -> Server:
    deadline = time.monotonic() + 60
    while server.status != status:
        assert time.monotonic() < deadline, (server.status, server.error)
        time.sleep(0.1)
        server.refresh_from_db()
    return server


@pytest.mark.django_db(transaction=True)
def test_a_server_outlives_its_keeper_and_the_next_one_takes_it_over(keeper, eve, tmp_path) -> None:
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    first = keeper_start()
    waited(server, Server.Status.READY)
    first.kill()
    first.wait()
    pid, seen_at = pid_of(server), server.seen_at
    second = keeper_start()
    Server.objects.update(seen_at=None)
    deadline = time.monotonic() + 60
    while server.seen_at in (seen_at, None):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        server.refresh_from_db()
    assert server.status == Server.Status.READY and pid_of(server) == pid
    assert httpx.get(f"http://127.0.0.1:{server.port}/v1/models").status_code == 200
    # One that stops in good order takes its servers with it, those it has taken over too.
    second.terminate()
    assert second.wait(60) == 0
    server.refresh_from_db()
    assert is_ended(server) and server.error == "It ended with the site's worker."
    assert gone(server)


def test_a_server_that_died_while_nobody_looked_is_said_to_be_dead(keeper, eve, tmp_path) -> None:
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ready)
    process = keeper._own.pop(server.pk)  # a keeper that knows of it by its row alone
    process.kill()
    process.wait()
    looked(keeper, server, is_ended)
    assert "It ended while no worker looked after it." in server.error


def test_another_process_of_the_same_id_is_not_taken_for_the_server(keeper, eve, tmp_path) -> None:
    """Ids are given out again: the moment of its start is compared too."""
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ready)
    keeper._own.pop(server.pk).kill()
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        pid, start, boot = process_mark(stranger.pid).split(":")
        Server.objects.update(process=f"{pid}:{int(start) - 1}:{boot}")
        looked(keeper, server, is_ended)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_start_that_was_interrupted_leaves_no_process(keeper, eve, tmp_path) -> None:
    """The keeper was killed between starting the process and writing it down."""
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ready)
    keeper._own.pop(server.pk)
    Server.objects.update(process="", status=Server.Status.STARTING)
    looked(keeper, server, is_ended)
    assert gone(server)


def test_a_server_that_nobody_looks_after_ends_by_itself(keeper, eve, tmp_path, settings) -> None:
    settings.SERVER_LEASE_S = 60.0
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    folder = storage.server_folder_make(server)
    (folder / LOOKED_AFTER_NAME).touch()
    served = served_of(server, port=port_free())
    assert served.lease_s == 60.0
    served_write(folder, replace(served, lease_s=1.0))
    process = server_launch(folder)
    try:
        assert process.wait(30) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert gone(server)
    assert "nobody has looked after this server for 1 s" in storage.server_log_tail(server)


def test_a_server_whose_machine_is_long_silent_is_ended(keeper, eve, tmp_path, settings) -> None:
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ready)
    lease = timedelta(seconds=settings.SERVER_LEASE_S)
    assert servers_ready(versions=[version]) == [server]
    Server.objects.update(seen_at=timezone.now() - 2 * lease)
    assert servers_ready(versions=[version]) == []
    reap_runs()
    server.refresh_from_db()
    assert is_ready(server)
    Server.objects.update(seen_at=timezone.now() - 6 * lease)
    reap_runs()
    server.refresh_from_db()
    assert is_ended(server) and server.error == "Its machine has not been heard of."
    assert not Endpoint.objects.exists()
    keeper.look()  # it was there all the time, cut off from the database
    assert gone(server)


def test_marks_are_renewed_while_the_database_is_away(keeper, eve, tmp_path, monkeypatch) -> None:
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ready)
    mark = storage.server_folder(server) / LOOKED_AFTER_NAME
    os.utime(mark, (1, 1))

    def away() -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(keeper_module, "servers_live", away)
    with pytest.raises(OperationalError):
        keeper.look()
    assert mark.stat().st_mtime > 1
    monkeypatch.undo()


def test_one_that_cannot_be_launched_says_why_and_the_next_one_is_begun(
    keeper, eve, tmp_path, monkeypatch
) -> None:
    first, second = make_served(tmp_path / "one"), make_served(tmp_path / "two", "other")
    one = server_request(version=first, context_tokens=512, requested_by=eve)
    other = server_request(version=second, context_tokens=512, requested_by=eve)
    launch = keeper_module.server_launch

    def launched(folder: Path) -> "subprocess.Popen[bytes]":
        if folder.name == one.uid:
            raise OSError(errno.ENOSPC, "No space left on device")
        return launch(folder)

    monkeypatch.setattr(keeper_module, "server_launch", launched)
    keeper.look()
    one.refresh_from_db()
    assert is_ended(one) and one.error == "OSError: [Errno 28] No space left on device"
    looked(keeper, other, is_ready)


def test_one_that_cannot_be_looked_after_hides_no_later_one(
    keeper, eve, tmp_path, monkeypatch
) -> None:
    first, second = make_served(tmp_path / "one"), make_served(tmp_path / "two", "other")
    one = server_request(version=first, context_tokens=512, requested_by=eve)
    other = server_request(version=second, context_tokens=512, requested_by=eve)
    answers = keeper_module.server_answers

    def answered(server: Server) -> bool:
        if server.pk == one.pk:
            raise RuntimeError("an answer of no kind that is known")
        return answers(server)

    monkeypatch.setattr(keeper_module, "server_answers", answered)
    looked(keeper, other, is_ready)
    one.refresh_from_db()
    assert one.status == Server.Status.STARTING


def test_another_machines_servers_are_left_to_it(keeper, eve, tmp_path) -> None:
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    Server.objects.update(status=Server.Status.READY, host="there", process="1:2:3")
    keeper.look()
    keeper.end_all()
    server.refresh_from_db()
    assert server.status == Server.Status.READY


def test_a_server_gets_no_secret(keeper, eve, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RONDO_SECRET_KEY", "a-secret")
    version = make_served(tmp_path / "files")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    looked(keeper, server, is_ready)
    for pid in processes_of(server):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"VLLM_NO_USAGE_STATS=1" in environment or pid == pid_of(server)
        assert b"a-secret" not in environment
